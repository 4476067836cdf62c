"""``mfpo compare``: metrics of several runs side by side, each with its difference to the first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from mfpo.data.files import write_atomic
from mfpo.evaluation.comparison import Comparison, compare_results, compare_runs
from mfpo.evaluation.comparison_tables import check_format, print_comparison, render, shown_at_once
from mfpo.evaluation.results import ScoreResult

if TYPE_CHECKING:
    from mfpo.evaluation.config import CompareConfig


def run(config: CompareConfig) -> None:
    """Compare runs, show the tables, and write them in the format that the file's ending names.

    Raises:
        UserError: A run has no scores, the runs share no benchmark, item or metric, or the format is unknown.
    """
    if config.output_file:
        check_format(config.output_file)
    comparisons = compare_runs(config.runs, config.benchmarks or None, config.metrics or None)
    for comparison in comparisons:
        names = list(config.metrics) or shown_at_once(comparison)
        cure = "name them with --metrics, or write all to a file with --output_file (.md, .html, .csv, .tex)"
        _print(comparison, names, cure)
    if config.output_file:
        write_atomic(config.output_file, render(comparisons, config.output_file))


def show(results: Sequence[tuple[str, ScoreResult]]) -> None:
    """Print scores of one benchmark as a table: all its metrics if they are few, else the headline ones."""
    comparison = compare_results(results)
    _print(comparison, shown_at_once(comparison), "they stand in the score file")


def _print(comparison: Comparison, names: Sequence[str], where_the_rest: str) -> None:
    print_comparison(comparison, names)
    if hidden := [name for name in comparison.metrics if name not in names]:
        print(f"{len(hidden)} more metrics of {comparison.benchmark}, such as {hidden[0]}: {where_the_rest}")
