"""A comparison as a table: in the terminal, and as Markdown, LaTeX, HTML or CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from html import escape
from pathlib import Path
from types import MappingProxyType

from rich.console import Console
from rich.table import Table as RichTable

from mfpo.errors import UserError
from mfpo.evaluation.comparison import Comparison
from mfpo.evaluation.headline import headline
from mfpo.evaluation.statistics import Difference, Estimate, Metric

STARS = ((0.001, "***"), (0.01, "**"), (0.05, "*"))
SMALL = 500
"""Groups below which it is said which differences could not have been seen."""
MOST_ROWS = 12
"""Metrics up to which a table in the terminal shows all of them."""
MOST_NAMED = 5
"""Metrics up to which the sentence about small sets names all of them."""
_NOTHING = 1e-9
CSV_COLUMNS = (
    *("benchmark", "metric", "better", "run", "value", "low", "high"),
    *("difference", "difference_low", "difference_high", "p_value", "detectable"),
)
_ARROWS = {"lower": "↓", "higher": "↑", "": ""}
_LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        **{mark: f"\\{mark}" for mark in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "↓": r"$\downarrow$",
        "↑": r"$\uparrow$",
        "–": "--",
        "−": "$-$",
    }
)


def cells(comparison: Comparison, names: Sequence[str] | None = None) -> list[list[str]]:
    """The table as text, a row per metric: its name, then for each run value, interval and difference.

    Args:
        comparison: The comparison.
        names: Metrics to show; all when None.
    """
    rows = []
    for name in comparison.metrics if names is None else names:
        metric = comparison.metrics[name]
        row = [f"{name} {_ARROWS[metric.better]}".strip()]
        for position, found in enumerate(comparison.estimates):
            text = _estimate_text(found[name], metric)
            if position:
                text += f"\n{_difference_text(comparison.differences[position - 1][name], metric)}"
            row.append(text)
        rows.append(row)
    return rows


def notes(comparison: Comparison) -> list[str]:
    """What the numbers mean, and what a set of that size cannot show."""
    found = [f"{comparison.num_items} items; 95% bootstrap intervals in brackets."]
    if comparison.num_left_out:
        found.append(f"{comparison.num_left_out} items that not all runs have are left out.")
    if comparison.differences:
        found.append(
            f"Second line: difference to {comparison.runs[0]} on the same items; * p < 0.05, ** p < 0.01, "
            "*** p < 0.001 (paired permutation test, not corrected for the number of comparisons)."
        )
        found += power_note(comparison)
    return found


def power_note(comparison: Comparison, metrics: Sequence[str] | None = None) -> list[str]:
    """Which differences may go unseen, where the set is small; nothing where it is not.

    Args:
        comparison: The comparison.
        metrics: Speak of these only; of all when None. Of more than [`MOST_NAMED`] the headline ones are
            named, or the first of a benchmark that has none.
    """
    if comparison.num_groups >= SMALL:
        return []
    names = list(comparison.metrics if metrics is None else metrics)
    if len(names) > MOST_NAMED:
        names = headline(comparison.benchmark, names, MOST_NAMED)
    limits = []
    for name in names:
        found = [change[name].detectable for change in comparison.differences]
        known = [limit for limit in found if limit > _NOTHING]  # NaN is not
        if known:
            limits.append(f"{name} {_limit_text(max(known), decimals(comparison.metrics[name]))}")
    if not limits:
        return []
    grouped = comparison.num_groups != comparison.num_items
    items = "groups of items (by picture)" if grouped else "items"
    return [
        f"With only {comparison.num_groups} independent {items}, a true difference smaller than these may "
        f"well be missed (80% power): {', '.join(limits)}."
    ]


def decimals(metric: Metric) -> int:
    """Decimals that a metric is written with: one for percentages, two for shares and means."""
    return 1 if metric.scale == 100 else 2


def stars(p_value: float) -> str:
    """Conventional marks of significance: three for p < 0.001, two for p < 0.01, one for p < 0.05."""
    return next((mark for bound, mark in STARS if p_value < bound), "")


def to_markdown(comparisons: Sequence[Comparison]) -> str:
    """A section for each comparison."""
    sections = []
    for comparison in comparisons:
        header = ["", *comparison.runs]
        lines = [
            f"### {comparison.benchmark}",
            "",
            _markdown_row(header),
            _markdown_row(["---", *["---:"] * len(comparison.runs)]),
            *map(_markdown_row, cells(comparison)),
            "",
            " ".join(notes(comparison)),
            "",
        ]
        sections.append("\n".join(lines))
    return "\n".join(sections)


def to_latex(comparisons: Sequence[Comparison]) -> str:
    r"""A ``table`` with ``booktabs`` rules for each comparison; needs ``\usepackage{booktabs}``."""
    tables = []
    for comparison in comparisons:
        names = " & ".join(["", *(escape_latex(run) for run in comparison.runs)])
        caption = escape_latex(f"{comparison.benchmark}. {' '.join(notes(comparison))}")
        lines = [
            r"\begin{table}[t]",
            r"  \centering",
            rf"  \caption{{{caption}}}",
            rf"  \begin{{tabular}}{{l{'r' * len(comparison.runs)}}}",
            r"    \toprule",
            rf"    {names} \\",
            r"    \midrule",
        ]
        for first, *others in cells(comparison):
            split = [cell.split("\n") for cell in others]
            for line in range(max(map(len, split))):
                row = [first if line == 0 else "", *(c[line] if line < len(c) else "" for c in split)]
                lines.append(rf"    {' & '.join(map(escape_latex, row))} \\")
        lines += [r"    \bottomrule", r"  \end{tabular}", r"\end{table}", ""]
        tables.append("\n".join(lines))
    return "\n".join(tables)


def to_html(comparisons: Sequence[Comparison]) -> str:
    """A page that needs nothing beside it; every text is escaped."""
    parts = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Comparison</title>',
        "<style>body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;"
        "color-scheme:light dark}table{border-collapse:collapse}caption,h2{text-align:left}"
        "th,td{padding:.35rem .8rem;text-align:right;border-bottom:1px solid #8884;"
        "font-variant-numeric:tabular-nums}th:first-child{text-align:left}small{opacity:.75}"
        ".better{color:#0a7d55}.worse{color:#b3400e}p{max-width:46rem;opacity:.8}"
        "@media (prefers-color-scheme:dark){.better{color:#4cc79a}.worse{color:#f08a5d}}</style>",
    ]
    for comparison in comparisons:
        head = "".join(f'<th scope="col">{escape(run)}</th>' for run in comparison.runs)
        parts.append(f"<h2>{escape(comparison.benchmark)}</h2><table><thead><tr><td></td>{head}</tr></thead>")
        for name, metric in comparison.metrics.items():
            row = "".join(f"<td>{_html_cell(comparison, name, place)}</td>" for place in _places(comparison))
            arrow = _ARROWS[metric.better]
            title = escape(metric.text)
            parts.append(f'<tr><th scope="row" title="{title}">{escape(name)} {arrow}</th>{row}</tr>')
        parts.append(f"</table><p>{escape(' '.join(notes(comparison)))}</p>")
    return "\n".join([*parts, "</html>", ""])


def to_csv(comparisons: Sequence[Comparison]) -> str:
    """One line for each benchmark, metric and run, for other programs."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for comparison in comparisons:
        for name, metric in comparison.metrics.items():
            for place in _places(comparison):
                found = comparison.estimates[place][name]
                line = [comparison.benchmark, name, metric.better, comparison.runs[place]]
                numbers = [found.value, found.low, found.high]
                if place:
                    change = comparison.differences[place - 1][name]
                    numbers += [change.value, change.low, change.high, change.p_value, change.detectable]
                writer.writerow([*line, *("" if math.isnan(n) else repr(n) for n in numbers)])
    return text.getvalue()


