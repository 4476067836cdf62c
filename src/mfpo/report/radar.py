"""MMHal-Bench by question type: a polygon per run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from markupsafe import Markup

from mfpo.evaluation.benchmarks.mmhal import TYPES
from mfpo.evaluation.results import ScoreResult
from mfpo.report.figures import MARKERS, SERIES, new_figure, short, style, to_svg

BEST_RATING = 6
LEAST_TYPES = 3
"""A polygon needs so many corners."""


def type_scores(results: Sequence[tuple[str, ScoreResult]]) -> dict[str, dict[str, float]]:
    """Mean rating of each question type that every run has answers to, by run.

    Args:
        results: Name and MMHal-Bench scores of each run.

    Returns:
        For each run the types in the benchmark's order; empty where fewer than three types are shared.
    """
    scores = {
        label: {kind: result.metrics.get(f"score_{kind}", math.nan) for kind in TYPES}
        for label, result in results
    }
    shared = [kind for kind in TYPES if not any(math.isnan(found[kind]) for found in scores.values())]
    if len(shared) < LEAST_TYPES:
        return {}
    return {label: {kind: found[kind] for kind in shared} for label, found in scores.items()}


def radar(scores: Mapping[str, Mapping[str, float]], runs: Sequence[str]) -> Markup:
    """Ratings as the corners of polygons, from 0 in the middle to 6.

    Args:
        scores: Of [`type_scores`].
        runs: All runs of the report in their order, which gives them their colours.
    """
    kinds = list(next(iter(scores.values())))
    angles = np.linspace(0, 2 * math.pi, len(kinds), endpoint=False)
    with style():
        figure = new_figure(7.2, 5.2)
        axes = figure.add_subplot(projection="polar")
        axes.set_theta_zero_location("N")  # type: ignore[attr-defined]
        axes.set_theta_direction(-1)  # type: ignore[attr-defined]
        axes.set_ylim(0, BEST_RATING)
        axes.set_yticks([2, 4, 6], ["2", "4", "6"])
        # Between the first two corners, where no line runs along it.
        axes.set_rlabel_position(math.degrees(angles[1]) / 2)  # type: ignore[attr-defined]
        axes.set_xticks(angles, kinds)
        axes.tick_params(axis="x", pad=9, labelsize=10.5)
        axes.spines["polar"].set_visible(False)
        for label, found in scores.items():
            place = runs.index(label)
            colour, marker = SERIES[place % len(SERIES)], MARKERS[place % len(MARKERS)]
            around = [*found.values(), next(iter(found.values()))]
            ends = [*angles, angles[0]]
            axes.plot(ends, around, color=colour, marker=marker, markersize=4.5, label=short(label))
            axes.fill(ends, around, color=colour, alpha=0.06, lw=0)
        figure.legend(loc="outside right upper")
        return to_svg(figure, "Mean rating of each question type from 0 to 6, a polygon per run")
