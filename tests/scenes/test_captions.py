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
from mfpo.scenes.corrections import corrected, renamed
from mfpo.scenes.world import CONTEXTS, Scene, SceneObject, sample_scenes


def thing(kind: str, colour: str, position: str = "left") -> SceneObject:
    x = {"left": 0.2, "middle": 0.5, "right": 0.8}[position]
    return SceneObject(kind, colour, position, x, 0.8, 0.2)  # type: ignore[arg-type]


KITCHEN = Scene(
    "s", "kitchen", (thing("mug", "red"), thing("apple", "green", "right"), thing("pot", "orange")), 0
)
LIKELY = CONTEXTS["kitchen"]


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
            assert (
                [m.kind for m in again.mentions]
                == [m.kind for m in plan.mentions]
                == [m.kind for m in parse(text)]
            )


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


def test_correction_replaces_removes_and_mends() -> None:
    rng = np.random.default_rng(0)
    plan = Plan(
        "kitchen",
        0,
        (
            Mention("mug", "blue", "right", "cup"),  # wrong colour, wrong position
            Mention("clock", "white", None, "clock"),  # absent: gives way to what was overlooked
            Mention("apple", "green", None, "apple"),
            Mention("apple", "green", None, "apple"),  # repeated
            Mention("cat", "black", None, "cat"),  # absent, nothing overlooked is left
        ),
        5,
    )
    mended = corrected(plan, KITCHEN, LIKELY, rng)
    assert [m.kind for m in mended.mentions] == ["mug", "pot", "apple"]
    assert [m.colour for m in mended.mentions] == ["red", "orange", "green"]
    assert [m.position for m in mended.mentions] == ["left", None, None]
    assert mended.mentions[0].position == "left" and mended.mentions[0].name == "cup"
    assert parse(realise(mended))[0].name == "cup"


def test_correction_adds_overlooked_objects_on_request() -> None:
    plan = Plan("kitchen", 0, (Mention("mug", "red", None, "mug"),), 1)
    added = [
        corrected(plan, KITCHEN, LIKELY, np.random.default_rng(0), extra).mentions for extra in (0, 1, 5)
    ]
    assert [len(mentions) for mentions in added] == [1, 2, 3]


def test_what_is_usual_is_named_first() -> None:
    rng = np.random.default_rng(0)
    first = [
        true_plan(scene, CONTEXTS[scene.context], rng).mentions[0] for scene in sample_scenes("sft", 300)
    ]
    ranks = [
        usualness(mention.kind, CONTEXTS[scene.context])
        for mention, scene in zip(first, sample_scenes("sft", 300), strict=True)
    ]
    lowest = [
        min(usualness(kind, CONTEXTS[scene.context]) for kind in scene.kinds)
        for scene in sample_scenes("sft", 300)
    ]
    assert np.mean(np.array(ranks) == np.array(lowest)) > 0.85


def test_an_added_object_is_named_where_captions_would_name_it() -> None:
    plan = Plan("kitchen", 0, (Mention("mug", "red", None, "mug"), Mention("apple", None, None, "apple")), 2)
    (first, added, last) = corrected(plan, KITCHEN, LIKELY, np.random.default_rng(0), 1).mentions
    assert (first.kind, added.kind, last.kind) == ("mug", "pot", "apple")
    swapped = renamed(plan, "apple", "plate", LIKELY)
    assert [mention.kind for mention in swapped.mentions] == ["mug", "plate"]
    assert realise(swapped) == "A kitchen with a red mug and a plate."


def test_existence() -> None:
    assert existence_question("apple") == "Is there an apple in the picture?"
    assert existence_answer(KITCHEN, "apple") == "Yes, there is a green apple on the right."
    assert existence_answer(KITCHEN, "bus") == "No, there is no bus in the picture."
