"""Figures of experiments from results made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mfpo.evaluation.statistics import Estimate, Metric
from mfpo.experiments import figures
from mfpo.experiments.plan import Plan
from mfpo.experiments.pooled import Pooled
from mfpo.experiments.reading import read_experiment
from mfpo.experiments.results import Related, Results
from mfpo.experiments.run import write_results
from mfpo.experiments.schema import Figure, Relation
from mfpo.experiments.store import Store
from mfpo.experiments.verdicts import Column

FILE = """
title: three arms
arms: [{name: sft}, {name: left}, {name: right}]
metrics: {scenes: [CHAIR_i, Cover], grounding: [swap_accuracy]}
figure: {kind: thresholds}
"""
EXPERIMENT = read_experiment(FILE, "mine", "mine.yaml", lambda: ())
COLUMNS = tuple(
    Column(measure, name, Metric("a", "b", better="higher"))
    for measure, names in EXPERIMENT.metrics.items()
    for name in names
)


def pooled(value: float) -> Pooled:
    return Pooled(np.array([[value]]), value + np.linspace(-1, 1, 41)[None], 100)


def results(values: dict[tuple[str, str, str], float], **more: Any) -> Results:
    return Results(EXPERIMENT, COLUMNS, {key: pooled(value) for key, value in values.items()}, {}, (), **more)


def drawn(found: Results, monkeypatch: pytest.MonkeyPatch, folder: Path) -> Any:
    """The figure that is written, before it is; None where none is."""
    kept = []
    monkeypatch.setattr(figures, "to_png", lambda figure, **options: kept.append(figure) or b"png")
    plan = Plan(found.experiment, {}, {}, ())
    element = figures.draw_figure(found, plan, Store(folder), folder)
    assert (element is None) == (not kept) == (not (folder / "figure.png").is_file())
    return kept[0] if kept else None


POINTS = {
    ("sft", "scenes", "CHAIR_i"): 17.0,
    ("sft", "scenes", "Cover"): 82.0,
    ("left", "scenes", "CHAIR_i"): 11.0,
    ("left", "scenes", "Cover"): 75.0,
}


def test_thresholds_are_a_line_for_each_arm_that_was_sampled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    curves = {"sft": [(98.0, 40.0), (80.0, 12.0), (20.0, 1.0)], "right": [(97.0, 38.0), (75.0, 0.0)]}
    votes = {
        (arm, "matched", f"{name}, {k} votes"): value
        for arm, curve in curves.items()
        for k, point in enumerate(curve, start=1)
        for name, value in zip(("Cover", "CHAIR_i"), point, strict=True)
    }
    figure = drawn(results(POINTS | votes), monkeypatch, tmp_path)
    (axes,) = figure.axes
    assert {line.get_label(): list(map(tuple, line.get_xydata())) for line in axes.lines} == curves
    assert axes.get_yscale() == "log"


def test_without_samples_thresholds_are_single_points(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    figure = drawn(results(POINTS), monkeypatch, tmp_path)
    (axes,) = figure.axes
    assert sorted(tuple(line.get_xydata()[0]) for line in axes.lines) == [(75.0, 11.0), (82.0, 17.0)]


def test_lines_of_many_arms_differ(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = [f"arm {number}" for number in range(20)]
    arms = "\n".join(f"  - {{name: {name}}}" for name in names)
    many = read_experiment(
        f"title: many\narms:\n{arms}\nmetrics: {{scenes: [CHAIR_i]}}\nfigure: {{kind: thresholds}}",
        "mine",
        "mine.yaml",
        lambda: (),
    )
    votes = {
        (name, "matched", f"{metric}, 1 votes"): 50.0 for name in names for metric in ("Cover", "CHAIR_i")
    }
    figure = drawn(replace(results(votes), experiment=many), monkeypatch, tmp_path)
    looks = {(line.get_color(), line.get_marker(), str(line._dash_pattern)) for line in figure.axes[0].lines}
    assert len(looks) == 20


def test_lines_that_are_not_to_stand_out_are_grey(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    arms = [arm.name for arm in EXPERIMENT.arms]
    votes = {(arm, "matched", f"{name}, 1 votes"): 50.0 for arm in arms for name in ("Cover", "CHAIR_i")}
    shown = replace(EXPERIMENT, figure=replace(EXPERIMENT.figure, highlight=("right",)))
    figure = drawn(replace(results(votes), experiment=shown), monkeypatch, tmp_path)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["right", "2 others"]
    assert [line.get_alpha() for line in figure.axes[0].lines] == [None, 0.4, 0.4]


def test_relations_are_a_panel_each_and_say_so_where_arms_are_too_few(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    swaps = {("sft", "grounding", "swap_accuracy"): 60.0, ("left", "grounding", "swap_accuracy"): 65.0}
    unknown = Estimate(float("nan"), float("nan"), float("nan"))
    related = (
        Related(Relation("?", "Cover", "swap_accuracy"), Estimate(0.5, -0.2, 0.9), ("sft", "left")),
        Related(Relation("?", "Cover", "CHAIR_i"), unknown, ()),
    )
    found = results(POINTS | swaps, related=related)
    shown = replace(found.experiment, figure=replace(found.experiment.figure, kind="relations"))
    figure = drawn(replace(found, experiment=shown), monkeypatch, tmp_path)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [
        "rank correlation +0.50 [-0.20, +0.90]",
        "too few arms",
    ]
    assert [text.get_text() for text in figure.axes[0].texts] == ["1", "2"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["1  sft", "2  left"]


@pytest.mark.parametrize("kind", ["trade_off", "steps", "bars", "losses", "rewards"])
def test_where_nothing_was_measured_there_is_no_figure_and_no_error(
    kind: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = replace(results({}), columns=())
    shown = replace(found.experiment, figure=replace(found.experiment.figure, kind=kind))
    assert drawn(replace(found, experiment=shown), monkeypatch, tmp_path) is None


def test_an_older_figure_does_not_stay_where_nothing_can_be_drawn(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("figure.png", "figure.svg"):
        (tmp_path / name).write_bytes(b"old")
    found = results({})
    none = replace(found.experiment, figure=replace(found.experiment.figure, kind="none"))
    assert drawn(replace(found, experiment=none), monkeypatch, tmp_path) is None
    assert not list(tmp_path.iterdir())


def test_a_trade_off_takes_both_its_sides_from_one_measure(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    columns = [("scenes", "CHAIR_i"), ("objhal", "Cover"), ("objhal", "CHAIR_i"), ("scenes", "Cover")]
    metric = Metric("a", "b", better="higher")
    found = results({("sft", *column): 10.0 * at for at, column in enumerate(columns, start=1)})
    found = replace(
        found,
        columns=tuple(Column(*column, metric) for column in columns),
        experiment=replace(EXPERIMENT, figure=Figure("trade_off")),
    )
    (axes,) = drawn(found, monkeypatch, tmp_path).axes
    (point,) = axes.containers
    assert point.lines[0].get_xydata().tolist() == [[40.0, 10.0]]


def test_a_trade_off_of_photographs_is_that_of_amber(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    text = FILE.replace("scenes: [CHAIR_i, Cover]", "amber: [CHAIR, Cover]").replace(
        "thresholds", "trade_off"
    )
    experiment = read_experiment(text, "mine", "mine.yaml", lambda: ())
    columns = tuple(Column("amber", name, Metric("a", "b", better="lower")) for name in ("CHAIR", "Cover"))
    names = {"CHAIR_i": "CHAIR", "Cover": "Cover"}
    points = {(arm, "amber", names[name]): value for (arm, _, name), value in POINTS.items()}
    measured = {key: pooled(value) for key, value in points.items()}
    figure = drawn(Results(experiment, columns, measured, {}, ()), monkeypatch, tmp_path)
    (axes,) = figure.axes
    assert "Cover" in axes.get_xlabel() and "CHAIR" in axes.get_ylabel()
    assert [tuple(bar.lines[0].get_xydata()[0]) for bar in axes.containers] == [(82.0, 17.0), (75.0, 11.0)]


def test_a_trade_off_of_several_worlds_is_a_panel_each_of_one_scale(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    worlds = "worlds: {plain: {}, hard: {patch_size: 8}}\nfigure: {kind: trade_off}\n"
    both = read_experiment(FILE[: FILE.index("figure")] + worlds, "mine", "mine.yaml", lambda: ())
    values = {("sft, plain", "scenes", "CHAIR_i"): 17.0, ("sft, plain", "scenes", "Cover"): 82.0}
    values |= {("left, hard", "scenes", "CHAIR_i"): 11.0, ("left, hard", "scenes", "Cover"): 45.0}
    left, right = drawn(replace(results(values), experiment=both), monkeypatch, tmp_path).axes
    assert [axes.get_title(loc="left") for axes in (left, right)] == ["plain", "hard"]
    assert [[text.get_text() for text in axes.texts] for axes in (left, right)] == [["sft"], ["left"]]
    assert left.get_xlim() == right.get_xlim() and left.get_xlim()[0] < 45 < 82 < left.get_xlim()[1]


def test_tables_are_there_when_the_figure_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("no such colour")

    monkeypatch.setattr(figures, "draw_figure", fail)
    found = results(POINTS)
    made = {"sft_seeds": 3, "seeds": 2, "command": "mfpo", "date": "today", "minutes": 1.0, "machine": "mine"}
    made |= {"version": "0", "torch": "0", "minutes_of_steps": 1.0}
    with pytest.raises(ValueError, match="no such colour"):
        write_results(found, Plan(EXPERIMENT, {}, {}, ()), Store(tmp_path), made, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "results.json", "table.md", "table.tex", "table.html",
    }  # fmt: skip
