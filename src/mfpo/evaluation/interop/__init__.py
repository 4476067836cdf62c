"""Answers from and to lmms-eval and VLMEvalKit, and a model of ours inside lmms-eval."""
