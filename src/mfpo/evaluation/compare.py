"""``mfpo compare``: metrics of several runs side by side, each with its difference to the first."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table as RichTable

from mfpo.data.files import write_atomic
from mfpo.errors import UserError, nearest
from mfpo.evaluation.results import ScoreResult
from mfpo.evaluation.statistics import Difference, Estimate, Metric, differences, estimates, tabulate

if TYPE_CHECKING:
    from mfpo.evaluation.config import CompareConfig

STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
_ARROWS = {"lower": "↓", "higher": "↑", "": ""}


@dataclass(frozen=True, slots=True)
class Comparison:
    """One benchmark or probe, several runs, on the items that all of them have.

    Attributes:
        benchmark: Its name.
        metrics: The metrics that all runs have, in the order of the first.
        runs: Names of the runs.
        estimates: For each run, each metric with its 95% interval.
        differences: For each run but the first, each metric's difference to the first.
        num_items: Items that are compared.
        num_left_out: Items that some run has and another has not.
    """

    benchmark: str
    metrics: dict[str, Metric]
    runs: list[str]
    estimates: list[dict[str, Estimate]]
    differences: list[dict[str, Difference]]
    num_items: int
    num_left_out: int

    def rows(self) -> list[list[str]]:
        """The table as text, a row per metric: its name, then for each run value, interval and difference."""
        rows = []
        for name, metric in self.metrics.items():
            cells = [f"{name} {_ARROWS[metric.better]}".strip()]
            for position, found in enumerate(self.estimates):
                cell = _estimate_text(found[name], metric)
                if position:
                    cell += f"\n{_difference_text(self.differences[position - 1][name], metric)}"
                cells.append(cell)
            rows.append(cells)
        return rows

    def notes(self) -> list[str]:
        """What the numbers mean."""
        notes = [f"{self.num_items} items; 95% bootstrap intervals in brackets."]
        if self.num_left_out:
            notes.append(f"{self.num_left_out} items that not all runs have are left out.")
        if self.differences:
            notes.append(
                f"Second line: difference to {self.runs[0]} on the same items; * p < 0.05, ** p < 0.01, "
                "*** p < 0.001 (paired permutation test, not corrected for the number of comparisons)."
            )
        return notes

    def to_markdown(self) -> str:
        """The comparison as a Markdown section."""
        header = ["", *self.runs]
        lines = [f"### {self.benchmark}", "", _markdown_row(header), _markdown_row(["---"] * len(header))]
        lines += [_markdown_row(row) for row in self.rows()]
        return "\n".join([*lines, "", " ".join(self.notes()), ""])


def run(config: CompareConfig) -> None:
    """Compare runs and show the tables.

    Raises:
        UserError: A run has no scores, or the runs share no benchmark, item or metric.
    """
    comparisons = compare_runs(config.runs, config.benchmarks or None, config.metrics or None)
    for comparison in comparisons:
        _print(comparison)
    if config.output_file:
        write_atomic(config.output_file, "\n".join(comparison.to_markdown() for comparison in comparisons))


def compare_runs(
    runs: Sequence[str], benchmarks: Sequence[str] | None = None, metrics: Sequence[str] | None = None
) -> list[Comparison]:
    """Compare score files or run folders, a [`Comparison`] for each benchmark they share.

    Args:
        runs: Run folders (with ``scores/*.json``) or score files.
        benchmarks: Keep to these; all that the runs share when None.
        metrics: Keep to these; all when None.
    """
    if not runs:
        raise UserError("nothing to compare", where="mfpo compare", fix="name run folders or score files")
    scores = [_load(Path(run)) for run in runs]
    shared = [name for name in scores[0] if all(name in found for found in scores)]
    for name in benchmarks or ():
        if name not in shared:
            raise UserError(
                "not every run has scores of it", where=f"--benchmarks {name}", fix=nearest(name, shared)
            )
    chosen = [name for name in shared if benchmarks is None or name in benchmarks]
    if not chosen:
        have = "; ".join(f"{run}: {', '.join(found)}" for run, found in zip(runs, scores, strict=True))
        raise UserError(f"the runs share no benchmark ({have})", where="mfpo compare")
    names = _run_names(runs)
    return [
        compare_results(list(zip(names, (s[name] for s in scores), strict=True)), metrics) for name in chosen
    ]


def compare_results(
    results: Sequence[tuple[str, ScoreResult]], metrics: Sequence[str] | None = None
) -> Comparison:
    """Compare scores of the same benchmark on the items that all of them have.

    Args:
        results: Name and scores of each run, the one to compare with first.
        metrics: Keep to these; all that the runs share when None.

    Raises:
        UserError: The runs share no item, or have no metric of a wanted name.
    """
    first = results[0][1]
    definitions = {
        name: metric
        for name, metric in first.definitions.items()
        if all(name in result.definitions for _, result in results)
    }
    for name in metrics or ():
        if name not in definitions:
            raise UserError("no such metric", where=f"--metrics {name}", fix=nearest(name, definitions))
    definitions = {name: metric for name, metric in definitions.items() if metrics is None or name in metrics}
    ids = [{str(item["id"]) for item in result.items} for _, result in results]
    common = set.intersection(*ids)
    if not common:
        raise UserError(
            "the runs have no item in common", where=first.name, fix="score the same split for all of them"
        )
    tables = [
        tabulate([item for item in result.items if str(item["id"]) in common], definitions)
        for _, result in results
    ]
    return Comparison(
        benchmark=first.name,
        metrics=definitions,
        runs=[name for name, _ in results],
        estimates=[estimates(table) for table in tables],
        differences=[differences(tables[0], table) for table in tables[1:]],
        num_items=len(common),
        num_left_out=len(set.union(*ids) - common),
    )


def show(results: Sequence[tuple[str, ScoreResult]]) -> None:
    """Print scores of one benchmark as a table."""
    _print(compare_results(results))


def stars(p_value: float) -> str:
    """Conventional marks of significance: three for p < 0.001, two for p < 0.01, one for p < 0.05."""
    return next((mark for bound, mark in STARS if p_value < bound), "")


def _load(path: Path) -> dict[str, ScoreResult]:
    """Scores by benchmark of a score file or a run folder."""
    if path.is_file():
        result = ScoreResult.load(path)
        return {result.name: result}
    files = sorted((path / "scores").glob("*.json"))
    if not files:
        raise UserError(
            "no scores" if path.is_dir() else "does not exist",
            where=str(path),
            fix="name a run folder with scores/*.json, which `mfpo eval` writes, or a score file",
        )
    return {result.name: result for result in map(ScoreResult.load, files)}


def _run_names(runs: Sequence[str]) -> list[str]:
    """The last part of each run's path, or the whole path where that is not unique."""
    short = []
    for path in (Path(run).resolve() for run in runs):
        in_run = path.is_file() and path.parent.name == "scores"
        short.append(path.parents[1].name if in_run else path.name.removesuffix(".json"))
    return [name if short.count(name) == 1 else run for name, run in zip(short, runs, strict=True)]


def _print(comparison: Comparison) -> None:
    console = Console(highlight=False)
    rows = comparison.rows()
    widths = [
        max(len(line) for cell in cells for line in cell.splitlines()) for cells in zip(*rows, strict=True)
    ]
    for columns in _columns_that_fit(widths, console.width):
        table = RichTable(title=comparison.benchmark, title_justify="left", show_lines=len(widths) > 2)
        table.add_column("", no_wrap=True)
        for column in columns:
            name = comparison.runs[column - 1]
            table.add_column(name, justify="right", overflow="fold", min_width=widths[column])
        for row in rows:
            table.add_row(*(row[column].replace("[", r"\[") for column in (0, *columns)))
        console.print(table)
    for note in comparison.notes():
        console.print(note.replace("[", r"\["), style="dim")


def _columns_that_fit(widths: Sequence[int], room: int) -> list[list[int]]:
    """Columns 1, 2, ... in groups, each of which fits beside column 0; a column too wide stands alone."""
    groups: list[list[int]] = [[]]
    used = widths[0] + 4
    for column, width in enumerate(widths[1:], start=1):
        if groups[-1] and used + width + 3 > room:
            groups.append([])
            used = widths[0] + 4
        groups[-1].append(column)
        used += width + 3
    return groups


def _estimate_text(estimate: Estimate, metric: Metric) -> str:
    if math.isnan(estimate.value):
        return "–"
    places = _places(metric)
    return f"{estimate.value:.{places}f} [{estimate.low:.{places}f}, {estimate.high:.{places}f}]"


def _difference_text(difference: Difference, metric: Metric) -> str:
    if math.isnan(difference.value):
        return "–"
    places = _places(metric)
    interval = f"[{difference.low:+.{places}f}, {difference.high:+.{places}f}]"
    return f"{difference.value:+.{places}f} {interval}{stars(difference.p_value)}"


def _places(metric: Metric) -> int:
    """Decimals: one for percentages, two for shares and means."""
    return 1 if metric.scale == 100 else 2


def _markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace(chr(10), '<br>').replace('|', chr(92) + '|') for cell in cells)} |"
