"""MMHal-Bench (Sun et al., 2023, https://arxiv.org/abs/2309.14525): a judge rates 96 answers from 0 to 6.

Data: https://huggingface.co/datasets/Shengcao1006/MMHal-Bench; script: ``Eval/eval_gpt_mmhal.py`` of
https://github.com/llava-rlhf/LLaVA-RLHF (Apache-2.0). A problem with its answer in ``model_answer``::

    {"question_type": "attribute", "image_id": "df62a56fdc1bb12b", "image_content": ["Fire hydrant"],
     "question": "What color is the fire hydrant cap in the picture?",
     "gt_answer": "The color of the fire hydrant cap in the image is yellow.", "model_answer": "Yellow."}

    score = mean rating, 0 to 6    hallucination_rate = answers rated below 3 / answers

and the mean rating of each of the eight question types. Judge of the official script: ``gpt-4-0314``; ratings
of different judges don't compare. ``--judgements`` reads what the script saves: a list of 96 responses of the
chat API, in the order of the questions.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mfpo.errors import UserError
from mfpo.evaluation.answer_files import Row, read_rows, unique
from mfpo.evaluation.benchmarks.base import Benchmark, Item, Judge, JudgeRequest
from mfpo.evaluation.benchmarks.images import open_picture
from mfpo.evaluation.benchmarks.prompts import read_prompt
from mfpo.evaluation.official_data import DataFile, locate, sha256_of
from mfpo.evaluation.statistics import Metric
from mfpo.records import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image

TYPES = ("attribute", "adversarial", "comparison", "counting", "relation", "environment", "holistic", "other")
"""The question types in the order in which the 96 questions go round."""

_TEMPLATE = DataFile(
    (
        "mmhal-bench_answer_template.json",
        "response_template.json",
        "mmhal/mmhal-bench_answer_template.json",
        "MMHal-Bench/response_template.json",
    ),
    "Apache-2.0",
    how="get response_template.json of https://huggingface.co/datasets/Shengcao1006/MMHal-Bench",
)
_RATING = re.compile(r"rating\W{0,4}([0-6])(?![0-9]|\.[0-9])", re.IGNORECASE)


class MmhalBenchmark(Benchmark):
    """MMHal-Bench's 96 questions, rated by a judge."""

    name = "mmhal"
    judge = Judge("gpt-4-0314", required=True, purpose="rates each answer from 0 to 6")
    metrics: ClassVar[dict[str, Metric]] = {
        "score": Metric("rating", "rated", scale=1, better="higher", text="mean rating, 0 to 6"),
        "hallucination_rate": Metric(
            "hallucinated", "rated", scale=1, better="lower", text="share rated below 3, 0 to 1"
        ),
        **{
            f"score_{kind}": Metric(
                "rating", "rated", scale=1, better="higher", text=f"mean rating, {kind}", kinds=(kind,)
            )
            for kind in TYPES
        },
        "parse_failures": Metric(
            "unparsed", "answers", scale=1, better="lower", text="share of replies without one rating, 0 to 1"
        ),
    }
    quirks: ClassVar[dict[str, str]] = {
        "failure-is-0": "a reply with no rating, or with two different ones, counts as rating 0",
        "literal-rating": "only `rating: N` counts, not `Rating:3` or `**Rating**: 3`; and `rating: 10` is 1",
        "type-by-position": "the type of a question is its position modulo 8, whatever the file says",
    }

    def load(self) -> list[Item]:
        """The 96 questions."""
        rows = read_rows(locate(_TEMPLATE, self.settings.data_dir))
        items = []
        for row in rows[: self.settings.num_samples]:
            content = row.record.get("image_content")
            if not isinstance(content, list):
                raise UserError("'image_content' is missing or no list", row.where, "get the file again")
            truth = (", ".join(map(str, content)), row.text("gt_answer"), row.text("question_type"))
            kind = TYPES[row.number % 8]
            items.append(
                Item(
                    f"{row.number}",
                    row.text("question"),
                    f"{row.text('image_id')}.jpg",
                    kind,
                    f"{row.number}",
                    truth,
                )
            )
        return items

    def open_image(self, item: Item) -> Image:
        """The picture, from ``images/`` of the data folder; under its number or its name in ``image_src``."""
        source = self._sources()[int(item.id)]
        names = [item.image, Path(source).name]
        return open_picture(names, self.settings.data_dir, ("images", "test_data/images"), f"get {source}")

    def read_answers(self, path: str | Path) -> list[Prediction]:
        """The template with ``model_answer`` filled in, or the answers of ``mfpo generate``."""
        expected = len(self.load())
        known = {item.id: item for item in self.unlimited().load()}
        rows = read_rows(path)
        by_id = all("model_answer" not in row.record and "id" in row.record for row in rows)
        if not by_id and len(rows) < expected:
            raise UserError(
                f"{len(rows)} answers for {expected} questions",
                where=str(path),
                fix="fill in `model_answer` of all 96 questions of the template, in its order",
            )
        ids = [str(row.integer("id")) if by_id else str(row.number) for row in rows]
        unique(ids, rows, "question")
        found = []
        for key, row in zip(ids, rows, strict=True):
            if key not in known:
                raise UserError(
                    f"there is no question {key}", row.where, f"ids go from 0 to {len(known) - 1}"
                )
            item = known[key]
            if row.record.get("question", item.question) != item.question:
                raise UserError(
                    f"question {key} of the benchmark is {item.question!r}",
                    row.where,
                    "keep the order of the template: types go by position",
                )
            found.append(
                Prediction(key, item.question, row.text("model_answer", "answer"), item.image, item.kind)
            )
        return found

    def judge_requests(self, items: Sequence[Item], answers: Mapping[str, Prediction]) -> list[JudgeRequest]:
        """The official prompt about each answer."""
        return [
            JudgeRequest(item.id, (("user", judge_prompt(item, answers[item.id].answer)),), temperature=0.0)
            for item in items
        ]

    def read_judgements(self, path: str | Path) -> dict[str, str]:
        """The script's list of chat responses in the order of questions, or rows with ``key``, ``reply``."""
        return read_replies(path, lambda row: str(row.number), len(self.load()))

    def record(self, item: Item, answer: str, reply: str | None = None) -> dict[str, Any]:
        """The rating of one answer."""
        if reply is None:
            raise UserError(f"the judge's reply about question {item.id} is missing", fix="judge all answers")
        strict = self.settings.mode == "strict"
        rating = parse_rating(reply, strict=strict)
        counted = 0 if rating is None and not strict else rating
        return {
            "kind": item.truth[2] if strict else item.kind,
            "in_picture": item.truth[0],
            "reference_answer": item.truth[1],
            "reply": reply,
            "answers": 1,
            "unparsed": int(rating is None),
            "rated": int(counted is not None),
            "rating": counted or 0,
            "hallucinated": int(counted is not None and counted < 3),
        }

    def describe(self) -> dict[str, Any]:
        """Settings with the file that the questions come from."""
        path = locate(_TEMPLATE, self.settings.data_dir)
        return {
            **super().describe(),
            "data": {path.name: sha256_of(path)},
            "unverified": [
                "no output of the official script was at hand to compare with; its rules are tested"
            ],
        }

    def _sources(self) -> list[str]:
        return _sources(str(locate(_TEMPLATE, self.settings.data_dir)))


