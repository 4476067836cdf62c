from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mfpo.scenes.captions import Mention, Plan, parse, realise
from mfpo.scenes.corrections import corrected, renamed
from mfpo.scenes.world import CONTEXTS, Scene, SceneObject


def thing(kind: str, colour: str, position: str = "left") -> SceneObject:
    x = {"left": 0.2, "middle": 0.5, "right": 0.8}[position]
    return SceneObject(kind, colour, position, x, 0.8, 0.2)  # type: ignore[arg-type]


KITCHEN = Scene(
    "s", "kitchen", (thing("mug", "red"), thing("apple", "green", "right"), thing("pot", "orange")), 0
)
LIKELY = CONTEXTS["kitchen"]


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


def test_an_added_object_is_named_where_captions_would_name_it() -> None:
    plan = Plan("kitchen", 0, (Mention("mug", "red", None, "mug"), Mention("apple", None, None, "apple")), 2)
    (first, added, last) = corrected(plan, KITCHEN, LIKELY, np.random.default_rng(0), 1).mentions
    assert (first.kind, added.kind, last.kind) == ("mug", "pot", "apple")
    swapped = renamed(plan, "apple", "plate", LIKELY)
    assert [mention.kind for mention in swapped.mentions] == ["mug", "plate"]
    assert realise(swapped) == "A kitchen with a red mug and a plate."


@pytest.mark.parametrize("colour", [None, "white"])
@pytest.mark.parametrize("position", [None, "left"])
def test_a_replacement_says_as_much_as_what_it_replaces(colour: str | None, position: str | None) -> None:
    wrong = Mention("clock", colour, position, "clock")  # type: ignore[arg-type]
    plan = Plan("kitchen", 0, (Mention("mug", None, None, "mug"), wrong), 2)
    (_, new) = corrected(plan, KITCHEN, LIKELY, np.random.default_rng(0)).mentions
    assert new.kind in ("pot", "apple")
    assert ((new.colour is None), (new.position is None)) == ((colour is None), (position is None))


@pytest.mark.parametrize("absent", [0, 1, 2])
def test_two_sentences_stay_two(absent: int) -> None:
    names = ["mug", "pot", "apple"]
    names[absent] = "clock"
    scene = replace(KITCHEN, objects=tuple(o for o in KITCHEN.objects if o.kind in names))
    plan = Plan("kitchen", 0, tuple(Mention(name, None, None, name) for name in names), 2)
    mended = corrected(plan, scene, LIKELY, np.random.default_rng(0))
    assert realise(plan).count(".") == realise(mended).count(".") == 2
