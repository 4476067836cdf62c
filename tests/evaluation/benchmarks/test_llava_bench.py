"""LLaVA-Bench: prompts, scores of reviews, and saved reviews."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from mfpo.errors import UserError
from mfpo.evaluation import score
from mfpo.evaluation.benchmarks.base import BenchmarkSettings
from mfpo.evaluation.benchmarks.llava_bench import LlavaBenchmark, parse_scores
from mfpo.evaluation.results import ScoreResult

CATEGORIES = ("conv", "detail", "complex", "conv")


def lines(path: Path, rows: list[dict]) -> None:
    path.write_text("\n".join(map(json.dumps, rows)))


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Four questions about two pictures, of both variants."""
    questions = [
        {"question_id": at, "image": f"{at // 2}.jpg", "text": f"Q{at}?", "category": category}
        for at, category in enumerate(CATEGORIES)
    ]
    references = [{"question_id": at, "text": f"Reference {at}"} for at in range(4)]
    boxes = [{"category": "cat", "bbox": [0.1, 0.25, 0.5, 1.0]}, {"category": "dog", "bbox": [0, 0, 1, 1]}]
    lines(tmp_path / "qa90_questions.jsonl", questions)
    lines(tmp_path / "questions.jsonl", questions)
    lines(tmp_path / "qa90_gpt4_answer.jsonl", references)
    lines(tmp_path / "answers_gpt4.jsonl", references)
    lines(
        tmp_path / "caps_boxes_coco2014_val_80.jsonl",
        [{"image": f"{at}.jpg", "captions": [f"One {at}.", "Two."], "instances": boxes} for at in range(2)],
    )
    lines(tmp_path / "context.jsonl", [{"image": f"{at}.jpg", "caption": f"Alone {at}."} for at in range(2)])
    rules = {name: {"role": "Assistant", "prompt": f"Judge {name}."} for name in {*CATEGORIES}}
    rules |= {f"llava_bench_{name}": {"role": "Helper", "prompt": f"Wild {name}."} for name in {*CATEGORIES}}
    (tmp_path / "rule.json").write_text(json.dumps(rules))
    lines(tmp_path / "answers.jsonl", [{"question_id": at, "text": f"Answer {at}"} for at in range(4)])
    return tmp_path


def scored(data_dir: Path, reviews: list[str], mode: str = "official") -> ScoreResult:
    path = data_dir / "reviews.jsonl"
    lines(
        path,
        [
            {"id": at + 1, "question_id": at, "content": text, "category": "x"}
            for at, text in enumerate(reviews)
        ],
    )
    benchmark = LlavaBenchmark(BenchmarkSettings(str(data_dir), mode=mode))  # type: ignore[arg-type]
    return score.score_answers(benchmark, data_dir / "answers.jsonl", judgements=path)


def test_relative_scores_by_hand(data_dir: Path) -> None:
    result = scored(data_dir, ["8 4\nwhy", "10 5", "9,9", "10 8.5"])
    assert {name: result.metrics[name] for name in ("all", "conv", "detail", "complex")} == {
        "all": round(6.625 / 9.25 * 100, 1),
        "conv": round(6.25 / 9 * 100, 1),
        "detail": 50.0,
        "complex": 100.0,
    }
    strict = scored(data_dir, ["8 4\nwhy", "10 5", "9,9", "10 8.5"], "strict").metrics
    assert strict["all"] == pytest.approx(6.625 / 9.25 * 100)


def test_quirk_rounding(data_dir: Path) -> None:
    """Means to three decimals, their ratio to one: 23 / 4 and 27.3333 / 4 are 5.75 and 6.833."""
    reviews = ["7 6", "7 6", "7 5", "6.3333 6"]
    assert scored(data_dir, reviews).metrics["all"] == round(5.75 / 6.833 * 100, 1)
    assert scored(data_dir, reviews, "strict").metrics["all"] == pytest.approx(23 / 27.3333 * 100)
    # Where the three decimals show: 1 / 9000 is 0.0, and nothing can be divided by it.
    tiny = ["0.0001 0.0001"] * 4
    assert math.isnan(scored(data_dir, tiny).metrics["all"])
    assert scored(data_dir, tiny, "strict").metrics["all"] == pytest.approx(100)


def test_quirk_failure_is_minus_1(data_dir: Path) -> None:
    reviews = ["8 4", "10 5", "9 9", "no scores"]
    official, strict = scored(data_dir, reviews), scored(data_dir, reviews, "strict")
    assert official.metrics["all"] == round(round(17 / 4, 3) / round(26 / 4, 3) * 100, 1)
    assert strict.metrics["all"] == pytest.approx(18 / 27 * 100)
    assert official.metrics["parse_failures"] == strict.metrics["parse_failures"] == 0.25
    assert official.items[3]["tuple"] == [-1, -1]
    assert [item["reference_answer"] for item in official.items] == [f"Reference {at}" for at in range(4)]


