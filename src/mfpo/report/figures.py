"""The one style of all plots, and their way into a page as SVG in its light and dark colours."""

from __future__ import annotations

import io
import itertools
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, MUTED, RULE, PAPER = "#1b1e23", "#5c646e", "#dcdfe3", "#ffffff"
BLUE, VERMILION, GREEN, PURPLE = "#0072b2", "#d55e00", "#009e73", "#aa5b8c"
ORANGE, SKY, VIOLET, GREY = "#c98a00", "#3a9bd6", "#7a5fc4", "#6f757d"
SERIES = (GREY, BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY, VIOLET)
"""Colours of runs in their order; the first one is what the others are compared with. After Okabe and Ito."""
MARKERS = ("o", "s", "D", "^", "v", "P", "X", "p")

_VARIABLES = {
    INK: "--ink",
    MUTED: "--muted",
    RULE: "--rule",
    PAPER: "--paper",
    BLUE: "--fig-blue",
    VERMILION: "--fig-vermilion",
    GREEN: "--fig-green",
    PURPLE: "--fig-purple",
    ORANGE: "--fig-orange",
    SKY: "--fig-sky",
    VIOLET: "--fig-violet",
    GREY: "--fig-grey",
}
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mfpo",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 9.5,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
}
_PAGE_PIXELS = 96
"""Of the page for an inch of a figure."""
_counter = itertools.count(1)


@contextmanager
def style() -> Iterator[None]:
    """The style of all plots, for the figures made inside."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # The browser draws the text; what matplotlib's own font lacks is of no consequence.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, without the global state of ``pyplot``.

    Args:
        width: In inches; 11 is the width of a page.
        height: In inches.
    """
    return Figure(figsize=(width, height), layout="constrained")


def panels(
    figure: Figure, count: int, columns: int, *, sharex: bool = False, sharey: bool = False
) -> list[Axes]:
    """So many panels in rows of at most so many, from the top left; the rest of the last row stays empty.

    Args:
        figure: Where to put them.
        count: Number of panels.
        columns: Panels in a row.
        sharex: Whether all have one horizontal scale.
        sharey: Whether all have one vertical scale.
    """
    grid = figure.subplots(-(-count // columns), columns, sharex=sharex, sharey=sharey, squeeze=False).ravel()
    for axes in grid[count:]:
        axes.set_visible(False)
    return list(grid[:count])


def to_svg(figure: Figure, alt: str) -> Markup:
    """The figure as an SVG element for a page.

    Text stays text, so it can be searched and read aloud; colours become the page's own, so they fit in the
    dark too; ids are made unique within the process, so several figures can share a page.

    Args:
        figure: A figure made in [`style`].
        alt: What it shows, for those who cannot see it.
    """
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    # A style element inside would hold for the whole page; the page's own styles say the same.
    text = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"| version="[^"]*"', "", text, count=3)
    text = text.replace("xlink:href=", "href=")
    prefix = f"f{next(_counter)}-"
    text = re.sub(r'\bid="', f'id="{prefix}', text)
    text = re.sub(r'href="#', f'href="#{prefix}', text)
    text = re.sub(r"url\(#", f"url(#{prefix}", text)
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    # At most as large as it is drawn for, so that the letters of all figures have one size.
    label = Markup('<svg role="img" aria-label="{}" style="max-width: {}px"').format(
        alt, round(_PAGE_PIXELS * figure.get_figwidth())
    )
    return label + Markup(text.removeprefix("<svg"))  # matplotlib escapes the texts in it


def to_png(figure: Figure, dpi: int = 120) -> bytes:
    """A figure as a picture on paper, for a file of its own.

    Args:
        figure: A figure made in [`style`].
        dpi: Pixels an inch.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=PAPER, metadata={"Software": None})
    return buffer.getvalue()


def in_words(metric: str) -> str:
    """A metric's name as it is set in plots: ``CHAIR_i`` with a subscript."""
    for ending, subscript in (("_i", "ᵢ"), ("_s", "ₛ")):
        if metric.endswith(ending):
            return metric.removesuffix(ending) + subscript
    return metric


def short(label: str, length: int = 32) -> str:
    """A label that leaves room for the plot; its full text stands in the tables."""
    return label if len(label) <= length else f"{label[: length - 1]}…"


def quiet(axes: Axes, *, grid: str = "y") -> None:
    """Grid lines along one axis only (``x``, ``y`` or ``both``)."""
    axes.grid(False)
    axes.grid(True, axis=grid)  # type: ignore[arg-type]
