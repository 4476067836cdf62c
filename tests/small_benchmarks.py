"""Every benchmark in small: a data folder, a good answer file, and what the judge has said of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mfpo.evaluation.benchmarks.base import BenchmarkSettings
from mfpo.evaluation.benchmarks.mmhal import TYPES
from mfpo.evaluation.benchmarks.scenes import ScenesBenchmark
from mfpo.scenes.difficulty import save_world
from mfpo.scenes.world import World

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class SmallBenchmark:
    """What is needed to score a benchmark.

    Attributes:
        name: Name of the benchmark.
        rows: A good answer file, a row an answer.
        key: The field by which an answer finds its question; None where its place in the file does.
        text: The field with the answer.
        missing: What is told of a file without its last answer; empty where any number of answers is scored.
        settings: Further settings of ``mfpo score``.
    """

    name: str
    rows: Rows
    key: str | None
    text: str
    missing: str
    settings: Mapping[str, Any]


def write_lines(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)) + "\n", encoding="utf-8")
    return path


def _amber(folder: Path) -> SmallBenchmark:
    annotations = [
        {"id": 1, "type": "generative", "truth": ["cat", "table"], "hallu": ["dog"]},
        {"id": 2, "type": "generative", "truth": ["dog"], "hallu": ["cat"]},
        {"id": 3, "type": "discriminative-hallucination", "truth": "no"},
        {"id": 4, "type": "discriminative-relation", "truth": "yes"},
    ]
    (folder / "query").mkdir()
    (folder / "annotations.json").write_text(json.dumps(annotations))
    (folder / "relation.json").write_text(json.dumps({"cat": ["kitten"], "dog": [], "table": []}))
    (folder / "safe_words.txt").write_text("light\n")
    queries = [{"id": n, "image": f"AMBER_{n}.jpg", "query": f"Question {n}?"} for n in (1, 2, 3, 4)]
    (folder / "query" / "query_all.json").write_text(json.dumps(queries))
    answers = ["A cat on a table.", "A cat and a ship.", "No", "Yes"]
    rows = [{"id": at, "response": text} for at, text in enumerate(answers, start=1)]
    return SmallBenchmark("amber", rows, "id", "response", "", {"similarity": "exact"})


def _objects(folder: Path) -> None:
    objects = {"1": ["cat"], "2": ["person", "dog"], "3": [], "4": ["cat"]}
    (folder / "gt_objects.json").write_text(json.dumps(objects))


def _chair(folder: Path) -> SmallBenchmark:
    _objects(folder)
    captions = ["A cat and a dog.", "A man walks a dog.", "A bench.", "Two cats."]
    rows = [{"image_id": at, "caption": text} for at, text in enumerate(captions, start=1)]
    return SmallBenchmark("chair", rows, "image_id", "caption", "", {})


def _objhal(folder: Path) -> SmallBenchmark:
    _objects(folder)
    (folder / "synonyms_refine.txt").write_text("person, man\ncat, kitten\ndog\nbench\n")
    prompts = [{"image_id": at, "question": "Describe."} for at in (1, 2, 3, 4)]
    write_lines(folder / "obj_halbench_300_prompts_noimage.jsonl", prompts)
    answers = ["A cat and a dog.", "A man walks a dog.", "A bench.", "Two cats."]
    rows = [
        {"image_id": at, "question": "Describe.", "answer": text} for at, text in enumerate(answers, start=1)
    ]
    return SmallBenchmark("objhal", rows, "image_id", "answer", "", {})


def _mmhal(folder: Path) -> SmallBenchmark:
    template = [
        {
            "question_type": kind,
            "image_id": f"{at:016x}",
            "image_src": f"https://example.org/{at}.jpg",
            "image_content": ["Cat"],
            "question": f"Question {at}?",
            "gt_answer": "A cat.",
            "model_answer": "",
        }
        for at, kind in enumerate(TYPES)
    ]
    (folder / "response_template.json").write_text(json.dumps(template))
    replies = [{"key": str(at), "reply": f"Rating: {at % 7}"} for at in range(len(TYPES))]
    judgements = write_lines(folder / "replies.jsonl", replies)
    rows = [{**row, "model_answer": f"Answer {at}."} for at, row in enumerate(template)]
    return SmallBenchmark(
        "mmhal", rows, None, "model_answer", "7 answers for 8 questions", {"judgements": str(judgements)}
    )


def _llava_bench(folder: Path) -> SmallBenchmark:
    categories = ("conv", "detail", "complex")
    questions = [
        {"question_id": at, "image": f"{at}.jpg", "text": f"Q{at}?", "category": category}
        for at, category in enumerate(categories)
    ]
    write_lines(folder / "qa90_questions.jsonl", questions)
    references = [{"question_id": at, "text": "Reference."} for at in range(3)]
    write_lines(folder / "qa90_gpt4_answer.jsonl", references)
    contexts = [{"image": f"{at}.jpg", "captions": ["One."], "instances": []} for at in range(3)]
    write_lines(folder / "caps_boxes_coco2014_val_80.jsonl", contexts)
    rules = {name: {"role": "Assistant", "prompt": "Judge."} for name in categories}
    (folder / "rule.json").write_text(json.dumps(rules))
    reviews = [{"question_id": at, "content": f"8 {at + 4}\nFine."} for at in range(3)]
    judgements = write_lines(folder / "reviews.jsonl", reviews)
    rows = [{"question_id": at, "text": f"Answer {at}."} for at in range(3)]
    missing = "1 of 3 items have no answer"
    return SmallBenchmark(
        "llava-bench", rows, "question_id", "text", missing, {"judgements": str(judgements)}
    )


def _pope(folder: Path) -> SmallBenchmark:
    rows: Rows = []
    for split in ("random", "popular", "adversarial"):
        questions = [
            {"question_id": at, "image": f"{at}.jpg", "text": f"Is there a {split} {at}?", "label": label}
            for at, label in ((1, "yes"), (2, "no"))
        ]
        write_lines(folder / f"coco_pope_{split}.json", questions)
        rows += [{"question": question["text"], "answer": "Yes, there is."} for question in questions]
    return SmallBenchmark("pope", rows, None, "answer", "5 answers for 6 questions", {})


def _scenes(folder: Path) -> SmallBenchmark:
    save_world(World(), folder)
    items = ScenesBenchmark(BenchmarkSettings(num_samples=2)).load()
    rows = [
        {"id": item.id, "question": item.question, "answer": "A kitchen with a red mug.", "image": item.image}
        for item in items
    ]
    return SmallBenchmark("scenes", rows, "id", "answer", "1 of 6 items have no answer", {"num_samples": 2})


SMALL: Mapping[str, Callable[[Path], SmallBenchmark]] = {
    "amber": _amber,
    "chair": _chair,
    "llava-bench": _llava_bench,
    "mmhal": _mmhal,
    "objhal": _objhal,
    "pope": _pope,
    "scenes": _scenes,
}
"""Writes the data of a benchmark into an empty folder."""
