"""MMHal-Bench: prompts, ratings and saved replies."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from mfpo.errors import UserError
from mfpo.evaluation import score
from mfpo.evaluation.benchmarks.base import BenchmarkSettings
from mfpo.evaluation.benchmarks.mmhal import TYPES, MmhalBenchmark, parse_rating
from mfpo.evaluation.benchmarks.prompts import read_prompt
from mfpo.evaluation.results import ScoreResult


def template() -> list[dict[str, Any]]:
    return [
        {
            "question_type": TYPES[at % 8],
            "image_id": f"{at:016x}",
            "image_src": f"https://example.org/{at}.jpg",
            "image_content": ["Cat", "Dog"],
            "question": f"Question {at}?",
            "gt_answer": "Truth {}.",
            "model_answer": "",
        }
        for at in range(96)
    ]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A template of 96 questions, and answers to them."""
    (tmp_path / "response_template.json").write_text(json.dumps(template()))
    answers = [{**row, "model_answer": f"Answer {at}"} for at, row in enumerate(template())]
    (tmp_path / "answers.json").write_text(json.dumps(answers))
    return tmp_path


def scored(data_dir: Path, replies: list[str], mode: str = "official") -> ScoreResult:
    path = data_dir / "replies.json"
    path.write_text(json.dumps([{"choices": [{"message": {"content": reply}}]} for reply in replies]))
    benchmark = MmhalBenchmark(BenchmarkSettings(str(data_dir), mode=mode))  # type: ignore[arg-type]
    return score.score_answers(benchmark, data_dir / "answers.json", judgements=path)


def test_saved_replies_by_hand(data_dir: Path) -> None:
    """Ratings 0 to 5 in turn: mean 2.5, half below 3; type k has ratings (k + 8 j) mod 6."""
    result = scored(data_dir, [f"Fine.\nRating: {at % 6}, so." for at in range(96)])
    assert result.metrics["score"] == 2.5
    assert result.metrics["hallucination_rate"] == 0.5
    assert result.metrics["parse_failures"] == 0
    known = {(item["reference_answer"], item["in_picture"]) for item in result.items}
    assert known == {("Truth {}.", "Cat, Dog")}, "for the report"
    for position, kind in enumerate(TYPES):
        ratings = [at % 6 for at in range(position, 96, 8)]
        assert result.metrics[f"score_{kind}"] == sum(ratings) / 12


def test_quirk_failure_is_0(data_dir: Path) -> None:
    replies = ["Rating: 6"] * 94 + ["I cannot say.", "Rating: 2 or Rating: 5"]
    official, strict = scored(data_dir, replies), scored(data_dir, replies, "strict")
    assert official.metrics["score"] == pytest.approx(94 * 6 / 96)
    assert official.metrics["hallucination_rate"] == pytest.approx(2 / 96)
    assert (strict.metrics["score"], strict.metrics["hallucination_rate"]) == (6.0, 0.0)
    assert official.metrics["parse_failures"] == strict.metrics["parse_failures"] == pytest.approx(2 / 96)
    assert official.settings["modes"]["strict"]["score"] == 6.0


def test_quirk_hallucination_is_below_3(data_dir: Path) -> None:
    for rating, share in ((2, 1.0), (3, 0.0)):
        assert scored(data_dir, [f"Rating: {rating}"] * 96).metrics["hallucination_rate"] == share


@pytest.mark.parametrize(
    ("reply", "official", "strict"),
    [
        ("Rating: 4", 4, 4),
        ("RATING: 4, and again rating: 4", 4, 4),
        ("rating: 0", 0, 0),
        ("Rating:3", None, 3),
        ("**Rating**: 3", None, 3),
        ("Rating: **3**", None, 3),
        ("rating: 10", 1, None),
        ("rating: 7", None, None),
        ("rating: 4.5", 4, None),
        ("Rating: 3 rating: 5", None, None),
        ("", None, None),
    ],
)
def test_quirk_literal_rating(reply: str, official: int | None, strict: int | None) -> None:
    assert parse_rating(reply, strict=False) == official
    assert parse_rating(reply, strict=True) == strict


