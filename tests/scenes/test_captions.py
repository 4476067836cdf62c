from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mfpo.scenes.captions import (
    Mention,
    Plan,
    existence_answer,
    existence_question,
    faulty_plan,
    parse,
    parse_plan,
    realise,
    true_plan,
    usualness,
)
from mfpo.scenes.world import CONTEXTS, Scene, SceneObject, sample_scenes


def test_reading_a_text_back() -> None:
    text = "In this kitchen, there is a red cup on the left, an orange pot and two knives. The BIKE is blue."
    found = parse(text)
    assert [(m.kind, m.colour, m.position) for m in found] == [
        ("mug", "red", "left"),
        ("pot", "orange", None),
        ("knife", None, None),
        ("bicycle", None, None),
    ]
    assert text[found[0].start : found[0].end] == "red cup"


@pytest.mark.parametrize("word", ["carpet", "potato", "business", "signal", "cats-eye", "streets"])
def test_names_inside_other_words_are_no_mentions(word: str) -> None:
    assert [m.kind for m in parse(f"a {word}")] in ([], ["cat"] if word == "cats-eye" else [])


def test_wording() -> None:
    plan = Plan(
        "kitchen", 0, (Mention("mug", "red", "left", "cup"), Mention("apple", "orange", None, "apple")), 2
    )
    assert realise(plan) == "A kitchen with a red cup on the left and an orange apple."
    split = replace(plan, split=1, addition=1)
    assert realise(split) == "A kitchen with a red cup on the left. You can also see an orange apple."


def test_every_caption_reads_back_to_its_plan() -> None:
    rng = np.random.default_rng(0)
    for scene in sample_scenes("sft", 400):
        for plan in (
            true_plan(scene, CONTEXTS[scene.context], rng),
            faulty_plan(scene, CONTEXTS[scene.context], rng, absent_rate=0.6, drop_rate=0.2),
        ):
            text = realise(plan)
            again = parse_plan(text)
            assert again is not None and realise(again) == text
            assert (again.mentions, again.split) == (plan.mentions, plan.split)
            told = [(m.kind, m.colour, m.position, m.name) for m in plan.mentions]
            assert told == [(m.kind, m.colour, m.position, m.name) for m in parse(text)]


def test_true_captions_are_complete_and_true() -> None:
    rng = np.random.default_rng(1)
    for scene in sample_scenes("sft", 200):
        mentions = parse(realise(true_plan(scene, CONTEXTS[scene.context], rng)))
        assert {m.kind for m in mentions} == scene.kinds
        for mention in mentions:
            item = scene.find(mention.kind)
            assert item is not None and mention.colour in (None, item.colour)
            assert mention.position in (None, item.position)


def test_what_is_no_caption_is_not_understood() -> None:
    assert parse_plan("A kitchen with a red a red mug.") is None
    assert parse_plan("The mug is red.") is None
    assert parse_plan("A kitchen with a redd mug.") is None
    assert parse_plan("A kitchen with a red mug. There is also .") is None


def test_what_is_usual_is_named_first() -> None:
    rng = np.random.default_rng(0)
    usual = []
    for scene in sample_scenes("sft", 300):
        likely = CONTEXTS[scene.context]
        first = true_plan(scene, likely, rng).mentions[0]
        usual.append(usualness(first.kind, likely) == min(usualness(kind, likely) for kind in scene.kinds))
    assert 0.85 < np.mean(usual) < 1.0


def test_existence() -> None:
    assert existence_question("apple") == "Is there an apple in the picture?"
    scene = Scene("s", "kitchen", (SceneObject("apple", "green", "right", 0.8, 0.8, 0.2),), 0)
    assert existence_answer(scene, "apple") == "Yes, there is a green apple on the right."
    assert existence_answer(scene, "bus") == "No, there is no bus in the picture."
