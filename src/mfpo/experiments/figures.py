"""The figures of experiments, as PNG and SVG."""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import numpy as np
from markupsafe import Markup
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from mfpo.data.files import read_jsonl, write_atomic
from mfpo.evaluation.statistics import Estimate
from mfpo.experiments.plan import Plan
from mfpo.experiments.results import Results
from mfpo.experiments.schema import Arm
from mfpo.experiments.store import Store
from mfpo.experiments.verdicts import Column
from mfpo.report.figures import (
    MARKERS,
    MUTED,
    PAPER,
    SERIES,
    in_words,
    new_figure,
    panels,
    quiet,
    short,
    style,
    to_png,
    to_svg,
)
from mfpo.report.plots import LOSSES, REWARDS, RunLog, draw_panels, place_labels
from mfpo.report.runs import STAGE_NAMES
from mfpo.training.metrics import METRICS_FILE

Draw: TypeAlias = Callable[[Results, Plan, Store], Figure | None]
_WORLDS_IN_A_ROW = 3


def draw_figure(results: Results, plan: Plan, store: Store, folder: Path) -> Markup | None:
    """Write ``figure.png`` and ``figure.svg``.

    Returns:
        The figure as an element of a page; None where there is nothing to draw.
    """
    draw = _KINDS[results.experiment.figure.kind]
    with style():
        figure = draw(results, plan, store)
        if figure is None:
            for name in ("figure.png", "figure.svg"):
                (folder / name).unlink(missing_ok=True)
            return None
        write_atomic(folder / "figure.png", to_png(figure, dpi=150))
        svg = io.BytesIO()
        figure.savefig(svg, format="svg", facecolor=PAPER, metadata={"Date": None})
        write_atomic(folder / "figure.svg", svg.getvalue())
        return to_svg(figure, results.experiment.title)


def _trade_off(results: Results, plan: Plan, store: Store) -> Figure | None:
    """CHAIR_i against Cover, an arm a point, a world a panel."""
    measures = dict.fromkeys(column.measure for column in results.columns)
    sides = [
        {column.name: column for column in results.columns if column.measure == measure}
        for measure in measures
    ]
    names = [
        (chair, found)
        for found in sides
        for chair in ("CHAIR_i", "CHAIR")
        if {chair, "Cover"} <= found.keys()
    ]
    if not names:
        return _bars(results, plan, store)
    chair, columns = names[0]
    worlds: dict[str, dict[str, tuple[Estimate, Estimate]]] = {}
    for arm in results.experiment.arms:
        across, up = (results.estimate(arm.name, columns[name]) for name in ("Cover", chair))
        if across is not None and up is not None:
            worlds.setdefault(arm.world, {})[arm.plain_name] = across, up
    return _scatters(worlds, "Cover, higher is better →", f"← lower is better, {in_words(chair)}")


def _scatters(
    worlds: Mapping[str, Mapping[str, tuple[Estimate, Estimate]]], across: str, up: str
) -> Figure | None:
    """The named points of each world, a panel a world; all panels have the same scales."""
    if not worlds:
        return None
    columns = min(_WORLDS_IN_A_ROW, len(worlds))
    rows = math.ceil(len(worlds) / columns)
    figure = new_figure(7.2, 4.8) if len(worlds) == 1 else new_figure(3.7 * columns, 3.6 * rows)
    grid = panels(figure, len(worlds), columns, sharex=True, sharey=True)
    for index, (axes, (world, points)) in enumerate(zip(grid, worlds.items(), strict=True)):
        axes.margins(0.15)
        _scatter(axes, list(points.values()))
        if len(worlds) > 1:
            axes.set_title(world)
        if index % columns == 0:
            axes.set_ylabel(up)
        if index + columns >= len(worlds):
            axes.set_xlabel(across)
            axes.tick_params(labelbottom=True)
    for axes, points in zip(grid, worlds.values(), strict=True):
        place_labels(figure, axes, list(points.values()), list(points))
    return figure


def _scatter(axes: Axes, points: Sequence[tuple[Estimate, Estimate]]) -> None:
    """Points with their intervals both ways."""
    quiet(axes, grid="both")
    for index, (across, up) in enumerate(points):
        axes.errorbar(
            across.value,
            up.value,
            xerr=_bar(across),
            yerr=_bar(up),
            fmt=MARKERS[index % len(MARKERS)],
            color=SERIES[index % len(SERIES)],
            markersize=6,
            elinewidth=1.0,
        )


def _scatter_numbered(axes: Axes, points: Mapping[int, tuple[Estimate, Estimate]]) -> dict[int, Artist]:
    """Points with a number each, over their intervals: for more points than there is room for names.

    Returns:
        What a legend shows for each number.
    """
    quiet(axes, grid="both")
    handles: dict[int, Artist] = {}
    for number, (across, up) in points.items():
        place = (across.value, up.value)
        colour = SERIES[number % len(SERIES)]
        axes.errorbar(*place, xerr=_bar(across), yerr=_bar(up), color=colour, elinewidth=0.8, alpha=0.35)
        (dot,) = axes.plot(*place, "o", color=colour, markersize=9, markeredgecolor=PAPER, zorder=3)
        handles[number] = dot
        axes.annotate(str(number), place, ha="center", va="center", size=6, color=PAPER, zorder=3)
    return handles


