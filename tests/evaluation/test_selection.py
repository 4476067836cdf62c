"""Which items are scored: a skipped item moves no other one into its place and into no denominator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from chat_server import chat_server
from mfpo.errors import Skip, UserError
from mfpo.evaluation import score
from mfpo.evaluation.answers import skips_path
from mfpo.evaluation.benchmarks import load_benchmark
from mfpo.evaluation.benchmarks.base import BenchmarkSettings
from mfpo.evaluation.config import EvalConfig, ScoreConfig
from mfpo.evaluation.results import ScoreResult
from small_benchmarks import SMALL, SmallBenchmark, write_lines


def scored(
    folder: Path, small: SmallBenchmark, answers: Mapping[str, str], skipped: str = "", **settings: Any
) -> ScoreResult:
    """Score answers in the form of `mfpo generate`, in the given order, with an item that it skipped."""
    rows = [{"id": key, "answer": text} for key, text in answers.items()]
    path = write_lines(folder / "answers.jsonl", rows)
    skips_path(path).unlink(missing_ok=True)
    if skipped:
        write_lines(skips_path(path), [Skip(skipped, "truncated-image", "ends early").to_dict()])
    config = {**small.settings, **settings}
    output = folder / "scores.json"
    score.run_score(
        ScoreConfig(
            benchmark=small.name,
            predictions=str(path),
            data_dir=str(folder),
            output_file=str(output),
            **config,
        )
    )
    return ScoreResult.load(output)


def ids(result: ScoreResult) -> list[str]:
    return [str(item["id"]) for item in result.items]


@pytest.mark.parametrize("name", ["chair", "objhal"])
def test_a_skipped_image_moves_no_other_one_up(tmp_path: Path, no_nltk_data: None, name: str) -> None:
    """Answers come longest first, so that the order of the file is not that of the questions."""
    small = SMALL[name](tmp_path)
    texts = {"4": "Two cats.", "1": "A cat and a dog.", "3": "A bench.", "2": "A man walks a dog."}
    assert sorted(ids(scored(tmp_path, small, texts, num_samples=3))) == ["1", "2", "3"]
    del texts["2"]
    result = scored(tmp_path, small, texts, skipped="2", num_samples=3)
    assert sorted(ids(result)) == ["1", "3"]
    assert result.settings["answers"] == {"scored": 2, "left_out": 1, "skipped": 1, "unanswered": 0}
    # Image 1 has a dog that is not there, image 3 a bench.
    assert result.metrics["CHAIR_s"] == 100.0
    assert result.settings["skipped"][0]["where"] == "2"
    with pytest.raises(UserError, match="none of the first 1 images has an answer"):
        scored(tmp_path, small, {"3": "A bench."}, skipped="1", num_samples=1)


def test_objhal_counts_skipped_prompts_apart(tmp_path: Path, no_nltk_data: None) -> None:
    small = SMALL["objhal"](tmp_path)
    result = scored(tmp_path, small, {"1": "A cat here.", "3": "A bench."}, skipped="2")
    assert result.settings["answers"] == {"scored": 2, "left_out": 0, "skipped": 1, "unanswered": 297}
    limited = scored(tmp_path, small, {"1": "A cat here.", "3": "A bench."}, skipped="2", num_samples=4)
    assert limited.settings["answers"] == {"scored": 2, "left_out": 0, "skipped": 1, "unanswered": 1}


def test_mmhal_keeps_types_and_denominators(tmp_path: Path) -> None:
    """Question 1 has no answer: question 2 stays the one of its type, with its own reply of the judge."""
    small = SMALL["mmhal"](tmp_path)
    answers = {str(at): f"Answer {at}." for at in (7, 3, 0, 2, 4, 5, 6)}
    result = scored(tmp_path, small, answers, skipped="1", num_samples=3)
    assert [(item["id"], item["kind"], item["rating"]) for item in result.items] == [
        ("0", "attribute", 0),
        ("2", "comparison", 2),
    ]
    assert (result.metrics["score"], result.metrics["hallucination_rate"]) == (1.0, 1.0)
    assert result.metrics["score_comparison"] == 2.0
    assert "score_adversarial" not in result.metrics
    whole = scored(tmp_path, small, answers, skipped="1")
    assert whole.metrics["score"] == pytest.approx(sum((0, 2, 3, 4, 5, 6, 0)) / 7)
    with pytest.raises(UserError, match="1 of 8 items have no answer, the first is '1'"):
        scored(tmp_path, small, answers)


@pytest.mark.parametrize(
    ("name", "answered", "skipped", "kept"),
    [
        ("amber", {"4": "Yes", "3": "No", "1": "A cat."}, "2", ["1", "3"]),
        ("llava-bench", {"2": "b", "0": "a"}, "1", ["0", "2"]),
        ("scenes", {}, "test-0-000001/describe", []),
    ],
)
def test_the_first_images_stay_the_first(
    tmp_path: Path, no_nltk_data: None, name: str, answered: dict[str, str], skipped: str, kept: list[str]
) -> None:
    small = SMALL[name](tmp_path)
    if name == "scenes":
        items = load_benchmark(name, BenchmarkSettings(num_samples=3)).load()
        answered = {item.id: "A kitchen." for item in reversed(items) if item.id != skipped}
        kept = [item.id for item in items if item.id != skipped and "000002" not in item.id]
    result = scored(tmp_path, small, answered, skipped, num_samples=2 if name == "scenes" else 3)
    assert ids(result) == kept
    assert result.settings["answers"]["skipped"] == 1


@pytest.mark.parametrize("name", sorted(SMALL))
def test_a_whole_file_is_scored_on_its_first_images(tmp_path: Path, no_nltk_data: None, name: str) -> None:
    """The answers to other questions are counted, not refused."""
    small = SMALL[name](tmp_path)
    path = write_lines(tmp_path / "whole.jsonl", small.rows)
    config = {**small.settings, "num_samples": 1, "output_file": str(tmp_path / "scores.json")}
    score.run_score(ScoreConfig(benchmark=name, predictions=str(path), data_dir=str(tmp_path), **config))
    result = ScoreResult.load(tmp_path / "scores.json")
    # POPE asks about a picture in three sets, the scene world three times.
    first = 3 if name in ("pope", "scenes") else 1
    assert result.settings["answers"]["scored"] == len(result.items) == first
    assert result.settings["answers"]["left_out"] == len(small.rows) - first


def test_a_log_is_read_by_position_whatever_is_scored(tmp_path: Path, no_nltk_data: None) -> None:
    """AMBER asks the same of every picture, so that positions matter; all of them, not those of the first."""
    small = SMALL["amber"](tmp_path)
    rows = [
        {"doc_id": at, "input": "", "filtered_resps": row["response"]} for at, row in enumerate(small.rows)
    ]
    path = write_lines(tmp_path / "log.jsonl", rows)
    settings = BenchmarkSettings(str(tmp_path), num_samples=1, similarity="exact")
    result = score.score_answers(load_benchmark("amber", settings), path)
    assert ids(result) == ["1"]
    assert result.settings["answers"]["left_out"] == 3


def test_eval_scores_as_score_does(tiny_llava: Path, tmp_path: Path) -> None:
    config = EvalConfig(
        model_name_or_path=str(tiny_llava),
        benchmark="scenes",
        output_dir=str(tmp_path),
        num_samples=1,
        max_new_tokens=4,
        device="cpu",
        mode="strict",
        similarity="exact",
    )
    score.run_eval(config)
    path = tmp_path / "scores" / "scenes.json"
    by_eval = json.loads(path.read_text())
    assert (by_eval["settings"]["mode"], by_eval["settings"]["similarity"]) == ("strict", "exact")
    score.run_score(
        ScoreConfig(
            benchmark="scenes",
            predictions=str(tmp_path / "answers" / "scenes.jsonl"),
            num_samples=1,
            mode="strict",
            similarity="exact",
        )
    )
    assert json.loads(path.read_text()) == by_eval
    score.run_eval(replace(config, mode="official"))
    assert json.loads(path.read_text())["settings"]["mode"] == "official"


def test_the_result_names_the_judge_that_was_asked(
    tmp_path: Path, no_nltk_data: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not the one that the official script asks, for an extractor as for a judge of quality."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    monkeypatch.setenv("MFPO_CACHE", str(tmp_path / "cache"))
    small = SMALL["objhal"](tmp_path)
    answers = {"1": "There is a cat and a dog.", "3": "There is a bench here."}
    without = scored(tmp_path, small, answers)
    assert "judged_by" not in without.settings and "judged by" not in capsys.readouterr().out
    with chat_server() as backend:
        backend.reply = lambda text: '["cat"]'
        asked = scored(tmp_path, small, answers, judge_model="another-judge", base_url=backend.url)
    assert asked.settings["judged_by"] == "another-judge"
    assert asked.settings["official_judge"] == "gpt-3.5-turbo-0613"
    assert "judged by another-judge; the official script asks gpt-3.5" in capsys.readouterr().out
    assert "gpt-3.5" not in json.dumps({**asked.settings, "official_judge": "", "definitions": ""})
    replies = write_lines(
        tmp_path / "mine.jsonl", [{"image_id": int(at), "extract_objs": ["cat"]} for at in answers]
    )
    saved = scored(tmp_path, small, answers, judgements=str(replies))
    assert saved.settings["judged_by"] == "saved replies, mine.jsonl"
