"""An experiment's results as text: in the terminal, and as Markdown, LaTeX and HTML."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from html import escape
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mfpo.errors import counted
from mfpo.evaluation.comparison_tables import escape_latex, stars
from mfpo.evaluation.statistics import Difference, Estimate
from mfpo.experiments.results import Related, Results
from mfpo.experiments.verdicts import Column, Verdict
from mfpo.report.page import asset
from mfpo.scenes.config import DifficultySettings

_SEEDS = (("sft_seeds", "SFT seed"), ("seeds", "training seed"))
_BESIDE = 3
"""Characters of space beside a column."""
_ARROWS = {"lower": "↓", "higher": "↑", "": ""}
_STYLE = (
    "body{font:15px/1.5 var(--sans);margin:2rem auto;max-width:75rem;padding:0 1rem;background:var(--paper);"
    "color:var(--ink)}table{border-collapse:collapse;margin:1rem 0}"
    "th,td{padding:.35rem .7rem;text-align:right;border-bottom:1px solid var(--rule);"
    "font-variant-numeric:tabular-nums;vertical-align:top}th:first-child,td:first-child{text-align:left}"
    "small{color:var(--muted);white-space:nowrap}.paper{background:var(--raised)}p{max-width:50rem}"
    ".confirmed{color:var(--good)}.contradicted{color:var(--bad)}svg{width:100%;height:auto}"
    ".scroll{overflow-x:auto}"
)


@dataclass(frozen=True)
class Cell:
    """One cell of the table.

    Attributes:
        text: What it says first.
        detail: The interval; empty where there is none.
    """

    text: str
    detail: str = ""


@dataclass(frozen=True)
class Grid:
    """A table of text.

    Attributes:
        header: Headings.
        rows: Cells.
        first_paper: Column from which the numbers are the paper's.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    first_paper: int


def main_grid(results: Results) -> Grid:
    """Arms as rows; our metrics, then the paper's numbers."""
    experiment = results.experiment
    paper = experiment.paper
    named = [column.name for column in results.columns]
    header = [""]
    for column in results.columns:
        of = f"{column.measure} " if named.count(column.name) > 1 else ""
        header.append(f"{of}{column.name} {_ARROWS[column.metric.better]}".strip())
    first_paper = len(header)
    header += [f"paper: {name}" for name in paper.columns]
    rows = []
    for arm in experiment.arms:
        ours = [_cell(results, arm.name, column) for column in results.columns]
        rows.append((Cell(arm.name), *ours, *_paper_cells(paper.rows.get(arm.name), len(paper.columns))))
    names = {arm.name for arm in experiment.arms}
    for name, numbers in paper.rows.items():
        if name not in names:
            empty = [Cell("") for _ in results.columns]
            rows.append((Cell(name), *empty, *_paper_cells(numbers, len(paper.columns))))
    return Grid(tuple(header), tuple(rows), first_paper)


def claims_grid(verdicts: Sequence[Verdict]) -> Grid:
    """Claims as rows: what is compared, the effect, the verdict."""
    rows = tuple(
        (
            Cell(one.claim.text),
            Cell(f"{one.claim.better} − {one.than}"),
            Cell(f"{one.column.name} {_ARROWS[one.column.metric.better]}"),
            Cell(_signed(one.effect, _places(one.effect, one.column))),
            Cell(one.word),
        )
        for one in verdicts
    )
    return Grid(("claim", "compared", "metric", "effect [95% interval]", "verdict"), rows, 5)


def relations_grid(related: Sequence[Related]) -> Grid:
    """Relations as rows: what was asked, and the rank correlation over the arms."""
    rows = tuple(
        (
            Cell(one.relation.text),
            Cell(f"{one.relation.x}, {one.relation.y}"),
            Cell(str(len(one.arms))),
            Cell(_signed(one.correlation, 2)),
        )
        for one in related
    )
    return Grid(("question", "metrics", "arms", "rank correlation [95% interval]"), rows, 4)


def remarks(results: Results, made: Mapping[str, Any]) -> list[str]:
    """What the numbers are, line by line; the last line says when and how they were made."""
    items = ", ".join(f"{measure} {count}" for measure, count in results.num_groups.items())
    sft, training = (counted(made[name], what) for name, what in _SEEDS)
    experiment = results.experiment
    first = experiment.arms[0].plain_name + (" of the same world" if len(experiment.worlds) > 1 else "")
    arms = dict.fromkeys(f"{arm.plain_name}: {arm.text}." for arm in experiment.arms if arm.text)
    return [
        f"Means over {sft} x {training}; items: {items}. "
        f"Brackets: 95% intervals over {_covered(made)}. "
        f"Stars: paired difference to {first}, * p < 0.05, ** p < 0.01, *** p < 0.001, not corrected for the "
        "number of comparisons.",
        *arms,
        *worlds(experiment.worlds),
        *experiment.notes,
        *results.notes,
        f"Made by `{made['command']}` in {made['minutes']:.1f} minutes on {made['date']}; {made['machine']}; "
        f"mfpo {made['version']}, torch {made['torch']}. All its steps, those of earlier runs included and "
        f"scene models left out, took {counted(math.ceil(made['minutes_of_steps']), 'minute')}, each on one "
        "core or GPU.",
    ]


