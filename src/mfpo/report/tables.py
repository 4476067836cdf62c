"""The tables of a report: metrics with intervals, each run's difference to the first beside them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mfpo.evaluation.comparison import Comparison, compare_results
from mfpo.evaluation.comparison_tables import decimals, power_note, stars
from mfpo.evaluation.headline import headline
from mfpo.evaluation.results import ScoreResult
from mfpo.evaluation.statistics import Difference, Estimate, Metric
from mfpo.report.runs import Run
from mfpo.report.scoring import Scoring, scoring

ORDER = (
    *("amber", "chair", "objhal", "mmhal", "llava-bench", "pope", "scenes"),
    *("grounding", "attention", "distortion"),
)
"""Order of benchmarks and probes; those that are not named here come first."""

SIGNIFICANT = 0.05
MOST_DECIMALS = 5


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
        rows: Its most important metrics.
        more: The others.
        num_items: Items that are compared.
        num_left_out: Items that only some of the runs have.
        baseline: The run that the others are compared with.
        power: Which differences a set of this size would not show.
        apart: Runs that are not shown, because they share no item with the baseline.
        scoring: How the scores were made.
    """

    benchmark: str
    rows: tuple[MetricRow, ...]
    more: tuple[MetricRow, ...]
    num_items: int
    num_left_out: int
    baseline: str
    power: str
    apart: tuple[str, ...]
    scoring: Scoring


def compare_all(runs: Sequence[Run]) -> list[Comparison]:
    """A comparison for each benchmark, of the runs that have it; in the order of [`ORDER`].

    A run that shares no item with those before it is left out of a comparison.
    """
    names = dict.fromkeys(name for one in runs for name in one.scores)
    ordered = sorted(names, key=lambda name: ORDER.index(name) if name in ORDER else -1)
    return [replace(compare_results(_comparable(runs, name)), benchmark=name) for name in ordered]


def result_tables(comparisons: Sequence[Comparison], runs: Sequence[Run]) -> list[ResultTable]:
    """A table for each benchmark.

    Args:
        comparisons: What [`compare_all`] gave for these runs.
        runs: The runs of the report, a column each.
    """
    tables = []
    for comparison in comparisons:
        name = comparison.benchmark
        results = [(one.label, one.scores[name]) for one in runs if name in one.scores]
        leading = headline(results[0][1].name, list(comparison.metrics))
        others = [metric for metric in comparison.metrics if metric not in leading]
        printed = _printed_rows(comparison, dict(results), runs)
        tables.append(
            ResultTable(
                benchmark=name,
                rows=_metric_rows(comparison, leading, runs) + printed,
                more=_metric_rows(comparison, others, runs),
                num_items=comparison.num_items,
                num_left_out=comparison.num_left_out,
                baseline=comparison.runs[0],
                power=" ".join(power_note(comparison, leading)),
                apart=tuple(label for label, _ in results if label not in comparison.runs),
                scoring=scoring(results),
            )
        )
    return tables


def _comparable(runs: Sequence[Run], name: str) -> list[tuple[str, ScoreResult]]:
    """The runs that have a benchmark, without those that share no item with the ones before them."""
    kept: list[tuple[str, ScoreResult]] = []
    common: set[str] = set()
    for one in runs:
        if name not in one.scores or (kept and one.scores[name].name != kept[0][1].name):
            continue
        ids = {str(item["id"]) for item in one.scores[name].items}
        if not kept or common & ids:
            common = common & ids if kept else ids
            kept.append((one.label, one.scores[name]))
    return kept


def _metric_rows(comparison: Comparison, names: Sequence[str], runs: Sequence[Run]) -> tuple[MetricRow, ...]:
    return tuple(MetricRow(name, comparison.metrics[name], _cells(comparison, name, runs)) for name in names)


def _printed_rows(
    comparison: Comparison, results: Mapping[str, ScoreResult], runs: Sequence[Run]
) -> tuple[MetricRow, ...]:
    """Metrics that are no ratio of counts, such as POPE's mean F1: of all items, without intervals."""
    unit = next(iter(comparison.metrics.values()), Metric({}, {}))
    metric = replace(unit, better="", text="as the official script prints it, of all items of the run")
    names = dict.fromkeys(name for result in results.values() for name in result.metrics)
    rows = []
    for name in names:
        if any(name in result.definitions for result in results.values()):
            continue
        values = (
            results[one.label].metrics.get(name, math.nan) if one.label in results else math.nan
            for one in runs
        )
        rows.append(MetricRow(name, metric, tuple(Cell(_number(value, decimals(unit))) for value in values)))
    return tuple(rows)


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
    places = decimals(metric)
    interval = f"{_number(estimate.low, places)} to {_number(estimate.high, places)}"
    cell = Cell(_number(estimate.value, places), interval)
    if difference is None or math.isnan(difference.value):
        return cell
    verdict = ""
    if difference.p_value < SIGNIFICANT and metric.better:
        verdict = "better" if (difference.value > 0) == (metric.better == "higher") else "worse"
    change = _number(difference.value, places, sign="+")
    ends = [_number(end, places, sign="+") for end in (difference.low, difference.high)]
    return replace(
        cell,
        change=f"{change}{stars(difference.p_value)}",
        title=f"difference {change}, 95% interval {' to '.join(ends)}, p = {difference.p_value:.2g}",
        verdict=verdict,
    )


def _number(value: float, places: int, sign: str = "") -> str:
    """A number with so many decimals, with more of them where a difference would look like none."""
    if math.isnan(value):
        return "–"
    while sign and value and places < MOST_DECIMALS and abs(value) < 0.5 * 10**-places:
        places += 1
    return f"{value:{sign}.{places}f}".replace("-", "−")
