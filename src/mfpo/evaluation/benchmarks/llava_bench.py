"""LLaVA-Bench (Liu et al., 2023, https://arxiv.org/abs/2304.08485): a judge compares an answer with GPT-4's.

Data and scripts: https://github.com/haotian-liu/LLaVA (Apache-2.0; GPT-4's answers CC BY-NC 4.0). Variants:
``coco``, 90 questions about 30 COCO val2014 pictures, and ``wild``, 60 questions about 24 pictures from
https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild. A problem and an answer::

    {"question_id": 0, "image": "000000441147.jpg", "category": "conv",
     "text": "What is the color of the two suitcases in the image?"}
    {"question_id": 0, "text": "Black and brown."}

The judge (``gpt-4-0314`` in the official script) is told captions of the picture, for ``coco`` boxes too, and
gives both answers 1 to 10 on the first line of its review, GPT-4's first::

    relative score = 100 * mean score of the answers / mean score of GPT-4's answers

for ``all`` questions, ``conv``, ``detail`` and ``complex``. ``--judgements`` reads the script's review file.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mfpo.errors import UserError
from mfpo.evaluation.answer_files import Row, read_rows, read_text, unique
from mfpo.evaluation.benchmarks.base import Benchmark, Item, Judge, JudgeRequest
from mfpo.evaluation.benchmarks.images import open_picture
from mfpo.evaluation.official_data import DataFile, locate, sha256_of
from mfpo.evaluation.statistics import Metric
from mfpo.records import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image

CATEGORIES = ("conv", "detail", "complex")
_SYSTEM = "You are a helpful and precise assistant for checking the quality of the answer."
_TABLE = "https://raw.githubusercontent.com/haotian-liu/LLaVA/main/llava/eval/table"
_WILD = "https://huggingface.co/datasets/liuhaotian/llava-bench-in-the-wild"


def _file(name: str, variant: str, *others: str, how: str = "", licence: str = "CC BY-NC 4.0") -> DataFile:
    names = (name, *others)
    folders = (
        "",
        f"llavabench_{variant}/",
        "llava/eval/table/",
        "table/",
        "playground/data/coco2014_val_qa_eval/",
    )
    return DataFile(tuple(folder + other for folder in folders for other in names), licence, how=how)


_COCO_HOW = "get playground/data/coco2014_val_qa_eval of https://github.com/haotian-liu/LLaVA"
FILES = {
    "coco": {
        "questions": _file("qa90_questions.jsonl", "coco", how=_COCO_HOW),
        "answers": _file("qa90_gpt4_answer.jsonl", "coco", how=_COCO_HOW),
        "context": _file(
            "caps_boxes_coco2014_val_80.jsonl", "coco", how=f"get {_TABLE}/caps_boxes_coco2014_val_80.jsonl"
        ),
        "rule": _file(
            "rule.json", "coco", "rule.jsonfile", how=f"get {_TABLE}/rule.json", licence="Apache-2.0"
        ),
    },
    "wild": {
        "questions": _file("questions.jsonl", "wild", how=f"get {_WILD}"),
        "answers": _file("answers_gpt4.jsonl", "wild", how=f"get {_WILD}"),
        "context": _file("context.jsonl", "wild", how=f"get {_WILD}"),
        "rule": _file("rule.json", "wild", how=f"get {_TABLE}/rule.json", licence="Apache-2.0"),
    },
}


@dataclass(frozen=True, slots=True)
class Reference:
    """What the judge is told beside the question.

    Attributes:
        category: ``conv``, ``detail`` or ``complex``.
        answer: GPT-4's answer.
        context: What is in the picture, in words.
        role: What the script calls the two who answered.
        rule: What the judge is to do.
    """

    category: str
    answer: str
    context: str
    role: str
    rule: str


def _metrics() -> dict[str, Metric]:
    found = {
        "all": Metric(
            "model_score",
            "reference_score",
            better="higher",
            text="relative score of all questions",
            unbounded=True,
        )
    }
    for category in CATEGORIES:
        text = f"relative score of the category {category}"
        found[category] = Metric(
            "model_score",
            "reference_score",
            better="higher",
            text=text,
            kinds=(category,),
            unbounded=True,
        )
    found["parse_failures"] = Metric(
        "unparsed", "answers", scale=1, better="lower", text="share of reviews without two scores, 0 to 1"
    )
    return found


class LlavaBenchmark(Benchmark):
    """LLaVA-Bench on COCO or in the wild, compared with GPT-4 by a judge."""

    name = "llava-bench"
    variants = ("coco", "wild")
    max_new_tokens = 1024
    judge = Judge("gpt-4-0314", required=True, purpose="gives the answer and GPT-4's 1 to 10 each")
    metrics: ClassVar[dict[str, Metric]] = _metrics()
    quirks: ClassVar[dict[str, str]] = {
        "failure-is-minus-1": "a review without two scores counts as -1 and -1 in both means",
        "one-blank": "the two scores must be alone on the first line, with one blank between: `8, 9` fails",
        "rounding": "means are rounded to three decimals before they are divided, the result to one",
    }

    def load(self) -> list[Item]:
        """The questions, in their order."""
        questions = read_rows(self._path("questions"))
        answers = read_rows(self._path("answers"))
        contexts = {row.text("image"): row for row in read_rows(self._path("context"))}
        rules = _rules(self._path("rule"))
        items = []
        for question, answer in zip(questions, answers, strict=False):
            image = question.text("image")
            if image not in contexts:
                raise UserError(
                    f"the context file does not know {image}",
                    question.where,
                    "take all files from one version",
                )
            category = question.text("category")
            rule = rules.get(category if self.variant == "coco" else f"llava_bench_{category}")
            if rule is None:
                raise UserError(
                    f"the rule file has no category {category!r}",
                    str(self._path("rule")),
                    "get the file again",
                )
            truth = Reference(
                category, answer.text("text"), _context(contexts[image], boxes=self.variant == "coco"), *rule
            )
            items.append(
                Item(
                    str(question.integer("question_id")), question.text("text"), image, category, image, truth
                )
            )
        kept = set(list(dict.fromkeys(item.image for item in items))[: self.settings.num_samples])
        return [item for item in items if item.image in kept]

    def open_image(self, item: Item) -> Image:
        """The picture: of COCO val2014, or from ``images/`` of the data set."""
        names = [item.image, f"COCO_val2014_{item.image}"]
        return open_picture(
            names,
            self.settings.data_dir,
            ("images", "val2014", "coco/val2014"),
            f"get COCO val2014, or {_WILD}",
        )

    def read_answers(self, path: str | Path) -> list[Prediction]:
        """Rows with ``question_id`` and ``text``, or the answers of ``mfpo generate``."""
        items = {item.id: item for item in self.unlimited().load()}
        rows = read_rows(path)
        ids = [str(row.integer("question_id", "id")) for row in rows]
        unique(ids, rows, "question")
        found = []
        for key, row in zip(ids, rows, strict=True):
            if key not in items:
                fix = f"--variant {self.variant} has {len(items)} questions; is it of the other variant?"
                raise UserError(f"there is no question {key}", row.where, fix)
            item = items[key]
            found.append(Prediction(key, item.question, row.text("text", "answer"), item.image, item.kind))
        return found

    def judge_requests(self, items: Sequence[Item], answers: Mapping[str, Prediction]) -> list[JudgeRequest]:
        """The official prompt about each answer; GPT-4's answer is the first."""
        return [
            JudgeRequest(
                item.id,
                (("system", _SYSTEM), ("user", judge_prompt(item, answers[item.id].answer))),
                max_tokens=1024,
                temperature=0.2,
            )
            for item in items
        ]

    def read_judgements(self, path: str | Path) -> dict[str, str]:
        """The script's reviews (``question_id``, ``content``), or rows with ``key`` and ``reply``."""
        rows = read_rows(path)
        keys = [str(row.integer("question_id", "key")) for row in rows]
        unique(keys, rows, "question")
        return {key: _review(row) for key, row in zip(keys, rows, strict=True)}

    def record(self, item: Item, answer: str, reply: str | None = None) -> dict[str, Any]:
        """The two scores of one review."""
        if reply is None:
            raise UserError(f"the judge's review of question {item.id} is missing", fix="judge all answers")
        strict = self.settings.mode == "strict"
        scores = parse_scores(reply, strict=strict)
        counts = {
            "question_id": int(item.id),
            "reference_answer": item.truth.answer,
            "reply": reply,
            "answers": 1,
            "unparsed": int(scores is None),
        }
        if scores is None:
            return counts | (
                {} if strict else {"reference_score": -1.0, "model_score": -1.0, "tuple": [-1, -1]}
            )
        return counts | {"reference_score": scores[0], "model_score": scores[1], "tuple": list(scores)}

    def printed(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """The official summary: ratio of rounded means."""
        if self.settings.mode == "strict":
            return {}
        found = {}
        for name in ("all", *CATEGORIES):
            kept = [record for record in records if name in ("all", record["kind"])]
            if kept:
                reference, model = (
                    round(sum(r[key] for r in kept) / len(kept), 3)
                    for key in ("reference_score", "model_score")
                )
                found[name] = round(model / reference * 100, 1) if reference else math.nan
        return found

    def describe(self) -> dict[str, Any]:
        """Settings with the files that questions, references and rules come from."""
        paths = [self._path(key) for key in FILES[self.variant]]
        return {
            **super().describe(),
            "variant": self.variant,
            "data": {path.name: sha256_of(path) for path in paths},
            "unverified": [
                "no output of the official script was at hand to compare with; its rules are tested"
            ],
        }

    def _path(self, key: str) -> Path:
        return locate(FILES[self.variant][key], self.settings.data_dir)


def judge_prompt(item: Item, answer: str) -> str:
    """What the judge is sent, character by character as the official script builds it."""
    reference: Reference = item.truth
    role = reference.role
    return (
        f"[Context]\n{reference.context}\n\n[Question]\n{item.question}\n\n"
        f"[{role} 1]\n{reference.answer}\n\n[End of {role} 1]\n\n"
        f"[{role} 2]\n{answer}\n\n[End of {role} 2]\n\n"
        f"[System]\n{reference.rule}\n\n"
    )


def parse_scores(review: str, *, strict: bool) -> tuple[float, float] | None:
    """The two scores of a review, GPT-4's first; None if they are not there.

    Args:
        review: What the judge said.
        strict: Take any two numbers that the first line with text has, and no others; the official script
            takes a first line that has nothing else, with one blank or comma between them.
    """
    if strict:
        line = next((line for line in review.split("\n") if line.strip()), "")
        numbers = re.findall(r"(?<![\w.])\d+(?:\.\d+)?(?![\w]|\.\d)(?:/10\b)?", line)
        values = [float(number.removesuffix("/10")) for number in numbers]
        return (values[0], values[1]) if len(values) == 2 and max(values) <= 10 else None
    parts = review.split("\n")[0].replace(",", " ").split(" ")
    try:
        return (float(parts[0]), float(parts[1])) if len(parts) == 2 else None
    except ValueError:
        return None


def _context(row: Row, *, boxes: bool) -> str:
    """Captions, and for COCO a line per object with its box."""
    captions = row.first("captions", "caption")
    lines = [captions] if isinstance(captions, str) else list(captions or ())
    text = "\n".join(map(str, lines))
    if not boxes:
        return text
    try:
        objects = [f"{thing['category']}: {thing['bbox']}" for thing in row.record["instances"]]
    except (LookupError, TypeError):
        raise UserError(
            "'instances' is missing or no list of boxes", row.where, "get the file again"
        ) from None
    return text + "\n\n" + "\n".join(objects)


def _rules(path: Path) -> dict[str, tuple[str, str]]:
    try:
        return {name: (rule["role"], rule["prompt"]) for name, rule in json.loads(read_text(path)).items()}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"no rule file: {error!r}", str(path), f"get {_TABLE}/rule.json") from None


def _review(row: Row) -> str:
    scores = row.record.get("tuple")
    if row.first("content", "reply") is None and isinstance(scores, list):
        return " ".join(map(str, scores))
    return row.text("content", "reply")
