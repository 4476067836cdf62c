"""The metrics of a benchmark or probe that are shown where there is no room for all of them."""

from __future__ import annotations

from collections.abc import Sequence

HEADLINE: dict[str, tuple[str, ...]] = {
    "amber": ("CHAIR", "Cover", "Hal", "Cog", "Accuracy", "Precision", "Recall", "F1"),
    "mmhal": ("score", "hallucination_rate"),
    "pope": ("Accuracy", "Precision", "Recall", "F1", "Yes_ratio"),
    "scenes": ("CHAIR_s", "CHAIR_i", "Cover", "F1", "Cog", "colour", "position", "yes_no", "words"),
    "grounding": ("swap_accuracy", "removal_accuracy"),
    "distortion": ("clean", "region@500", "global@500", "black"),
}
"""Most important metrics; all metrics of a benchmark that is not named here are alike."""


def headline(benchmark: str, metrics: Sequence[str], most: int | None = None) -> list[str]:
    """The metrics to show first.

    Args:
        benchmark: Name of the benchmark or probe, or of a score file that begins with it, such as
            ``pope_random``.
        metrics: Those that there are.
        most: How many at most, of a benchmark without headline metrics; all when None.
    """
    known = HEADLINE.get(benchmark) or HEADLINE.get(benchmark.partition("_")[0], ())
    found = [name for name in known if name in metrics]
    return found or list(metrics)[:most]
