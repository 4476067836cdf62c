"""What a report shows of probes: preference by noise step, attention by layer and head, and where it went."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from matplotlib.colors import to_rgba

from mfpo.data.images import open_image
from mfpo.errors import RowError
from mfpo.evaluation.results import ScoreResult
from mfpo.evaluation.statistics import Estimate
from mfpo.records import ImageSource
from mfpo.report import plots
from mfpo.report.figures import BLUE, GREEN, RULE, VERMILION, new_figure, short, style, to_svg
from mfpo.report.page import data_uri
from mfpo.report.runs import Run

MAPS = (
    ("object", "the named object", BLUE),
    ("other", "other image tokens", GREEN),
    ("text", "text", VERMILION),
)
MOST_OVERLAYS = 8
OVERLAY_SIDE = 240
_ROW_HEIGHT = 0.11


@dataclass(frozen=True, slots=True)
class Overlay:
    """Where runs looked while they named an object of a picture.

    Attributes:
        row: Id of the preference row.
        keyword: The object.
        pictures: For each run its picture as a ``data:`` URI; empty where the run has none.
    """

    row: str
    keyword: str
    pictures: tuple[str, ...]


def distortion(runs: Sequence[Run]) -> Markup | None:
    """Preference accuracy by noise step: a panel for each scope, and schedule if there are several."""
    probed = [(one.label, result) for one in runs for result in _scores(one, "distortion")]
    panels: dict[str, dict[str, list[tuple[int, Estimate]]]] = {}
    for label, result in probed:
        for scope, curve in distortion_curves(result).items():
            panels.setdefault(scope.replace("/", ", "), {})[label] = curve
    return plots.distortion(panels, [one.label for one in runs]) if panels else None


def distortion_curves(result: ScoreResult) -> dict[str, list[tuple[int, Estimate]]]:
    """Accuracy by step, 0 for the clean picture, of each ``scope`` or ``scope/schedule`` that has steps."""
    found = {
        name: Estimate(value, *result.intervals.get(name, (math.nan, math.nan)))
        for name, value in result.metrics.items()
    }
    curves: dict[str, list[tuple[int, Estimate]]] = {}
    for name, estimate in found.items():
        scope, _, step = name.partition("@")
        if step.isdecimal() and " " not in scope:
            curves.setdefault(scope, [(0, found["clean"])]).append((int(step), estimate))
    return {scope: sorted(curve, key=lambda point: point[0]) for scope, curve in curves.items()}


def attention_shares(result: ScoreResult) -> dict[str, np.ndarray]:
    """Mean attention by layer and head on the object, the other image tokens and the text, in percent.

    Returns:
        float64 ``[layers, heads]`` for each name of [`MAPS`]; they add up to 100.
    """
    layers = result.settings["layers"]
    on_object, on_image = np.array(layers["object"], float), np.array(layers["image"], float)
    return {"object": on_object, "other": on_image - on_object, "text": 100 - on_image}


def attention_maps(runs: Sequence[Run]) -> Markup | None:
    """A row of three maps for each run that was probed; None without any.

    The colour is as strong as the attention, from 0 to the most that any run has of that kind.
    """
    probed = [
        (one.label, attention_shares(result))
        for one in runs
        for result in _scores(one, "attention")
        if "layers" in result.settings
    ]
    if not probed:
        return None
    most = {name: max(shares[name].max() for _, shares in probed) or 1.0 for name, _, _ in MAPS}
    heights = [max(1.0, _ROW_HEIGHT * len(shares["object"])) + 0.75 for _, shares in probed]
    with style():
        figure = new_figure(plots.PAGE_WIDTH, sum(heights))
        grid = figure.subplots(len(probed), len(MAPS), squeeze=False, height_ratios=heights)
        for line, (label, shares) in zip(grid, probed, strict=True):
            for axes, (name, title, colour) in zip(line, MAPS, strict=True):
                cells = np.array(to_rgba(colour)) * np.ones((*shares[name].shape, 1))
                cells[..., 3] = (shares[name] / most[name]).clip(0, 1)
                axes.pcolormesh(cells, edgecolors=RULE, linewidth=0.25)
                axes.grid(False)
                axes.invert_yaxis()
                for axis, count in ((axes.yaxis, len(cells)), (axes.xaxis, cells.shape[1])):
                    shown = np.unique(np.linspace(0, count - 1, min(count, 5)).round().astype(int))
                    axis.set_ticks(shown + 0.5, [str(place + 1) for place in shown])
                axes.set_title(f"{title}: {shares[name].mean():.1f}% (0 to {most[name]:.1f}%)")
                axes.set_xlabel("head")
            line[0].set_ylabel(f"{short(label, 22)}\nlayer")
        return to_svg(
            figure, "Attention by layer and head on the object, the rest of the image, and the text"
        )


def overlays(runs: Sequence[Run]) -> list[Overlay]:
    """The pictures that the attention probe saved, of the same row and object side by side."""
    folders = [one.path / "attention" if any(_scores(one, "attention")) else None for one in runs]
    names = dict.fromkeys(file.name for folder in folders if folder for file in sorted(folder.glob("*.png")))
    found = []
    for name in names:
        pictures = tuple(_overlay(folder / name) if folder else "" for folder in folders)
        if any(pictures):
            row, _, keyword = name.removesuffix(".png").rpartition("-")
            found.append(Overlay(row, keyword.replace("_", " "), pictures))
        if len(found) == MOST_OVERLAYS:
            break
    return found


def overlay_note(runs: Sequence[Run]) -> str:
    """What the colour on the pictures means, which the score files say."""
    scales = {result.settings.get("overlay_full_at") for run in runs for result in _scores(run, "attention")}
    meaning = "Attention on the picture, mean over layers and heads. "
    if None in scales or len(scales) != 1:
        return meaning + (
            "Some of these pictures come from an earlier version of the probe and have a scale of their own: "
            "the brighter, the more. Probe again to compare them."
        )
    (full,) = scales
    return meaning + (
        "Grey: no more than if it were spread evenly over the picture. Orange: more than that, in full "
        f"colour from {full:g} times as much; the scale is the same for all pictures and runs. A picture "
        "without orange is one that the model looks at evenly."
    )


def _overlay(path: Path) -> str:
    if not path.is_file():
        return ""
    try:
        picture = open_image(ImageSource(path=str(path)))
    except RowError:
        return ""
    if max(picture.size) < OVERLAY_SIDE:
        # So that the browser does not blur what is a few pixels wide.
        return data_uri(picture, lossless=True)
    return data_uri(picture, OVERLAY_SIDE)


def _scores(run: Run, name: str) -> list[ScoreResult]:
    """Score files of a probe; a run may have several."""
    return [result for result in run.scores.values() if result.name == name]