def _thresholds(results: Results, plan: Plan, store: Store) -> Figure | None:
    """CHAIR_i against Cover over the votes of samples, an arm a line: the whole trade-off of each model."""
    arms = [
        arm.name for arm in results.experiment.arms if (arm.name, "matched", _votes(1)[0]) in results.pooled
    ]
    if not arms:
        return _trade_off(results, plan, store)
    figure = new_figure(8.4, 5.2)
    axes = figure.add_subplot()
    quiet(axes, grid="both")
    highlight = [arm for arm in arms if arm in results.experiment.figure.highlight] or arms
    others = [arm for arm in arms if arm not in highlight]
    for index, arm in enumerate((*highlight, *others)):
        points = []
        for votes in itertools.count(1):
            across, up = (results.pooled.get((arm, "matched", name)) for name in _votes(votes))
            if across is None or up is None:
                break
            points.append((across.value, up.value))
        if arm in others:
            label = f"{len(others)} others" if arm == others[0] else None
            axes.plot(*zip(*points, strict=True), color=MUTED, alpha=0.4, linewidth=1, label=label, zorder=1)
            continue
        axes.plot(
            *zip(*points, strict=True),
            color=SERIES[index % len(SERIES)],
            linestyle=("-", (0, (4, 2)), (0, (1, 1.5)))[index // len(SERIES) % 3],
            marker=MARKERS[index % len(MARKERS)],
            markersize=4,
            label=short(arm),
        )
    axes.set_yscale("log", nonpositive="mask")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("Cover of what at least k of the samples name, higher is better →")
    axes.set_ylabel("← lower is better, share of it that is not there, %")
    figure.legend(loc="outside right upper")
    return figure


def _votes(number: int) -> tuple[str, str]:
    return f"Cover, {number} votes", f"CHAIR_i, {number} votes"


def _relations(results: Results, plan: Plan, store: Store) -> Figure | None:
    """A panel for each relation, an arm a point."""
    if not results.related:
        return None
    columns = {column.name: column for column in results.columns}
    count = len(results.related)
    in_a_row = min(2, count)
    names = [arm.name for arm in results.experiment.arms]
    handles: dict[int, Artist] = {}
    figure = new_figure(5.0 * in_a_row + 1.6, 4.0 * math.ceil(count / in_a_row))
    for axes, one in zip(panels(figure, count, in_a_row), results.related, strict=True):
        axes.margins(0.12)
        rho = one.correlation
        known = f"{rho.value:+.2f} [{rho.low:+.2f}, {rho.high:+.2f}]"
        axes.set_title("too few arms" if math.isnan(rho.value) else f"rank correlation {known}")
        axes.set_xlabel(in_words(one.relation.x))
        axes.set_ylabel(in_words(one.relation.y))
        points = {}
        for arm in one.arms:
            x, y = (results.estimate(arm, columns[name]) for name in (one.relation.x, one.relation.y))
            if x is not None and y is not None:
                points[1 + names.index(arm)] = x, y
        handles |= _scatter_numbered(axes, points)
    shown = sorted(handles)
    labels = [f"{number}  {short(names[number - 1])}" for number in shown]
    figure.legend([handles[number] for number in shown], labels, loc="outside right upper")
    return figure


def _bars(results: Results, plan: Plan, store: Store) -> Figure | None:
    """Chosen metrics, a panel each, an arm a bar."""
    columns = _shown(results)
    if not columns:
        return None
    arms = results.experiment.arms
    figure = new_figure(max(5.5, 2.9 * len(columns)), 1.2 + 0.32 * len(arms))
    grid = figure.subplots(1, len(columns), sharey=True, squeeze=False).ravel()
    for axes, column in zip(grid, columns, strict=True):
        quiet(axes, grid="x")
        axes.locator_params(axis="x", nbins=4)
        axes.set_title(in_words(column.name))
        for index, arm in enumerate(arms):
            found = results.estimate(arm.name, column)
            if found is not None and not math.isnan(found.value):
                colour = SERIES[index % len(SERIES)]
                axes.barh(index, found.value, height=0.62, color=colour, alpha=0.35)
                axes.errorbar(found.value, index, xerr=_bar(found), fmt="o", color=colour, markersize=4)
        axes.set_yticks(range(len(arms)), [short(arm.name) for arm in arms])
    grid[0].invert_yaxis()
    return figure


def _steps(results: Results, plan: Plan, store: Store) -> Figure | None:
    """Chosen metrics over a number that the arms differ in, a line for each group of arms."""
    columns = _shown(results)
    if not columns:
        return None
    groups: dict[str, list[Arm]] = {}
    for arm in results.experiment.arms:
        if arm.x is not None:
            groups.setdefault(arm.group, []).append(arm)
    level = [arm for arm in results.experiment.arms if arm.x is None]
    figure = new_figure(max(5.5, 3.6 * len(columns)), 3.6)
    grid = figure.subplots(1, len(columns), squeeze=False).ravel()
    for axes, column in zip(grid, columns, strict=True):
        quiet(axes)
        axes.set_title(in_words(column.name))
        axes.set_xlabel(results.experiment.figure.x)
        places = sorted({arm.x for arms in groups.values() for arm in arms if arm.x is not None})
        axes.set_xticks(places, [f"{place:g}" for place in places])
        for index, (group, arms) in enumerate(groups.items(), start=1):
            colour = SERIES[index % len(SERIES)]
            found = [
                (arm.x, results.estimate(arm.name, column)) for arm in sorted(arms, key=lambda a: a.x or 0)
            ]
            known = [(x, value) for x, value in found if value is not None]
            xs = [x for x, _ in known]
            axes.fill_between(
                xs, [v.low for _, v in known], [v.high for _, v in known], color=colour, alpha=0.12, lw=0
            )
            axes.plot(
                xs,
                [v.value for _, v in known],
                color=colour,
                marker=MARKERS[index % len(MARKERS)],
                markersize=5,
                label=group,
            )
        for index, arm in enumerate(level):
            value = results.estimate(arm.name, column)
            if value is not None:
                dashes = ("--", ":", "-.")[index % 3]
                axes.axhline(value.value, color=SERIES[0], linestyle=dashes, linewidth=1.1, label=arm.name)
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=min(5, max(1, len(labels))))
    return figure