FORMATS: MappingProxyType[str, Callable[[Sequence[Comparison]], str]] = MappingProxyType(
    {".md": to_markdown, ".tex": to_latex, ".html": to_html, ".csv": to_csv}
)
"""How a file of each ending is written."""


def check_format(path: str | Path) -> None:
    """Raise a [`UserError`][mfpo.errors.UserError] unless the ending of the file is that of a format."""
    if Path(path).suffix.lower() not in FORMATS:
        raise UserError(
            "the table's format follows from the file's ending, and this one is not known",
            where=f"--output_file {path}",
            fix=f"end it with one of {', '.join(FORMATS)}",
        )


def render(comparisons: Sequence[Comparison], path: str | Path) -> str:
    """The comparisons in the format that the file's ending names.

    Raises:
        UserError: No format has that ending.
    """
    check_format(path)
    return FORMATS[Path(path).suffix.lower()](comparisons)


def print_comparison(comparison: Comparison, names: Sequence[str] | None = None) -> None:
    """Show a comparison in the terminal, in several tables where one would be too wide.

    Args:
        comparison: The comparison.
        names: Metrics to show; all when None.
    """
    console = Console(highlight=False)
    rows = cells(comparison, names)
    widths = [
        max(len(line) for cell in column for line in cell.splitlines()) for column in zip(*rows, strict=True)
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
    for note in notes(comparison):
        console.print(note.replace("[", r"\["), style="dim")


def shown_at_once(comparison: Comparison) -> list[str]:
    """The metrics that a table in the terminal has room for: all if they are few, else the headline ones."""
    names = list(comparison.metrics)
    return names if len(names) <= MOST_ROWS else headline(comparison.benchmark, names, MOST_ROWS)


def _limit_text(limit: float, places: int) -> str:
    """A limit above 0, with so many decimals, or one digit where these would make it 0."""
    return f"{limit:.{places}f}" if limit >= 0.5 * 10**-places else f"{limit:.1g}"


def _places(comparison: Comparison) -> range:
    return range(len(comparison.runs))


def _html_cell(comparison: Comparison, name: str, place: int) -> str:
    metric = comparison.metrics[name]
    text = escape(_estimate_text(comparison.estimates[place][name], metric))
    if not place:
        return text
    change = comparison.differences[place - 1][name]
    verdict = _verdict(change, metric)
    return f'{text}<br><small class="{verdict}">{escape(_difference_text(change, metric))}</small>'


def _verdict(change: Difference, metric: Metric) -> str:
    if not metric.better or not change.p_value < STARS[-1][0]:
        return ""
    return "better" if (change.value > 0) == (metric.better == "higher") else "worse"


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
    places = decimals(metric)
    return f"{estimate.value:.{places}f} [{estimate.low:.{places}f}, {estimate.high:.{places}f}]"


def _difference_text(difference: Difference, metric: Metric) -> str:
    if math.isnan(difference.value):
        return "–"
    places = decimals(metric)
    interval = f"[{difference.low:+.{places}f}, {difference.high:+.{places}f}]"
    return f"{difference.value:+.{places}f} {interval}{stars(difference.p_value)}"


def _markdown_row(row: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace(chr(10), '<br>').replace('|', chr(92) + '|') for cell in row)} |"


def escape_latex(text: str) -> str:
    """Text with the characters that mean something to LaTeX made harmless."""
    return text.translate(_LATEX)
