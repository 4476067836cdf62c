"""Items of a report: what makes an answer bad, their order, their marks and their pictures."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from mfpo.evaluation.benchmarks import load_benchmark
from mfpo.evaluation.benchmarks.base import BenchmarkSettings
from mfpo.evaluation.results import ScoreResult, score_result
from mfpo.evaluation.statistics import Metric
from mfpo.records import Prediction
from mfpo.report.items.judgement import judge
from mfpo.report.items.pictures import ItemPictures
from mfpo.report.items.records import ItemSection
from mfpo.report.items.sections import LONGEST_ANSWER, item_section

AMBER = {
    "chair_score": 2,
    "chair_num": 5,
    "hallucinated": ["cat", "cat"],
    "safe_cover_score": 3,
    "safe_cover_num": 4,
}
YES_NO = {"qa_correct_num": 1, "qa_correct_score": 0, "qa_no_num": 1, "qa_ans_no_num": 0, "qa_unparsed": 0}
COCO = {
    "mentions": 3,
    "hallucinated_mentions": 2,
    "recalled": 1,
    "gt_objects": 5,
    "mscoco_hallucinated_words": [["giraffe", "giraffe"], ["elephant", "elephant"]],
}
POPE = {"right": 0, "said_yes": 1, "unparsed": 0, "label": "no"}


@pytest.mark.parametrize(
    ("record", "badness", "faulty", "verdict"),
    [
        (AMBER, 2, True, "2 of 5 nouns hallucinated (cat); 3 of 4 objects named"),
        (YES_NO, 1, True, "wrong: taken for yes, no is right"),
        (YES_NO | {"qa_unparsed": 1}, 1, True, "wrong: taken for neither, no is right"),
        (YES_NO | {"qa_correct_score": 1, "qa_ans_no_num": 1}, 0, False, "right"),
        (COCO, 2, True, "2 of 3 mentions absent (giraffe, elephant); 1 of 5 objects named"),
        (
            {"mentions": 2, "absent_mentions": 0, "named_present": 2, "present": 2},
            0,
            False,
            "0 of 2 mentions absent; 2 of 2 objects named",
        ),
        (POPE, 1, True, "wrong: taken for yes, no is right"),
        (POPE | {"said_yes": 0, "label": "yes"}, 1, True, "wrong: taken for no, yes is right"),
        ({"rating": 2, "rated": 1, "unparsed": 0}, 4, True, "rated 2 of 6"),
        ({"rating": 3.5, "rated": 1, "unparsed": 0}, 2.5, False, "rated 3.5 of 6"),
        # In strict mode the mean of 4, 4 and a reply that cannot be read.
        ({"rating": 8 / 3, "rated": 2 / 3, "unparsed": 1 / 3}, 2, False, "rated 4 of 6"),
        ({"reference_score": 8.0, "model_score": 5.0}, 3, True, "5 points, GPT-4's answer 8"),
        ({"reference_score": 7.0, "model_score": 9.0}, -2, False, "9 points, GPT-4's answer 7"),
        ({"absent_spans": [[0, 2], [4, 6]]}, 2, True, "2 absent"),
        ({}, 0, False, ""),
    ],
)
def test_badness_by_benchmark(record: dict[str, Any], badness: float, faulty: bool, verdict: str) -> None:
    found = judge(record)
    assert (found.badness, found.faulty, found.verdict) == (badness, faulty, verdict)


@pytest.mark.parametrize(
    "record",
    [
        {"rating": 0, "rated": 0, "unparsed": 1},
        {"reference_score": -1.0, "model_score": -1.0, "unparsed": 1},
        {"answers": 1, "unparsed": 1},
    ],
)
def test_an_answer_that_no_judge_has_judged_has_no_badness(record: dict[str, Any]) -> None:
    found = judge(record)
    assert found.badness is None and not found.faulty and "could not be read" in found.verdict


def test_the_official_zero_for_an_unreadable_reply_says_so() -> None:
    assert "cannot read" in judge({"rating": 0, "rated": 1, "unparsed": 1}).verdict


def scored(answers: dict[str, str], name: str = "made-up", **more: Any) -> ScoreResult:
    """Scores in which every `cat` is absent and every `mug` present."""
    records = [
        {
            "id": key,
            "image": f"{key}.png",
            "question": "What?",
            "answer": answer,
            "absent_spans": [[i, i + 3] for i in range(len(answer)) if answer.startswith("cat", i)],
            "present_spans": [[i, i + 3] for i in range(len(answer)) if answer.startswith("mug", i)],
            "n": 1,
            **more,
        }
        for key, answer in answers.items()
    ]
    return score_result(name, records, {"n": Metric("n", "n")}, {})


def section(*results: ScoreResult | None, **settings: Any) -> ItemSection:
    labels = [f"run {place}" for place in range(len(results))]
    found = item_section("made-up", results, labels, **settings)
    assert found is not None
    return found


def test_worst_of_all_runs_together_come_first_and_equal_ones_keep_their_order() -> None:
    first = scored({"a": "cat", "b": "mug", "c": "cat cat", "d": "mug"})
    second = scored({"a": "mug", "b": "cat cat", "c": "cat", "d": "mug"})
    # Means of the two runs: a 0.5, b 1, c 1.5, d 0.
    assert [item.id for item in section(first, second).items] == ["c", "b", "a", "d"]
    assert [item.id for item in section(scored({"x": "mug", "y": "mug"})).items] == ["x", "y"]


def test_an_item_that_a_run_lacks_is_ordered_by_the_others() -> None:
    found = section(scored({"a": "cat", "b": "mug"}), None, scored({"b": "cat cat cat"}))
    assert [item.id for item in found.items] == ["b", "a"]
    assert [answer is None for answer in found.items[1].answers] == [False, True, True]


def test_unjudged_items_come_last() -> None:
    result = scored({"a": "mug", "b": "mug"})
    result.items[0] = {k: v for k, v in result.items[0].items() if "spans" not in k} | {"unparsed": 1}
    assert [item.id for item in section(result).items] == ["b", "a"]


def test_changes_count_faulty_answers_against_the_first_run() -> None:
    first = scored({"a": "cat", "b": "mug", "c": "cat", "d": "mug", "e": "cat"})
    second = scored({"a": "mug", "b": "cat", "c": "cat", "d": "mug"})
    (change,) = section(first, second).changes
    assert (change.before, change.run) == ("run 0", "run 1")
    assert (change.total, change.cleared, change.introduced, change.both) == (4, 1, 1, 1)


def test_words_are_marked_and_long_answers_are_cut() -> None:
    found = section(scored({"a": "A mug and a cat.", "b": "x" * (LONGEST_ANSWER + 7)}))
    assert found.items[0].answers[0].pieces == ("A ", ("mug", "present"), " and a ", ("cat", "absent"), ".")  # type: ignore[union-attr]
    assert found.items[1].answers[0].cut == 7  # type: ignore[union-attr]


def test_what_is_right_is_said_where_the_record_knows_it() -> None:
    right = [
        section(scored({"a": "mug"}, **more)).items[0].truth
        for more in (
            {},
            {"label": "no"},
            {"mscoco_gt_words": ["bench", "dog"]},
            {"mscoco_gt_words": []},
            {"reference_answer": "Two.", "in_picture": "mug, cat"},
        )
    ]
    assert right == [
        "",
        "Right answer: no",
        "In the picture: bench, dog",
        "In the picture: none of the objects",
        "Reference answer: Two.\nIn the picture: mug, cat",
    ]


def test_replies_of_repeated_judgements_are_all_there() -> None:
    once, twice = (
        scored({"a": "mug"}, reply="Good."),
        scored({"a": "mug"}, reply="A", judge_replies=["A", "B"]),
    )
    answers = section(once, twice).items[0].answers
    assert [answer.replies for answer in answers if answer] == [("Good.",), ("A", "B")]


def test_probes_have_no_items() -> None:
    result = score_result("distortion", [{"id": "1", "rows": 1}], {"rows": Metric("rows", "rows")}, {})
    assert item_section("distortion", [result], ["run"]) is None


def chair_scores(folder: Path, images: dict[str, str]) -> ScoreResult:
    records = [
        {"id": key, "image": name, "answer": "cat", "absent_spans": [[0, 3]], "n": 1}
        for key, name in images.items()
    ]
    return score_result("chair", records, {"n": Metric("n", "n")}, {"data_dir": str(folder)})


def test_pictures_are_of_the_worst_items_and_small(tmp_path: Path) -> None:
    Image.new("RGB", (900, 600), "red").save(tmp_path / "1.jpg")
    Image.new("RGB", (90, 60), "red").save(tmp_path / "2.jpg")
    result = chair_scores(tmp_path, {"1": "1.jpg", "2": "2.jpg", "3": "1.jpg"})
    found = section(result, num_pictures=2)
    assert [item.picture for item in found.items] == [0, 1, -1]
    assert (found.looked, found.unfound) == (2, 0)
    assert found.pictures[0].startswith("data:image/jpeg") and len(found.pictures[0]) < 10_000
    assert found.pictures[1].startswith("data:image/png")


def test_a_picture_that_is_not_there_or_cannot_be_used_leaves_its_reason(tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    (tmp_path / "bomb.png").write_bytes(_bomb())
    names = ("gone.jpg", "broken.jpg", "bomb.png", "../secret.png", "/secret.png")
    result = chair_scores(tmp_path, {str(place): name for place, name in enumerate(names)})
    Image.new("RGB", (9, 9)).save(tmp_path.parent / "secret.png")
    found = section(result)
    assert [item.picture for item in found.items] == [-1] * 5 and found.unfound == 5
    problems = [item.problem for item in found.items]
    assert problems[0] == "not found" and problems[2] == "image-too-large"
    assert problems[3] == problems[4] == "its name leads out of the benchmark's folder"


def test_another_folder_of_pictures_can_be_named(tmp_path: Path) -> None:
    Image.new("RGB", (90, 60), "red").save(tmp_path / "1.jpg")
    result = chair_scores(tmp_path / "elsewhere", {"1": "1.jpg"})
    assert ItemPictures(result).find(result.items[0]) == (-1, "not found")
    assert ItemPictures(result, str(tmp_path)).find(result.items[0]) == (0, "")
    there = chair_scores(tmp_path, {"1": "1.jpg"})
    assert ItemPictures(there, str(tmp_path / "elsewhere")).find(there.items[0]) == (0, "")


def test_scenes_are_drawn_again() -> None:
    benchmark = load_benchmark("scenes", BenchmarkSettings(num_samples=2))
    items = benchmark.load()
    answers = {item.id: Prediction(item.id, item.question, "A mug and a car.") for item in items}
    found = section(benchmark.score(items, answers, None))
    # Three items of a scene share its picture.
    assert len(found.items) == 6 and len(found.pictures) == 2
    assert {item.kind for item in found.items} == {"describe", "exists"}


def _bomb() -> bytes:
    """A PNG that says it is 60,000 pixels wide and high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