def test_quirk_type_by_position(data_dir: Path) -> None:
    rows = template()
    rows[0]["question_type"] = "other"
    (data_dir / "response_template.json").write_text(json.dumps(rows))
    replies = ["Rating: 6"] + ["Rating: 0"] * 95
    assert scored(data_dir, replies).metrics["score_attribute"] == 0.5
    assert scored(data_dir, replies, "strict").metrics["score_other"] == pytest.approx(6 / 13)


def test_the_prompt_is_the_official_one(data_dir: Path) -> None:
    """Its text has 6,631 characters; what is filled in is not filled again."""
    text = read_prompt("mmhal_judge.txt")
    assert len(text) == 6631
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "2c73d8c50f1740d0"
    benchmark = MmhalBenchmark(BenchmarkSettings(str(data_dir)))
    answers = {p.id: p for p in benchmark.read_answers(data_dir / "answers.json")}
    request = benchmark.judge_requests(benchmark.load(), answers)[1]
    assert (request.key, request.max_tokens, request.temperature) == ("1", None, 0.0)
    assert request.payload()[0]["role"] == "user"
    assert request.payload()[0]["content"].endswith(
        "### Image Contents\nCat, Dog\n\n### Question\nQuestion 1?\n\n"
        "### Standard Human-Generated Answer\nTruth {}.\n\n### LMM Response to Evaluate\nAnswer 1\n"
    )


def test_the_official_template_is_read(shared: Path) -> None:
    items = MmhalBenchmark(BenchmarkSettings(str(shared / "data" / "official" / "mmhal"))).load()
    assert len(items) == 96
    assert all(item.kind == item.truth[2] for item in items)


def test_answers_of_generate_and_rows_of_replies_are_read(data_dir: Path) -> None:
    answers = data_dir / "answers.jsonl"
    answers.write_text("\n".join(json.dumps({"id": str(at), "answer": "a"}) for at in range(96)))
    replies = data_dir / "replies.jsonl"
    replies.write_text(
        "\n".join(json.dumps({"key": str(at), "reply": "rating: 3"}) for at in reversed(range(96)))
    )
    benchmark = MmhalBenchmark(BenchmarkSettings(str(data_dir)))
    assert score.score_answers(benchmark, answers, judgements=replies).metrics["score"] == 3.0


def test_a_judge_is_needed(data_dir: Path) -> None:
    with pytest.raises(UserError, match=r"mmhal needs a judge \(gpt-4-0314\)"):
        score.score_answers(MmhalBenchmark(BenchmarkSettings(str(data_dir))), data_dir / "answers.json")


@pytest.mark.parametrize(
    ("replies", "told"),
    [
        ([{"choices": [{"message": {"content": "rating: 1"}}]}] * 95, "95 replies for 96"),
        ([{"choices": []}] * 96, r"no choices\[0\]"),
        ([{"choices": [{"message": {"content": None}}]}] * 96, r"no choices\[0\]"),
        ([{"key": "0", "reply": "rating: 1"}] * 2, "answered twice"),
        ([{"key": "0", "reply": "rating: 1"}], "reply about question 1 is missing"),
        ([{"key": "0"}], "no text 'reply'"),
    ],
)
def test_malformed_replies_are_told(data_dir: Path, replies: list[dict], told: str) -> None:
    path = data_dir / "replies.json"
    path.write_text(json.dumps(replies))
    with pytest.raises(UserError, match=told):
        score.score_answers(
            MmhalBenchmark(BenchmarkSettings(str(data_dir))), data_dir / "answers.json", judgements=path
        )


def test_answers_in_another_order_are_told(data_dir: Path) -> None:
    path = data_dir / "answers.json"
    path.write_text(json.dumps(json.loads(path.read_text())[::-1]))
    with pytest.raises(UserError, match="keep the order of the template"):
        MmhalBenchmark(BenchmarkSettings(str(data_dir))).read_answers(path)
    path.write_text(json.dumps(json.loads(path.read_text())[:95]))
    with pytest.raises(UserError, match="95 answers for 96 questions"):
        MmhalBenchmark(BenchmarkSettings(str(data_dir))).read_answers(path)