def judge_prompt(item: Item, answer: str) -> str:
    """What the judge is sent, character by character as the official script builds it."""
    content, gt_answer, _ = item.truth
    return read_prompt("mmhal_judge.txt").format(content, item.question, gt_answer, answer)


def parse_rating(reply: str, *, strict: bool) -> int | None:
    """The rating in a judge's reply; None if there is none, or more than one.

    Args:
        reply: What the judge said.
        strict: Take bold type and missing blanks, and no digit of a larger number; the official script looks
            for ``rating: N`` alone.
    """
    if strict:
        found = {int(digit) for digit in _RATING.findall(reply)}
    else:
        found = {digit for digit in range(7) if f"rating: {digit}" in reply.lower()}
    return found.pop() if len(found) == 1 else None


def read_replies(path: str | Path, key_of: Any, expected: int) -> dict[str, str]:
    """Replies in a file of chat responses, of ``content`` or of ``reply``.

    Args:
        path: The file.
        key_of: The key of a row that names none.
        expected: How many there must be, for rows that are known by position.

    Raises:
        UserError: A row is no reply, one comes twice, or rows are missing.
    """
    rows = read_rows(path)
    named = all("key" in row.record for row in rows)
    if not named and len(rows) < expected:
        raise UserError(f"{len(rows)} replies for {expected} questions", str(path), "judge all answers")
    keys = [row.text("key") if named else key_of(row) for row in rows]
    unique(keys, rows, "question")
    return {key: _content(row) for key, row in zip(keys, rows, strict=True)}


def _content(row: Row) -> str:
    choices = row.record.get("choices")
    if choices is None:
        return row.text("reply", "content")
    try:
        content = choices[0]["message"]["content"]
    except (LookupError, TypeError):
        content = None
    if not isinstance(content, str):
        raise UserError(
            "the response has no choices[0].message.content", row.where, "judge this answer again"
        )
    return content


@lru_cache(maxsize=2)
def _sources(path: str) -> list[str]:
    return [str(row.record.get("image_src", "")) for row in read_rows(path)]
