"""What a training logs: metrics of a batch, the file they go to, and one readable line of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import ProgressCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mfpo.data.files import append_jsonl, write_jsonl
from mfpo.training.objectives import ObjectiveOutput, SequenceLogps

METRICS_FILE = "metrics.jsonl"
SMALLEST_MARGIN = 1e-3
"""Text margin, in units of reward, below which the modality balance is measured against this instead."""


def batch_metrics(output: ObjectiveOutput, policy: SequenceLogps) -> dict[str, Tensor]:
    """What is logged of B rows, ``[B]`` each: terms, rewards and log-probabilities.

    Args:
        output: Loss and rewards.
        policy: Log-probabilities under the model in training.
    """
    metrics = {f"loss/{name}": term for name, term in output.terms.items()}
    for kind in ("chosen", "rejected", "image_rejected"):
        logps = getattr(policy, kind)
        if logps is not None:
            metrics[f"logps/{kind}"] = logps
    rewards = output.rewards
    if rewards is None:
        return metrics
    metrics["rewards/chosen"] = rewards.chosen
    for kind, prefix in (("rejected", ""), ("image_rejected", "image_")):
        other = getattr(rewards, kind)
        if other is not None:
            metrics[f"rewards/{kind}"] = other
            metrics[f"rewards/{prefix}margins"] = rewards.chosen - other
            metrics[f"rewards/{prefix}accuracies"] = (rewards.chosen > other).float()
    return metrics


def modality_balance(logs: Mapping[str, float]) -> dict[str, float]:
    """Image margin over text margin, from their means over the rows of a line; empty without both.

    1 says that both modalities are learnt alike, 0 that the picture is not, as long as the text margin is
    positive. A text margin closer to 0 than `SMALLEST_MARGIN` counts as that, with its sign.
    """
    text, image = logs.get("rewards/margins"), logs.get("rewards/image_margins")
    if text is None or image is None:
        return {}
    sign = -1.0 if text < 0 else 1.0
    return {"rewards/modality_balance": image / (sign * max(abs(text), SMALLEST_MARGIN))}


def summary_line(logs: Mapping[str, float], *, step: int, steps: int) -> str:
    """One line of metrics for people.

    Args:
        logs: The line of ``metrics.jsonl``.
        step: Optimizer steps done.
        steps: All optimizer steps.
    """
    parts = [f"step {step}/{steps}"]
    if "stage" in logs:
        parts.append(f"stage {logs['stage']:.3g}")
    if "loss" in logs:
        parts.append(f"loss {logs['loss']:.4f}")
    for name, prefix in (("text", ""), ("image", "image_")):
        if f"rewards/{prefix}margins" in logs:
            margin, accuracy = logs[f"rewards/{prefix}margins"], logs[f"rewards/{prefix}accuracies"]
            parts.append(f"{name} margin {margin:+.3f} ({accuracy:.0%} right)")
    if "rewards/modality_balance" in logs:
        parts.append(f"image/text {logs['rewards/modality_balance']:.2f}")
    for key, name in (("grad_norm", "grad"), ("learning_rate", "lr")):
        if key in logs:
            parts.append(f"{name} {logs[key]:.3g}")
    return "  ".join(parts)


class MetricsFile(TrainerCallback):
    """Writes every line that is logged to ``metrics.jsonl``."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the file with what was logged before the checkpoint that is resumed, if one is."""
        if state.is_world_process_zero:
            write_jsonl(_metrics_path(args), state.log_history)

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Append the line."""
        if state.is_world_process_zero and state.log_history:
            append_jsonl(_metrics_path(args), [json.loads(json.dumps(state.log_history[-1]))])


class ReadableProgress(ProgressCallback):
    """The parent's bar, with metrics as a line for people in place of a dictionary."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Write the line above the bar."""
        if state.is_world_process_zero and self.training_bar is not None and logs and "loss" in logs:
            self.training_bar.write(summary_line(logs, step=state.global_step, steps=state.max_steps))


def _metrics_path(args: TrainingArguments) -> Path:
    return Path(str(args.output_dir)) / METRICS_FILE
