"""One table of methods and metrics, in the terminal and as Markdown."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.table import Table

from mfpo.evaluation.comparison import Comparison, compare_runs
from mfpo.evaluation.comparison_tables import stars
from mfpo.evaluation.headline import HEADLINE

METRICS = {"scenes": HEADLINE["scenes"], "grounding": ("swap_accuracy",)}
_ARROWS = {"lower": "↓", "higher": "↑", "": ""}


@dataclass(frozen=True, slots=True)
class MethodTable:
    """Methods as rows, metrics as columns.

    Attributes:
        columns: Headings, the first one empty.
        cells: A row per method: its name, then a cell per metric.
        notes: What the numbers are.
    """

    columns: list[str]
    cells: list[list[str]]
    notes: list[str]

    def to_markdown(self) -> str:
        """The table for a README."""
        lines = [
            "| " + " | ".join(row) + " |" for row in (self.columns, ["---"] * len(self.columns), *self.cells)
        ]
        return "\n".join([*lines, "", " ".join(self.notes), ""])

    def to_rich(self, title: str, *, width: int = 80) -> Table:
        """The table for the terminal, metrics as rows; with intervals if the terminal is wide enough."""
        wide = width >= 15 * len(self.cells) + 18
        table = Table(
            title=title,
            caption=" ".join(self.notes),
            caption_justify="left",
            box=box.SIMPLE_HEAD,
            pad_edge=False,
        )
        table.add_column("", no_wrap=True)
        for row in self.cells:
            # Long names of methods may take two lines, numbers never do.
            name = row[0].replace("-", " ").replace("+", " +")
            table.add_column(name, justify="right", min_width=12 if wide else 7)
        for index, column in enumerate(self.columns[1:], start=1):
            cells = (row[index] if wide else row[index].split("<br>")[0] for row in self.cells)
            table.add_row(column, *(cell.replace("<br>", "\n") for cell in cells))
        return table


def method_table(
    runs: Mapping[str, Sequence[Path]], metrics: Mapping[str, Sequence[str]] = METRICS
) -> MethodTable:
    """Compare methods with the first one.

    Args:
        runs: Run folders of each method, one per training seed; the first method is what the others are
            compared with.
        metrics: Metrics of each benchmark or probe.

    Returns:
        With one seed: values with 95% intervals, marked where the paired difference to the first method is
        significant. With several: means over seeds with the range of the seeds. A dash where a metric has no
        value, as CHAIR_i of answers that name no object.
    """
    names = list(runs)
    num_seeds = max(len(folders) for folders in runs.values())
    per_seed = [
        sorted(
            compare_runs(
                [str(folders[min(seed, len(folders) - 1)]) for folders in runs.values()], list(metrics)
            ),
            key=lambda one: list(metrics).index(one.benchmark),
        )
        for seed in range(num_seeds)
    ]
    columns = [""]
    cells = [[name] for name in names]
    for position, comparison in enumerate(per_seed[0]):
        for metric in metrics[comparison.benchmark]:
            columns.append(f"{metric} {_ARROWS[comparison.metrics[metric].better]}".strip())
            for row in range(len(names)):
                cells[row].append(_cell([found[position] for found in per_seed], metric, row))
    sizes = ", ".join(f"{one.benchmark}: {one.num_items} items" for one in per_seed[0])
    notes = [f"{sizes}."]
    if num_seeds == 1:
        notes.append(
            f"Brackets: 95% bootstrap interval. Stars: paired permutation test against {names[0]}, "
            "* p < 0.05, ** p < 0.01, *** p < 0.001."
        )
    else:
        notes.append(f"Mean over {num_seeds} training seeds, in brackets the lowest and highest of them.")
    return MethodTable(columns, cells, notes)


def _cell(comparisons: Sequence[Comparison], metric: str, row: int) -> str:
    values = [one.estimates[row][metric].value for one in comparisons]
    if any(map(math.isnan, values)):
        return "–"
    if len(comparisons) > 1:
        return f"{statistics.mean(values):.1f}<br>[{min(values):.1f}, {max(values):.1f}]"
    estimate = comparisons[0].estimates[row][metric]
    marks = stars(comparisons[0].differences[row - 1][metric].p_value) if row else ""
    return f"{estimate.value:.1f}{marks}<br>[{estimate.low:.1f}, {estimate.high:.1f}]"
