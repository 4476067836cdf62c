"""The tables of a report: metrics with intervals, each run's difference to the first beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mfpo.evaluation.comparison import Comparison, compare_results
from mfpo.evaluation.comparison_tables import stars
from mfpo.evaluation.statistics import Difference, Estimate, Metric
from mfpo.report.runs import Run

HEADLINE: dict[str, tuple[str, ...]] = {
    "scenes": ("CHAIR_s", "CHAIR_i", "Cover", "F1", "Cog", "colour", "position", "yes_no", "words"),
    "grounding": ("swap_accuracy", "removal_accuracy"),
    "distortion": (),
}
"""Metrics of the first table; all metrics of a benchmark that is not named here."""

SIGNIFICANT = 0.05


@dataclass(frozen=True, slots=True)
class Cell:
    """A metric of a run.

    Attributes:
        value: The value.
        interval: Its 95% interval.
        change: Difference to the first run with marks of significance; empty for the first run.
        title: The difference's interval and p-value.
        verdict: ``better`` or ``worse`` where the difference is significant and the metric has a direction.
    """

    value: str
    interval: str = ""
    change: str = ""
    title: str = ""
    verdict: str = ""


@dataclass(frozen=True, slots=True)
class MetricRow:
    """A metric of all runs.

    Attributes:
        name: Its name.
        metric: Its definition.
        cells: One per run.
    """

    name: str
    metric: Metric
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class ResultTable:
    """Metrics of one benchmark.

    Attributes:
        benchmark: Its name.
        rows: Its metrics.
        num_items: Items that are compared.
        num_left_out: Items that only some of the runs have.
        baseline: The run that the others are compared with.
    """

    benchmark: str
    rows: tuple[MetricRow, ...]
    num_items: int
    num_left_out: int
    baseline: str


def compare_all(runs: Sequence[Run]) -> list[Comparison]:
    """A comparison for each benchmark, of the runs that have it; order of first appearance."""
    names = dict.fromkeys(name for one in runs for name in one.scores)
    # Tables that lead come first, in their order.
    ordered = sorted(names, key=lambda name: list(HEADLINE).index(name) if name in HEADLINE else -1)
    return [
        compare_results([(one.label, one.scores[name]) for one in runs if name in one.scores])
        for name in ordered
    ]


def result_tables(
    comparisons: Sequence[Comparison], runs: Sequence[Run], *, headline: bool
) -> list[ResultTable]:
    """A table for each benchmark.

    Args:
        comparisons: What [`compare_all`] gave for these runs.
        runs: The runs of the report, a column each.
        headline: Only the metrics of [`HEADLINE`].
    """
    tables = []
    for comparison in comparisons:
        wanted = (
            HEADLINE.get(comparison.benchmark, tuple(comparison.metrics)) if headline else comparison.metrics
        )
        rows = tuple(
            MetricRow(name, comparison.metrics[name], _cells(comparison, name, runs))
            for name in wanted
            if name in comparison.metrics
        )
        if rows:
            tables.append(
                ResultTable(
                    comparison.benchmark,
                    rows,
                    comparison.num_items,
                    comparison.num_left_out,
                    comparison.runs[0],
                )
            )
    return tables


def _cells(comparison: Comparison, name: str, runs: Sequence[Run]) -> tuple[Cell, ...]:
    """A cell per run of the report, empty for those that the comparison lacks."""
    cells = {}
    for position, label in enumerate(comparison.runs):
        difference = comparison.differences[position - 1][name] if position else None
        cells[label] = _cell(comparison.estimates[position][name], difference, comparison.metrics[name])
    return tuple(cells.get(one.label, Cell("–")) for one in runs)


def _cell(estimate: Estimate, difference: Difference | None, metric: Metric) -> Cell:
    if math.isnan(estimate.value):
        return Cell("–")
    cell = Cell(_number(estimate.value), f"{_number(estimate.low)} to {_number(estimate.high)}")
    if difference is None or math.isnan(difference.value):
        return cell
    verdict = ""
    if difference.p_value < SIGNIFICANT and metric.better:
        verdict = "better" if (difference.value > 0) == (metric.better == "higher") else "worse"
    interval = f"95% interval {_signed(difference.low)} to {_signed(difference.high)}"
    return Cell(
        cell.value,
        cell.interval,
        change=f"{_signed(difference.value)}{stars(difference.p_value)}",
        title=f"difference {_signed(difference.value)}, {interval}, p = {difference.p_value:.2g}",
        verdict=verdict,
    )


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.1f}".replace("-", "−")


def _signed(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:+.1f}".replace("-", "−")
