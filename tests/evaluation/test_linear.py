"""Ten times the answers take ten times the work, in calls: seconds are up to whoever shares the machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from mfpo.evaluation.benchmarks import BENCHMARKS, load_benchmark
from mfpo.evaluation.benchmarks.base import BenchmarkSettings
from mfpo.evaluation.mentions.words import load_words
from mfpo.evaluation.score import score_answers
from small_benchmarks import SMALL, Rows, write_lines

FEW, MANY = 20, 200


def enlarged(name: str, folder: Path, count: int) -> tuple[Rows, dict[str, Any]]:
    """A benchmark of so many questions: its answers, and further settings of the benchmark."""
    folder.mkdir()
    SMALL[name](folder)
    numbers = range(count)
    text = "A cat number {} and dog {} stand on a bench."
    match name:
        case "amber":
            annotations = [
                {"id": n, "type": "generative", "truth": ["cat"], "hallu": ["dog"]} for n in numbers
            ]
            (folder / "annotations.json").write_text(json.dumps(annotations))
            queries = [{"id": n + 1, "image": f"{n}.jpg", "query": "?"} for n in numbers]
            (folder / "query" / "query_all.json").write_text(json.dumps(queries))
            return [{"id": n + 1, "response": text.format(n, n)} for n in numbers], {"similarity": "exact"}
        case "chair" | "objhal":
            (folder / "gt_objects.json").write_text(json.dumps({str(n): ["cat"] for n in numbers}))
            return [{"image_id": n, "answer": text.format(n, n)} for n in numbers], {}
        case "mmhal":
            row = json.loads((folder / "response_template.json").read_text())[0]
            (folder / "response_template.json").write_text(json.dumps([row] * count))
            write_lines(folder / "replies.jsonl", [{"key": str(n), "reply": "Rating: 3"} for n in numbers])
            return [{**row, "model_answer": text.format(n, n)} for n in numbers], {}
        case "llava-bench":
            questions = [
                {"question_id": n, "image": f"{n}.jpg", "text": "?", "category": "conv"} for n in numbers
            ]
            write_lines(folder / "qa90_questions.jsonl", questions)
            write_lines(folder / "qa90_gpt4_answer.jsonl", questions)
            contexts = [{"image": f"{n}.jpg", "captions": [], "instances": []} for n in numbers]
            write_lines(folder / "caps_boxes_coco2014_val_80.jsonl", contexts)
            write_lines(folder / "reviews.jsonl", [{"question_id": n, "content": "8 6"} for n in numbers])
            return [{"question_id": n, "text": text.format(n, n)} for n in numbers], {}
        case "pope":
            questions = [
                {"question_id": n, "image": f"{n}.jpg", "text": f"Is there a {n}?", "label": "no"}
                for n in numbers
            ]
            write_lines(folder / "coco_pope_popular.json", questions)
            return [{"answer": f"No, {n} is not."} for n in numbers], {"split": "popular"}
        case _:
            items = load_benchmark(name, BenchmarkSettings(num_samples=count)).load()
            return [{"id": item.id, "answer": "A kitchen with a red mug."} for item in items], {
                "num_samples": count
            }


def calls(name: str, folder: Path, count: int) -> int:
    """Functions called while a file of answers is scored, tagging left out."""
    rows, settings = enlarged(name, folder, count)
    path = write_lines(folder / "answers.jsonl", rows)
    judgements = next((folder / f for f in ("replies.jsonl", "reviews.jsonl") if (folder / f).exists()), None)
    benchmark = load_benchmark(name, BenchmarkSettings(data_dir=str(folder), **settings))
    # The packaged tagger works in batches of its own, and what it has seen it remembers.
    score_answers(benchmark, path, judgements=judgements)
    found = 0

    def count_call(frame: Any, event: str, argument: Any) -> None:
        nonlocal found
        found += event in ("call", "c_call")

    sys.setprofile(count_call)
    try:
        score_answers(benchmark, path, judgements=judgements)
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_work_grows_with_the_number_of_answers(tmp_path: Path, no_nltk_data: None, name: str) -> None:
    load_words()
    few, many = calls(name, tmp_path / "few", FEW), calls(name, tmp_path / "many", MANY)
    assert many / few < 1.05 * MANY / FEW