def _distortion(results: Results, plan: Plan, store: Store) -> Figure | None:
    """Preference for the chosen answer under distortion, and where attention goes; an arm a colour."""
    columns = [column for column in results.columns if column.measure in ("distortion", "attention")]
    # Shares of a hundred; others have an axis of their own.
    columns = [c for c in columns if c.metric.scale == 100 and not c.name.startswith("drop")]
    arms = results.experiment.arms
    figure = new_figure(9.0, 3.8)
    axes = figure.add_subplot()
    quiet(axes)
    width = 0.8 / max(1, len(arms))
    for index, arm in enumerate(arms):
        colour = SERIES[index % len(SERIES)]
        for place, column in enumerate(columns):
            found = results.estimate(arm.name, column)
            if found is not None and not math.isnan(found.value):
                x = place + (index - (len(arms) - 1) / 2) * width
                label = arm.name if place == 0 else None
                axes.bar(x, found.value, width * 0.9, color=colour, alpha=0.4, label=label)
                axes.errorbar(x, found.value, yerr=_bar(found), color=colour)
    axes.set_xticks(range(len(columns)), [f"{column.measure}:\n{column.name}" for column in columns])
    axes.set_ylabel("%")
    figure.legend(loc="outside upper left", ncols=min(6, len(arms)))
    return figure


def _curves(series: Mapping[str, tuple[str, str, object]], ylabel: str, level: float | None) -> Draw:
    """Curves of the trainings, means over seeds, a panel an arm."""

    def draw(results: Results, plan: Plan, store: Store) -> Figure | None:
        logs = []
        for arm in results.experiment.arms:
            trainings = [step for step in plan.trainings.get(arm.name, {}).values() if store.done(step)]
            lines = [read_jsonl(store(step) / METRICS_FILE) for step in trainings]
            if lines and arm.stage is None:
                config = trainings[0].config
                logs.append(RunLog(arm.name, mean_lines(lines), STAGE_NAMES.get(config.stages, ())))
        return draw_panels(logs, series, ylabel, level=level)

    return draw


def mean_lines(runs: Sequence[Sequence[Mapping[str, float]]]) -> list[dict[str, float]]:
    """Lines of several trainings, averaged step by step over those that have the step.

    Args:
        runs: Lines of ``metrics.jsonl`` of each training.
    """
    steps: dict[float, list[Mapping[str, float]]] = {}
    for lines in runs:
        for line in lines:
            if "step" in line and "loss" in line:
                steps.setdefault(line["step"], []).append(line)
    averaged = []
    for _, lines in sorted(steps.items()):
        keys = set.intersection(*(set(line) for line in lines))
        averaged.append({key: float(np.mean([line[key] for line in lines])) for key in sorted(keys)})
    return averaged


def _none(results: Results, plan: Plan, store: Store) -> Figure | None:
    return None


def _shown(results: Results) -> list[Column]:
    """The metrics that the file names for the figure; the first three when it names none."""
    wanted = results.experiment.figure.metrics
    if not wanted:
        return list(results.columns[:3])
    return [column for column in results.columns if column.name in wanted]


def _bar(estimate: Estimate) -> list[list[float]] | None:
    """Distances from the value to the ends of its interval, as matplotlib wants them."""
    if math.isnan(estimate.low) or math.isnan(estimate.high):
        return None
    return [[max(0.0, estimate.value - estimate.low)], [max(0.0, estimate.high - estimate.value)]]


_KINDS: dict[str, Draw] = {
    "trade_off": _trade_off,
    "thresholds": _thresholds,
    "relations": _relations,
    "bars": _bars,
    "steps": _steps,
    "stages": _steps,
    "rewards": _curves(REWARDS, "reward", 0.0),
    "losses": _curves(LOSSES, "loss", None),
    "distortion": _distortion,
    "none": _none,
}