def _covered(made: Mapping[str, Any]) -> str:
    """What the intervals take into account."""
    if made["sft_seeds"] > 1:
        return "SFT seeds, training seeds and items (Student's t)"
    if made["seeds"] > 1:
        return "training seeds of one model and items (Student's t)"
    return "items only: one training an arm does not tell what chance does in training"


def worlds(difficulties: Mapping[str, DifficultySettings]) -> list[str]:
    """What each world has in place of the defaults, a line each; none where there is only one."""
    if len(difficulties) == 1:
        return []
    default = asdict(DifficultySettings())
    lines = []
    for world, difficulty in difficulties.items():
        changed = (f"{name} {value}" for name, value in asdict(difficulty).items() if value != default[name])
        lines.append(f"World {world}: {', '.join(changed) or 'nothing changed'}.")
    return lines


def to_markdown(results: Results, made: Mapping[str, Any]) -> str:
    """A section for a page."""
    parts = [f"## {results.experiment.title}", _markdown(main_grid(results))]
    if results.verdicts:
        parts.append(_markdown(claims_grid(results.verdicts)))
    if results.related:
        parts.append(_markdown(relations_grid(results.related)))
    parts += remarks(results, made)
    return "\n\n".join(parts) + "\n"


def to_latex(results: Results, made: Mapping[str, Any]) -> str:
    r"""A ``table`` with ``booktabs`` rules, and one of the claims; needs ``\usepackage{booktabs}``."""
    tables = [_latex_table(main_grid(results), results.experiment.title)]
    if results.verdicts:
        tables.append(_latex_table(claims_grid(results.verdicts), f"{results.experiment.title}: claims"))
    if results.related:
        title = f"{results.experiment.title}: relations"
        tables.append(_latex_table(relations_grid(results.related), title))
    comments = [f"% {' '.join(line.split())}" for line in remarks(results, made)]
    return "\n".join([*tables, *comments, ""])


def to_html(results: Results, made: Mapping[str, Any], figure: str = "") -> str:
    """A page that needs nothing beside it; every text is escaped.

    Args:
        results: The results.
        made: When and how.
        figure: SVG element of the figure.
    """
    title = escape(results.experiment.title)
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        # The colours of the figure are those of reports.
        f"<style>{asset('tokens.css')}{_STYLE}</style>",
        f"<h1>{title}</h1>",
        _html(main_grid(results)),
        figure,
    ]
    if results.verdicts:
        parts += ["<h2>Claims</h2>", _html(claims_grid(results.verdicts))]
    if results.related:
        parts += ["<h2>Relations over the arms</h2>", _html(relations_grid(results.related))]
    parts += [f"<p>{escape(line)}</p>" for line in remarks(results, made)]
    return "\n".join([*parts, "</html>", ""])


def print_results(results: Results, made: Mapping[str, Any], console: Console) -> None:
    """Show table, claims and remarks in the terminal; intervals and the paper's numbers where they fit in."""
    grids, details = _fitting(main_grid(results), console.width)
    for number, grid in enumerate(grids):
        console.print(_rich(grid, "" if number else results.experiment.title, details=details))
    if results.verdicts:
        claims = _without_repeats(claims_grid(results.verdicts))
        console.print(_rich(claims, "claims of the paper", details=False, prose=True))
    if results.related:
        console.print(_rich(relations_grid(results.related), "over the arms", details=False, prose=True))
    for line in remarks(results, made):
        console.print(line, style="dim", markup=False, highlight=False)


def _fitting(grid: Grid, width: int) -> tuple[list[Grid], bool]:
    """The table as it fits into a terminal, and whether with intervals.

    First the intervals are left out, then the paper's numbers; what is still too wide is cut into several
    tables, each with the names of the arms.
    """
    for details in (True, False):
        if sum(_widths(grid, details)) < width:
            return [grid], details
    ours = _columns(grid, range(grid.first_paper))
    names, *widths = _widths(ours, False)
    parts: list[list[int]] = [[]]
    for index, needed in enumerate(widths, start=1):
        if parts[-1] and names + sum(widths[i - 1] for i in parts[-1]) + needed >= width:
            parts.append([])
        parts[-1].append(index)
    return [_columns(ours, [0, *part]) for part in parts], False


def _widths(grid: Grid, details: bool) -> list[int]:
    """Characters that each column needs without a break inside a word, the space beside it included."""
    widths = []
    for heading, *cells in zip(grid.header, *grid.rows, strict=True):
        # An arrow stays on the line of its word.
        words = max(map(len, heading.replace(" ↑", "_↑").replace(" ↓", "_↓").split()), default=0)
        widths.append(
            3 + max(words, *(len(c.text) for c in cells), *(len(c.detail) for c in cells if details))
        )
    return widths


