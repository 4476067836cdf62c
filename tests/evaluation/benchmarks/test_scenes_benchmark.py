"""Counts and metrics of the scenes benchmark against values worked out by hand."""

from __future__ import annotations

import pytest

from mfpo.errors import UserError
from mfpo.evaluation.benchmarks import load_benchmark
from mfpo.evaluation.benchmarks.base import BenchmarkSettings, Item
from mfpo.evaluation.benchmarks.scenes import (
    Existence,
    ScenesBenchmark,
    count_answer,
    count_mentions,
)
from mfpo.evaluation.mentions.yes_no import yes_or_no
from mfpo.records import Prediction
from mfpo.scenes.captions import Mention, existence_answer, parse, realise, true_plan
from mfpo.scenes.world import CONTEXTS, Scene, SceneObject, sample_scene


def thing(kind: str, colour: str, position: str) -> SceneObject:
    return SceneObject(kind, colour, position, 0.5, 0.8, 0.2)  # type: ignore[arg-type]


# kitchen: mug .8, plate .65, pot .55, bottle .5, apple .4, knife .35 are likely, chair .25 and less are not
KITCHEN = Scene(
    "test-0-000001", "kitchen", (thing("mug", "red", "left"), thing("plate", "green", "right")), 0
)
PARK = Scene(
    "test-0-000002",
    "park",
    (thing("tree", "green", "left"), thing("dog", "black", "middle"), thing("kite", "blue", "right")),
    0,
)
ANSWERS = {
    # 4 mentions: mug right; plate in the right place, wrong colour; pot absent but likely; cat absent.
    KITCHEN.id: "A kitchen with a red mug, a blue plate on the right, a white pot and a black cat.",
    # 4 mentions of 2 kinds: the tree twice, the dog twice and once in the wrong place; nothing absent.
    PARK.id: "A park with a green tree and a black dog on the left. "
    "There is also a tree and a dog in the middle.",
}


@pytest.fixture(scope="module")
def result():
    items = [
        Item(f"{scene.id}/describe", "Describe.", "x.png", "describe", scene.id, scene)
        for scene in (KITCHEN, PARK)
    ]
    answers = {item.id: Prediction(item.id, item.question, ANSWERS[item.group]) for item in items}
    for scene, kind, present, likely, answer in (
        (KITCHEN, "mug", True, True, "Yes, there is a red mug on the left."),
        (KITCHEN, "knife", False, True, "Yes, there is a white knife."),
        (PARK, "clock", False, False, "No, there is no clock."),
        (PARK, "bench", False, True, "There is no bench."),
    ):
        items.append(
            Item(f"{scene.id}/{kind}", "?", "x.png", "exists", scene.id, Existence(kind, present, likely))
        )
        answers[items[-1].id] = Prediction(items[-1].id, "?", answer)
    return ScenesBenchmark().score(items, answers)


@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        ("CHAIR_s", 100 * 1 / 2),
        ("CHAIR_i", 100 * 2 / 8),
        ("Cover", 100 * (2 + 2) / (2 + 3)),
        # Likely but absent: pot, bottle, apple, knife; bench, ball, flower, bicycle.
        ("Cog", 100 * 1 / 8),
        ("precision", 100 * 4 / (4 + 2)),
        ("recall", 100 * 4 / 5),
        ("F1", 100 * 2 * 4 / (2 * 4 + 2 + 1)),
        # Colours given for objects that are there: mug, plate, tree, dog; the plate's is wrong.
        ("colour", 100 * 3 / 4),
        # Positions given: plate right, first dog wrong, second dog right.
        ("position", 100 * 2 / 3),
        ("words", (19 + 24) / 2),
        ("repeats", 0.0),
        # An answer that begins with neither yes nor no is wrong.
        ("yes_no", 100 * 2 / 4),
        ("yes_no_likely", 0.0),
        ("yes", 100 * 2 / 4),
    ],
)
def test_metrics_by_hand(result, metric: str, expected: float) -> None:
    assert result.metrics[metric] == pytest.approx(expected)
    low, high = result.intervals[metric]
    assert low <= expected <= high


def test_f1_is_the_harmonic_mean_of_precision_and_recall(result) -> None:
    p, r = result.metrics["precision"], result.metrics["recall"]
    assert result.metrics["F1"] == pytest.approx(2 * p * r / (p + r))