@pytest.mark.parametrize(
    ("review", "official", "strict"),
    [
        ("8 9\nBoth are fine.", (8, 9), (8, 9)),
        ("8,9", (8, 9), (8, 9)),
        ("8.5 9", (8.5, 9), (8.5, 9)),
        ("8, 9", None, (8, 9)),
        ("8 9 ", None, (8, 9)),
        ("\n8 9", None, (8, 9)),
        ("8/10 9/10", None, (8, 9)),
        ("Assistant 1: 8, Assistant 2: 9", None, None),
        ("80 90", (80, 90), None),
        ("8", None, None),
        ("eight nine", None, None),
        ("", None, None),
    ],
)
def test_quirk_one_blank(review: str, official: tuple | None, strict: tuple | None) -> None:
    assert parse_scores(review, strict=False) == official
    assert parse_scores(review, strict=True) == strict


@pytest.mark.parametrize(
    ("variant", "context", "role", "rule"),
    [
        (
            "coco",
            "One 0.\nTwo.\n\ncat: [0.1, 0.25, 0.5, 1.0]\ndog: [0, 0, 1, 1]",
            "Assistant",
            "Judge detail.",
        ),
        ("wild", "Alone 0.", "Helper", "Wild detail."),
    ],
)
def test_the_prompt_is_the_official_one(
    data_dir: Path, variant: str, context: str, role: str, rule: str
) -> None:
    benchmark = LlavaBenchmark(BenchmarkSettings(str(data_dir), variant=variant))
    answers = {p.id: p for p in benchmark.read_answers(data_dir / "answers.jsonl")}
    request = benchmark.judge_requests(benchmark.load(), answers)[1]
    assert (request.key, request.max_tokens, request.temperature) == ("1", 1024, 0.2)
    assert request.messages == (
        ("system", "You are a helpful and precise assistant for checking the quality of the answer."),
        (
            "user",
            f"[Context]\n{context}\n\n[Question]\nQ1?\n\n[{role} 1]\nReference 1\n\n[End of {role} 1]\n\n"
            f"[{role} 2]\nAnswer 1\n\n[End of {role} 2]\n\n[System]\n{rule}\n\n",
        ),
    )


def test_the_official_files_of_coco_are_read(shared: Path) -> None:
    folder = shared / "data" / "official"
    benchmark = LlavaBenchmark(BenchmarkSettings(str(folder / "llavabench_coco")))
    items = benchmark.load()
    assert len(items) == 90
    assert {item.kind for item in items} == {"conv", "detail", "complex"}
    assert "bounding box coordinates" in items[0].truth.rule


def test_reviews_without_their_text_are_read(data_dir: Path) -> None:
    path = data_dir / "reviews.jsonl"
    lines(path, [{"question_id": at, "tuple": [10.0, 5.0]} for at in range(4)])
    benchmark = LlavaBenchmark(BenchmarkSettings(str(data_dir)))
    assert score.score_answers(benchmark, data_dir / "answers.jsonl", judgements=path).metrics["all"] == 50.0


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"question_id": 9, "text": "a"}], "no question 9"),
        ([{"question_id": 1, "text": "a"}] * 2, "answered twice"),
        ([{"question_id": 1, "text": "a"}], "3 of 4 items have no answer"),
        ([{"text": "a"}], "no number 'question_id'"),
    ],
)
def test_malformed_answers_are_told(data_dir: Path, rows: list[dict], told: str) -> None:
    lines(data_dir / "answers.jsonl", rows)
    with pytest.raises(UserError, match=told):
        scored(data_dir, ["8 9"] * 4)


def test_missing_reviews_and_judges_are_told(data_dir: Path) -> None:
    with pytest.raises(UserError, match="review of question 3 is missing"):
        scored(data_dir, ["8 9"] * 3)
    with pytest.raises(UserError, match="needs a judge"):
        score.score_answers(LlavaBenchmark(BenchmarkSettings(str(data_dir))), data_dir / "answers.jsonl")


def test_missing_data_is_told_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"questions\.jsonl is not there") as error:
        LlavaBenchmark(BenchmarkSettings(str(tmp_path), variant="wild")).load()
    assert "llava-bench-in-the-wild" in error.value.fix
    with pytest.raises(UserError, match="does not exist"):
        LlavaBenchmark(BenchmarkSettings(str(tmp_path / "none"))).load()
