"""Results of experiments as tables, made by hand."""

from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from mfpo.evaluation.statistics import Difference, Metric
from mfpo.experiments.pooled import Pooled
from mfpo.experiments.reading import read_experiment
from mfpo.experiments.render import main_grid, print_results, remarks, to_html, to_latex, to_markdown
from mfpo.experiments.results import Results
from mfpo.experiments.schema import Claim
from mfpo.experiments.verdicts import Column, Verdict

FILE = """
title: methods side by side
arms: [{name: sft}, {name: dpo+margin}, {name: "no-margin, lr of mfpo"}]
metrics: {scenes: [CHAIR_s, CHAIR_i, Cover, F1, Cog, words], grounding: [swap_accuracy, removal_accuracy]}
paper: {columns: [MMHal score, ObjHal CHAIR_s], rows: {sft: [2.07, 53.6], another method: [2.5, 40.0]}}
"""
EXPERIMENT = read_experiment(FILE, "mine", "mine.yaml", lambda: ())
COLUMNS = tuple(
    Column(measure, name, Metric("a", "b", better="higher"))
    for measure, names in EXPERIMENT.metrics.items()
    for name in names
)
MADE: dict[str, Any] = {
    "sft_seeds": 1, "seeds": 1, "command": "mfpo", "date": "today", "machine": "mine", "minutes": 0.2,
    "version": "0", "torch": "0", "minutes_of_steps": 0.4,
}  # fmt: skip


def results(spread: float = 1.0) -> Results:
    pooled = {
        (arm.name, column.measure, column.name): Pooled(
            np.array([[50.0 + at]]), 50.0 + at + spread * np.linspace(-1, 1, 41)[None], 100
        )
        for at, arm in enumerate(EXPERIMENT.arms)
        for column in COLUMNS
    }
    claim = Claim(
        "a long claim that is checked by two metrics", "dpo+margin", ("sft",), ("CHAIR_s", "CHAIR_i")
    )
    effect = Difference(1.0, 0.5, 1.5, 0.01)
    verdicts = [Verdict(claim, "sft", column, effect, "confirmed") for column in COLUMNS[:2]]
    return Results(EXPERIMENT, COLUMNS, pooled, {}, tuple(verdicts))


def shown(width: int) -> str:
    file = io.StringIO()
    print_results(results(), MADE, Console(file=file, width=width))
    return file.getvalue()


@pytest.mark.parametrize("width", [72, 80, 100, 140, 250])
def test_no_word_of_a_table_is_broken_in_a_narrow_terminal(width: int) -> None:
    text = shown(width)
    assert max(map(len, text.splitlines())) <= width
    table = text[: text.index("claims of the paper")]
    for name in [arm.name for arm in EXPERIMENT.arms] + [column.name for column in COLUMNS]:
        assert name in table, name
    assert table.count("50.0") == len(COLUMNS)


def test_the_paper_s_numbers_and_intervals_are_shown_where_there_is_room() -> None:
    wide, middle, narrow = shown(250), shown(150), shown(80)
    assert "[49.0, 51.0]" not in middle and "53.6" in middle and "another method" in middle
    assert "53.6" in wide and "paper:" in wide
    assert "53.6" not in narrow and "another method" not in narrow
    assert len(re.findall(r"^ dpo\+margin ", narrow, re.MULTILINE)) > 1, "cut into several tables"


def test_a_claim_is_told_once() -> None:
    assert shown(250).count("a long claim that is checked by two metrics") == 1
    assert to_markdown(results(), MADE).count("a long claim that is checked by two metrics") == 2


def test_one_of_a_thing_has_no_plural() -> None:
    assert "over 1 SFT seed x 1 training seed;" in to_markdown(results(), MADE)
    assert "took 1 minute," in to_markdown(results(), MADE)


def test_the_page_knows_the_colours_of_its_figure() -> None:
    page = to_html(results(), MADE, '<svg fill="var(--fig-blue)" stroke="var(--rule)"></svg>')
    for name in set(re.findall(r"var\((--[\w-]+)\)", page)):
        assert re.search(rf"{name}:", page), name


def test_an_interval_of_a_share_ends_where_the_share_does() -> None:
    found = results(spread=60.0).estimate("sft", COLUMNS[0])
    assert found is not None and (found.low, found.high) == (0.0, 100.0)
    below = Column("scenes", "CHAIR_s", Metric({"a": 1, "b": -1}, "b"))
    found = results(spread=60.0).estimate("sft", below)
    assert found is not None and found.low < 0.0, "a difference may be negative"


def test_of_several_worlds_each_is_told_and_each_arm_once() -> None:
    """Stars compare within a world: scenes of two worlds are not the same scenes."""
    text = (
        "title: two worlds\nmetrics: {scenes: [F1]}\n"
        "worlds: {plain: {}, hard: {co_occurrence: 0.5, patch_size: 8}}\n"
        "arms: [{name: sft, text: before}, {name: dpo, text: after, train: {objective: dpo}, tune: sft}]"
    )
    experiment = read_experiment(text, "mine", "mine.yaml", lambda: ())
    lines = remarks(Results(experiment, (), {}, {}, ()), MADE)
    assert "paired difference to sft of the same world," in lines[0]
    assert lines[1:-1] == [
        "sft: before.",
        "dpo: after.",
        "World plain: nothing changed.",
        "World hard: co_occurrence 0.5, patch_size 8.",
    ]


def test_the_page_says_what_the_intervals_cover() -> None:
    told = [
        remarks(results(), MADE | {"sft_seeds": sft_seeds, "seeds": seeds})[0]
        for sft_seeds, seeds in ((1, 1), (1, 2), (3, 1))
    ]
    assert "items only" in told[0]
    assert "training seeds of one model and items" in told[1]
    assert "over SFT seeds, training seeds and items" in told[2]


def test_metrics_of_one_name_are_told_apart() -> None:
    metric = Metric("a", "b", better="higher")
    columns = (
        Column("amber", "Accuracy", metric),
        Column("pope", "Accuracy", metric),
        Column("pope", "F1", metric),
    )
    header = main_grid(Results(EXPERIMENT, columns, {}, {}, ())).header
    assert header[1:4] == ("amber Accuracy ↑", "pope Accuracy ↑", "F1 ↑")


def test_latex_stays_latex_whatever_the_texts_say() -> None:
    found = replace(results(), notes=("one line\nand $elsewhere",))
    nan = float("nan")
    verdict = replace(found.verdicts[0], effect=Difference(1.0, nan, nan, nan))
    text = to_latex(replace(found, verdicts=(verdict,)), MADE)
    body = [line for line in text.splitlines() if not line.startswith("%")]
    assert "% one line and $elsewhere" in text.splitlines()
    assert not any("elsewhere" in line or "nan" in line or "−" in line for line in body)
    assert r"dpo+margin $-$ sft" in text