def test_spans_mark_the_hallucinated_words(result) -> None:
    record = result.items[0]
    assert [record["answer"][start:end] for start, end in record["absent_spans"]] == [
        "white pot",
        "black cat",
    ]
    assert [record["answer"][start:end] for start, end in record["wrong_spans"]] == ["blue plate"]


def test_an_answer_that_mentions_nothing() -> None:
    counts = count_mentions(parse("A nice place."), {"mug": ("red", "left")}, {"plate"})
    assert (counts["mentions"], counts["with_absent"], counts["named_present"], counts["present"]) == (
        0,
        0,
        0,
        1,
    )


def test_a_repeated_absent_object_counts_per_mention_for_chair_and_once_for_f1() -> None:
    counts = count_mentions([Mention("cat"), Mention("cat")], {"mug": ("red", "left")}, {"cat", "mug"})
    assert (counts["absent_mentions"], counts["named_absent"], counts["likely"], counts["named_likely"]) == (
        2,
        1,
        1,
        1,
    )


@pytest.mark.parametrize(
    ("answer", "repetitive"),
    [
        ("A kitchen with a red mug, a mug and a black cat.", 0),
        ("A kitchen with a red mug and a black cat and a cat and a blue cat", 1),
        ("no cat no cat no cat", 1),
        ("", 0),
    ],
)
def test_a_description_that_names_one_object_again_and_again_repeats_itself(
    answer: str, repetitive: int
) -> None:
    assert count_mentions(parse(answer), {"mug": ("red", "left")}, {"cat"})["repetitive"] == repetitive


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("Yes.", True),
        ("no", False),
        (" **No**, it is not", False),
        ("Nothing", None),
        ("I think yes", None),
        ("", None),
    ],
)
def test_yes_or_no(answer: str, said: bool | None) -> None:
    assert yes_or_no(answer) is said


def test_an_unclear_answer_is_wrong_and_no_yes() -> None:
    assert count_answer("Maybe", Existence("mug", False, False)) == {
        "questions": 1,
        "right": 0,
        "said_yes": 0,
    }


def test_true_captions_and_answers_are_perfect() -> None:
    import numpy as np

    benchmark = ScenesBenchmark(BenchmarkSettings(num_samples=40))
    items = benchmark.load()
    answers = {}
    for item in items:
        scene = sample_scene("test", int(item.group.split("-")[2]))
        if item.kind == "describe":
            answer = realise(true_plan(scene, CONTEXTS[scene.context], np.random.default_rng(0)))
        else:
            answer = existence_answer(scene, item.truth.kind)
        answers[item.id] = Prediction(item.id, item.question, answer)
    metrics = benchmark.score(items, answers).metrics
    assert {name for name, value in metrics.items() if value == 0} == {"CHAIR_s", "CHAIR_i", "Cog", "repeats"}
    for name in ("Cover", "precision", "recall", "F1", "colour", "position", "yes_no", "yes_no_likely"):
        assert metrics[name] == 100
    assert metrics["yes"] == 50


def test_items_are_fixed_unique_and_nested() -> None:
    few, more = (ScenesBenchmark(BenchmarkSettings(num_samples=n)).load() for n in (3, 5))
    assert few == more[: len(few)]
    assert len({item.id for item in more}) == len(more) == 15
    assert all(item.truth.present == (item.truth.kind in sample_scene("test", n // 3).kinds)
               for n, item in enumerate(more) if item.kind == "exists")  # fmt: skip
    other = ScenesBenchmark(BenchmarkSettings(split="validation", num_samples=5)).load()
    assert not {item.id for item in other} & {item.id for item in more}


def test_pictures_are_those_of_the_scenes() -> None:
    from mfpo.scenes.render import draw

    benchmark = ScenesBenchmark(BenchmarkSettings(num_samples=2))
    item = benchmark.load()[-1]
    picture = benchmark.open_image(item)
    assert picture.mode == "RGB"
    assert picture.tobytes() == draw(sample_scene("test", 1)).image.tobytes()


def test_training_splits_and_unknown_names_are_refused() -> None:
    with pytest.raises(UserError, match="for training"):
        load_benchmark("scenes", BenchmarkSettings(split="train"))
    with pytest.raises(UserError, match="did you mean 'scenes'"):
        load_benchmark("scene")
    with pytest.raises(UserError, match="at least one"):
        load_benchmark("scenes", BenchmarkSettings(num_samples=0))