def _columns(grid: Grid, kept: Iterable[int]) -> Grid:
    kept = list(kept)
    rows = tuple(tuple(row[i] for i in kept) for row in grid.rows)
    # Rows of what has no arm here hold the paper's numbers only.
    rows = tuple(row for row in rows if any(cell.text for cell in row[1:]))
    return Grid(tuple(grid.header[i] for i in kept), rows, min(grid.first_paper, len(kept)))


def _without_repeats(grid: Grid) -> Grid:
    """A first cell that says what the one above it says is left empty."""
    above = ["", *(row[0].text for row in grid.rows)]
    rows = tuple(
        (Cell("") if row[0].text == before else row[0], *row[1:])
        for before, row in zip(above, grid.rows, strict=False)
    )
    return Grid(grid.header, rows, grid.first_paper)


def _cell(results: Results, arm: str, column: Column) -> Cell:
    estimate = results.estimate(arm, column)
    if estimate is None or math.isnan(estimate.value):
        return Cell("–")
    effect = results.effect(arm, column)
    places = _places(estimate, column)
    marks = "" if effect is None else stars(effect.p_value)
    detail = "" if math.isnan(estimate.low) else f"[{estimate.low:.{places}f}, {estimate.high:.{places}f}]"
    return Cell(f"{estimate.value:.{places}f}{marks}", detail)


def _paper_cells(numbers: Sequence[float | None] | None, count: int) -> list[Cell]:
    return [Cell("" if number is None else f"{number:g}") for number in numbers or [None] * count]


def _places(estimate: Estimate | Difference, column: Column) -> int:
    """Digits after the point: one for percentages, three for rewards and ratios."""
    return 1 if column.metric.scale == 100 or abs(estimate.value) >= 10 else 3


def _signed(number: Difference | Estimate, places: int) -> str:
    if math.isnan(number.value):
        return "–"
    if math.isnan(number.low):
        return f"{number.value:+.{places}f}"
    interval = f"[{number.low:+.{places}f}, {number.high:+.{places}f}]"
    return f"{number.value:+.{places}f} {interval}"


def _markdown(grid: Grid) -> str:
    lines = [_markdown_row(grid.header), _markdown_row(["---", *["---:"] * (len(grid.header) - 1)])]
    for row in grid.rows:
        lines.append(_markdown_row([f"{c.text}<br>{c.detail}" if c.detail else c.text for c in row]))
    return "\n".join(lines)


def _markdown_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _latex_table(grid: Grid, caption: str) -> str:
    lines = [
        r"\begin{table}[t]",
        r"  \centering",
        rf"  \caption{{{escape_latex(caption)}}}",
        rf"  \begin{{tabular}}{{l{'r' * (len(grid.header) - 1)}}}",
        r"    \toprule",
        rf"    {' & '.join(map(escape_latex, grid.header))} \\",
        r"    \midrule",
    ]
    for row in grid.rows:
        cells = [escape_latex(f"{cell.text} {cell.detail}".strip()) for cell in row]
        lines.append(rf"    {' & '.join(cells)} \\")
    return "\n".join([*lines, r"    \bottomrule", r"  \end{tabular}", r"\end{table}", ""])


def _html(grid: Grid) -> str:
    def kind(index: int) -> str:
        return ' class="paper"' if index >= grid.first_paper else ""

    head = "".join(f'<th scope="col"{kind(i)}>{escape(text)}</th>' for i, text in enumerate(grid.header))
    body = []
    for row in grid.rows:
        cells = []
        for index, cell in enumerate(row):
            detail = f"<br><small>{escape(cell.detail)}</small>" if cell.detail else ""
            verdict = f' class="{cell.text}"' if cell.text in ("confirmed", "contradicted") else kind(index)
            cells.append(f"<td{verdict}>{escape(cell.text)}{detail}</td>")
        body.append(f"<tr>{''.join(cells)}</tr>")
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead>{"".join(body)}</table></div>'


def _rich(grid: Grid, title: str, *, details: bool, prose: bool = False) -> Table:
    """The grid as a table of rich; with ``prose`` the first column is text that may be broken."""
    table = Table(title=title or None, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    # Left to itself rich breaks words of the longest headings.
    for index, (heading, width) in enumerate(zip(grid.header, _widths(grid, details), strict=True)):
        given = None if prose else width - _BESIDE
        table.add_column(heading, justify="right" if index else "left", overflow="fold", width=given)
    for row in grid.rows:
        cells = [f"{c.text}\n{c.detail}" if details and c.detail else c.text for c in row]
        table.add_row(*(cell.replace("[", r"\[") for cell in cells))
    return table
