"""The plots of a report: CHAIR_i against Cover, rewards and losses by step, preference under distortion."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox

from mfpo.evaluation.statistics import Estimate
from mfpo.report.figures import (
    BLUE,
    GREEN,
    INK,
    MARKERS,
    MUTED,
    ORANGE,
    PURPLE,
    SERIES,
    VERMILION,
    in_words,
    new_figure,
    panels,
    quiet,
    short,
    style,
    to_svg,
)

Record = Mapping[str, Any]
PAGE_WIDTH = 11.0
_COLUMNS = 3
# Places for a label beside its point, best first: points to the right, points up, side of the text.
_OFFSETS: tuple[tuple[int, int, Literal["left", "right"]], ...] = (
    (9, 6, "left"),
    (9, -14, "left"),
    (-9, 6, "right"),
    (-9, -14, "right"),
    (9, 18, "left"),
    (-9, 18, "right"),
    (9, -26, "left"),
    (-9, -26, "right"),
    (9, 32, "left"),
    (-9, -40, "right"),
)

MARGINS = {
    "rewards/margins": ("text: chosen − rejected answer", BLUE, "-"),
    "rewards/image_margins": ("image: original − rejected image", VERMILION, "-"),
}
REWARDS = {
    "rewards/chosen": ("chosen", GREEN, "-"),
    "rewards/rejected": ("rejected answer", BLUE, "-"),
    "rewards/image_rejected": ("chosen, rejected image", VERMILION, (0, (4, 2))),
}
LOSSES = {
    "loss/text": ("text", BLUE, "-"),
    "loss/image": ("image", VERMILION, "-"),
    "loss/margin": ("margin", GREEN, "-"),
    "loss/preference": ("preference", BLUE, "-"),
    "loss/phrase": ("phrases", BLUE, "-"),
    "loss/selective_eos": ("selective EOS", BLUE, "-"),
    "loss/kl": ("divergence from the reference", PURPLE, "-"),
    "loss/sft": ("supervised", ORANGE, "-"),
    "loss": ("total", INK, (0, (4, 2))),
}
BALANCE = {"rewards/modality_balance": ("image margin / text margin", VERMILION, "-")}
BALANCE_SHOWN = (-1.0, 3.0)
"""What is shown of the ratio, which is wild while the text margin is near 0."""


@dataclass(frozen=True, slots=True)
class RunLog:
    """A training as its plots need it.

    Attributes:
        label: Name of the run.
        records: Lines of ``metrics.jsonl`` with ``step``, ``stage``, ``loss``, ``loss/*`` and ``rewards/*``.
        stages: Names of the stages in the order of training; numbers where there are none.
    """

    label: str
    records: Sequence[Record] = field(repr=False)
    stages: Sequence[str] = ()


def scatter(
    x: Sequence[Estimate],
    y: Sequence[Estimate],
    labels: Sequence[str],
    x_name: str,
    y_name: str,
    places: Sequence[int] | None = None,
) -> Markup:
    """Runs as points with their 95% intervals on both axes.

    Args:
        x: Metric on the horizontal axis, better when higher, one per run.
        y: Metric on the vertical axis, better when lower.
        labels: Names of the runs.
        x_name: Name of the first metric.
        y_name: Name of the second.
        places: Place of each run among all runs of the report, which gives it its colour; in order when None.
    """
    places = range(len(labels)) if places is None else places
    with style():
        figure = new_figure(7.2, 4.6)
        axes = figure.add_subplot()
        quiet(axes, grid="both")
        for index, across, up in zip(places, x, y, strict=True):
            colour, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
            axes.errorbar(
                across.value,
                up.value,
                xerr=_bars(across),
                yerr=_bars(up),
                fmt=marker,
                color=colour,
                markersize=7,
                elinewidth=1.1,
                capsize=0,
            )
        axes.margins(0.12)
        axes.set_xlabel(f"{in_words(x_name)}, higher is better →")
        axes.set_ylabel(f"← lower is better, {in_words(y_name)}")
        colours = [SERIES[index % len(SERIES)] for index in places]
        place_labels(figure, axes, list(zip(x, y, strict=True)), labels, colours)
        return to_svg(figure, f"{y_name} against {x_name} with intervals, one point per run")


def place_labels(
    figure: Figure,
    axes: Axes,
    points: Sequence[tuple[Estimate, Estimate]],
    labels: Sequence[str],
    colours: Sequence[str] = SERIES,
) -> None:
    """Write each label beside its point, where it covers least of points, intervals and the labels before it.

    Args:
        figure: The figure; it is laid out to know the sizes.
        axes: Where the points are.
        points: Their coordinates, with intervals.
        labels: One per point.
        colours: Of the points, in their order; they begin again when they are used up.
    """
    figure.draw_without_rendering()
    scale = figure.dpi / 72
    frame = axes.get_window_extent()
    taken = [box for x, y in points for box in _obstacles(axes, x, y)]
    for index, ((x, y), label) in enumerate(zip(points, labels, strict=True)):
        text = axes.annotate(
            short(label),
            (x.value, y.value),
            xytext=(0, 0),
            textcoords="offset points",
            color=colours[index % len(colours)],
            in_layout=False,
        )
        size = text.get_window_extent()
        px, py = axes.transData.transform((x.value, y.value))
        choices = []
        for order, (dx, dy, side) in enumerate(_OFFSETS):
            left = px + dx * scale - (size.width if side == "right" else 0)
            box = Bbox.from_bounds(left, py + dy * scale, size.width, size.height)
            cost = 3 * order + sum(_overlap(box, other) for other in taken) + 5 * _outside(box, frame)
            choices.append((cost, order, box))
        _, order, box = min(choices, key=lambda choice: choice[:2])
        taken.append(box)
        text.set_position(_OFFSETS[order][:2])
        text.set_horizontalalignment(_OFFSETS[order][2])


def reward_margins(logs: Sequence[RunLog]) -> Markup | None:
    """Reward margins of text and image by step, a panel per run; None without any."""
    return _panels(logs, MARGINS, "reward margin", "Reward margins of the two modalities by training step")


def rewards(logs: Sequence[RunLog]) -> Markup | None:
    """Rewards of the three sequences by step, a panel per run; None without any."""
    return _panels(logs, REWARDS, "reward", "Rewards of chosen, rejected and image-rejected by training step")


def losses(logs: Sequence[RunLog]) -> Markup | None:
    """Loss terms and their sum by step, a panel per run; None without any."""
    return _panels(logs, LOSSES, "loss", "Loss terms by training step", zero=False)


def distortion(
    scopes: Mapping[str, Mapping[str, Sequence[tuple[int, Estimate]]]], runs: Sequence[str]
) -> Markup:
    """How often the chosen answer is still preferred, by noise step: a panel per scope, a line per run.

    Args:
        scopes: For each scope and run, noise steps with the accuracy in percent, ascending.
        runs: All runs of the report in their order, which gives them their colours.
    """
    with style():
        columns = min(_COLUMNS, max(2, len(scopes)))
        rows = math.ceil(len(scopes) / columns)
        figure = new_figure(PAGE_WIDTH, 0.4 + 3.2 * rows)
        grid = panels(figure, len(scopes), columns, sharey=True)
        handles: dict[str, Any] = {}
        for axes, (scope, curves) in zip(grid, scopes.items(), strict=True):
            quiet(axes)
            axes.set_title(scope)
            axes.set_xlabel("noise step")
            for label, points in curves.items():
                index = runs.index(label)
                colour, marker = SERIES[index % len(SERIES)], MARKERS[index % len(MARKERS)]
                steps = [step for step, _ in points]
                low, high = [found.low for _, found in points], [found.high for _, found in points]
                axes.fill_between(steps, low, high, color=colour, alpha=0.1, lw=0)
                heights = [found.value for _, found in points]
                handles[label] = axes.plot(steps, heights, color=colour, marker=marker, markersize=5)[0]
        for axes in grid[::columns]:
            axes.set_ylabel("chosen answer preferred, %")
        names = [short(label) for label in handles]
        figure.legend(handles.values(), names, loc="outside upper left", ncols=min(6, len(names)))
        return to_svg(figure, "Preference accuracy by noise step, a panel per scope and a line per run")


def stage_spans(records: Iterable[Record]) -> list[tuple[int, float, float]]:
    """First and last step of each stage, as (1-based stage, from, to); the ends of neighbours meet.

    A line that averages over two stages counts for the nearer one.
    """
    spans: list[tuple[int, float, float]] = []
    before = 0.0
    for record in records:
        if "stage" not in record or "step" not in record:
            continue
        stage, step = round(float(record["stage"])), float(record["step"])
        if spans and spans[-1][0] == stage:
            spans[-1] = stage, spans[-1][1], step
        else:
            spans.append((stage, before, step))
        before = step
    return spans


def _panels(
    logs: Sequence[RunLog],
    series: Mapping[str, tuple[str, str, Any]],
    ylabel: str,
    alt: str,
    *,
    zero: bool = True,
) -> Markup | None:
    with style():
        figure = draw_panels(logs, series, ylabel, level=0.0 if zero else None)
        return None if figure is None else to_svg(figure, alt)


def draw_panels(
    logs: Sequence[RunLog],
    series: Mapping[str, tuple[str, str, Any]],
    ylabel: str,
    *,
    level: float | None = None,
    shown: tuple[float, float] | None = None,
) -> Figure | None:
    """A small panel per run with the same axes, and one legend above them; None if nothing was logged.

    Args:
        logs: The runs.
        series: For each metric the name, colour and dashes of its line.
        ylabel: Name of the vertical axis.
        level: Where to draw a horizontal line.
        shown: Ends of the vertical axis at most.
    """
    logs = [
        log for log in logs if any(key in record for record in log.records for key in series if key != "loss")
    ]
    if not logs:
        return None
    columns = min(_COLUMNS, len(logs))
    rows = math.ceil(len(logs) / columns)
    figure = new_figure(
        PAGE_WIDTH * max(columns, 2) / _COLUMNS if columns < _COLUMNS else PAGE_WIDTH, 0.5 + 2.5 * rows
    )
    grid = panels(figure, len(logs), columns, sharex=True, sharey=True)
    handles: dict[str, Any] = {}
    for axes, log in zip(grid, logs, strict=True):
        quiet(axes)
        axes.set_title(short(log.label), pad=16 if len(log.stages) > 1 else 8)
        _shade_stages(axes, log)
        if level is not None:
            axes.axhline(level, color=MUTED, linewidth=0.8)
        for key, (name, colour, dashes) in series.items():
            points = [(r["step"], r[key]) for r in log.records if key in r and "step" in r]
            if points:
                handles[name] = axes.plot(*zip(*points, strict=True), color=colour, linestyle=dashes)[0]
    for index, axes in enumerate(grid):
        axes.margins(x=0.01)
        if shown is not None:
            low, high = axes.get_ylim()
            axes.set_ylim(max(low, shown[0]), min(high, shown[1]))
        if index % columns == 0:
            axes.set_ylabel(ylabel)
        if index + columns >= len(logs):
            axes.set_xlabel("step")
            axes.tick_params(labelbottom=True)
    names = [name for name, _, _ in series.values() if name in handles]
    figure.legend([handles[name] for name in names], names, loc="outside upper left", ncols=len(names))
    return figure


def _shade_stages(axes: Axes, log: RunLog) -> None:
    spans = stage_spans(log.records)
    if len(spans) < 2:
        return
    first = next(float(record["step"]) for record in log.records if "stage" in record)
    for stage, start, end in spans:
        if stage % 2 == 0:
            axes.axvspan(start, end, color=PURPLE, alpha=0.09, lw=0)
        name = log.stages[stage - 1] if stage <= len(log.stages) else f"stage {stage}"
        axes.annotate(
            name,
            ((max(start, first) + end) / 2, 1),
            xycoords=("data", "axes fraction"),
            xytext=(0, 3),
            textcoords="offset points",
            ha="center",
            color=MUTED,
            fontsize=8.5,
        )


def _bars(estimate: Estimate) -> list[list[float]] | None:
    """Distances from the value to the ends of its interval, as matplotlib wants them."""
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return None
    return [[max(0.0, estimate.value - estimate.low)], [max(0.0, estimate.high - estimate.value)]]


def _obstacles(axes: Axes, x: Estimate, y: Estimate) -> list[Bbox]:
    """A point and its two bars in pixels, each a little wider than drawn."""
    px, py = axes.transData.transform((x.value, y.value))
    boxes = [Bbox.from_bounds(px - 7, py - 7, 14, 14)]
    for (low, high), across in (((x.low, x.high), True), ((y.low, y.high), False)):
        if math.isnan(low) or math.isnan(high):
            continue
        start, end = (
            axes.transData.transform((value, y.value) if across else (x.value, value))
            for value in (low, high)
        )
        boxes.append(Bbox([start - 2, end + 2]))
    return boxes


def _overlap(one: Bbox, other: Bbox) -> float:
    shared = Bbox.intersection(one, other)
    return 0.0 if shared is None else float(shared.width * shared.height)


def _outside(box: Bbox, frame: Bbox) -> float:
    """Area of a box that lies outside a frame."""
    return float(box.width * box.height) - _overlap(box, frame)
