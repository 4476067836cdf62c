"""An experiment's results as text: in the terminal, and as Markdown, LaTeX and HTML."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from mfpo.evaluation.comparison_tables import escape_latex, stars
from mfpo.evaluation.statistics import Difference, Estimate
from mfpo.experiments.results import Column, Related, Results, Verdict

_ARROWS = {"lower": "↓", "higher": "↑", "": ""}
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:75rem;padding:0 1rem;"
    "color-scheme:light dark}table{border-collapse:collapse;margin:1rem 0}"
    "th,td{padding:.35rem .7rem;text-align:right;border-bottom:1px solid #8884;"
    "font-variant-numeric:tabular-nums;vertical-align:top}th:first-child,td:first-child{text-align:left}"
    "small{opacity:.75}.paper{background:#8881}p{max-width:50rem}.confirmed{color:#0a7d55}"
    ".contradicted{color:#b3400e}svg,img{max-width:100%;height:auto}.scroll{overflow-x:auto}"
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
    header = ["", *(f"{column.name} {_ARROWS[column.metric.better]}".strip() for column in results.columns)]
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
    first = results.experiment.arms[0].name
    return [
        f"Means over {made['sft_seeds']} SFT seeds x {made['seeds']} training seeds; items: {items}. "
        "Brackets: 95% intervals over SFT seeds, training seeds and items (Student's t). "
        f"Stars: paired difference to {first}, * p < 0.05, ** p < 0.01, *** p < 0.001, not corrected for the "
        "number of comparisons.",
        *(f"{arm.name}: {arm.text}." for arm in results.experiment.arms if arm.text),
        *results.experiment.notes,
        *results.notes,
        f"Made by `{made['command']}` in {made['minutes']:.1f} minutes on {made['date']}; {made['machine']}; "
        f"mfpo {made['version']}, torch {made['torch']}. All its steps, those of earlier runs included and "
        f"scene models left out, took {made['minutes_of_steps']:.0f} minutes, each on one core or GPU.",
    ]


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
    comments = [f"% {line}" for line in remarks(results, made)]
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
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style>',
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
    """Show table, claims and remarks in the terminal, with intervals where there is room for them."""
    grid = main_grid(results)
    widths = [max(len(c.text) for c in column) for column in zip(*grid.rows, strict=True)]
    details = [max(len(c.detail) for c in column) for column in zip(*grid.rows, strict=True)]
    wide = sum(max(w, d, 6) + 3 for w, d in zip(widths, details, strict=True)) <= console.width
    console.print(_rich(grid, results.experiment.title, details=wide))
    if results.verdicts:
        console.print(_rich(claims_grid(results.verdicts), "claims of the paper", details=False))
    if results.related:
        console.print(_rich(relations_grid(results.related), "over the arms", details=False))
    for line in remarks(results, made):
        console.print(line, style="dim", markup=False, highlight=False)


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


def _rich(grid: Grid, title: str, *, details: bool) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(grid.header):
        table.add_column(heading, justify="right" if index else "left", overflow="fold")
    for row in grid.rows:
        cells = [f"{c.text}\n{c.detail}" if details and c.detail else c.text for c in row]
        table.add_row(*(cell.replace("[", r"\[") for cell in cells))
    return table
