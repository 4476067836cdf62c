"""Answers first, scores second, statistics always (paper 4)."""
