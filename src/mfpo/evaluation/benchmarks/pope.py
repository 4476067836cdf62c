"""POPE (Li et al., 2023, https://arxiv.org/abs/2305.10355): is an object in the picture? Yes or no.

Data and script: https://github.com/AoiDragon/POPE (MIT); COCO val2014 pictures. Three sets of questions whose
absent objects are drawn at random, from the most frequent ones (popular), or from those that usually stand
beside what is there (adversarial). A problem and an answer::

    {"question_id": 1, "image": "COCO_val2014_000000310196.jpg",
     "text": "Is there a snowboard in the image?", "label": "yes"}
    {"question": "Is there a snowboard in the image?", "answer": "Yes, there is."}

"Yes" is the positive class; F1 = 2 TP / (2 TP + FP + FN), Yes_ratio = answers with yes / answers, all from 0
to 1. Metrics are of all sets together and, under ``random_``, ``popular_`` and ``adversarial_``, of each;
papers give the mean of the three F1, which is ``mean_F1`` here.

Two files of the random set are in circulation: ``aoidragon`` with 3,000 questions, and ``llava15`` with the
2,910 that LLaVA-1.5 and those after it use.

Answer files: the script's (JSON Lines, ``question`` and ``answer``, in the order of the questions), LLaVA's
(``question_id``, ``prompt`` and ``text`` of its joint file, in which the sets are numbered from 1, 10000001
and 20000001, or of one set), those that say ``category`` and ``question_id``, and ``mfpo generate``'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeAlias

from mfpo.errors import UserError, nearest
from mfpo.evaluation.answer_files import Row, read_rows, unique
from mfpo.evaluation.benchmarks.base import Benchmark, Item
from mfpo.evaluation.benchmarks.images import open_picture
from mfpo.evaluation.mentions.yes_no import yes_or_no
from mfpo.evaluation.official_data import DataFile, locate, sha256_of
from mfpo.evaluation.statistics import Metric
from mfpo.records import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image

_Counts: TypeAlias = str | dict[str, float]

SPLITS = ("random", "popular", "adversarial")
_JOINT = ("adversarial", "random", "popular")
_JOINT_STEP = 10_000_000
"""The sets of LLaVA's joint file in its order, and what is added to the numbers of one more set."""
_SOURCE = (
    "https://raw.githubusercontent.com/AoiDragon/POPE/08d957b917e5a378a2f99d35b6293c536a66298b/output/coco"
)
_SHA256 = {
    "random": "ac25245170b975a5bdf9080b23fd431dfe6be458bc038259c1f4f09a6bef7994",
    "popular": "72c1a8ad45d0c13514f5f22598261df41d3b533854d29682e924db50ed8aa753",
    "adversarial": "420b3407db1fa9f1187a805dca41cb7b97fd91504e6c2179706188c107fb8ef8",
}
_HOW_2910 = "get coco_pope_random.json with 2910 rows, as LLaVA-1.5's instructions for POPE link it"


def _data(split: str, variant: str) -> DataFile:
    name = f"coco_pope_{split}.json"
    if variant == "llava15" and split == "random":
        places = (
            "llava15_variant_2910random/",
            "",
            "pope/llava15_variant_2910random/",
            "pope/coco/",
            "coco/",
        )
        return DataFile(tuple(f + name for f in places), "MIT", how=_HOW_2910)
    folders = ("aoidragon/", "", "output/coco/", "pope/aoidragon/", "coco/", "pope/coco/")
    return DataFile(tuple(f + name for f in folders), "MIT", f"{_SOURCE}/{name}", _SHA256[split])


def _metrics() -> dict[str, Metric]:
    errors = {"tp": 2.0, "fp": 1.0, "fn": 1.0}
    found: dict[str, Metric] = {}
    for prefix, kinds in (("", ()), *((f"{split}_", (split,)) for split in SPLITS)):
        about = f", {prefix[:-1]} set" if prefix else ""
        rows: tuple[tuple[str, _Counts, _Counts, str], ...] = (
            ("Accuracy", "right", "questions", "right answers"),
            ("Precision", "tp", {"tp": 1, "fp": 1}, "right among yes"),
            ("Recall", "tp", {"tp": 1, "fn": 1}, "yes where it is right"),
            ("F1", {"tp": 2}, errors, "harmonic mean of both"),
        )
        for name, above, below, text in rows:
            found[prefix + name] = Metric(above, below, 1, "higher", text + about, kinds)
        text = f"answers with yes{about}; 0.5 would be right"
        found[f"{prefix}Yes_ratio"] = Metric("said_yes", "questions", scale=1, text=text, kinds=kinds)
    text = "answers that begin with neither yes nor no"
    return {**found, "Unparsed": Metric("unparsed", "questions", scale=1, text=text)}


class PopeBenchmark(Benchmark):
    """POPE's three sets on COCO, or one of them with ``--split``."""

    name = "pope"
    variants = ("aoidragon", "llava15")
    max_new_tokens = 128
    metrics: ClassVar[dict[str, Metric]] = _metrics()
    quirks: ClassVar[dict[str, str]] = {
        "all-else-is-yes": "an answer is no if its first sentence has the word No, no or not, else yes",
        "blanks-only": "words are what stands between blanks, so `No\\n` and `(no)` are yes",
    }

    def load(self) -> list[Item]:
        """The questions of the sets, one set after the other."""
        items = []
        for split in self._splits():
            file = _data(split, self.variant)
            path = locate(file, self.settings.data_dir)
            rows = read_rows(path)
            if split == "random":
                self._check_size(rows, path)
            for row in rows:
                number = row.integer("question_id")
                image = row.text("image")
                items.append(
                    Item(f"{split}/{number}", row.text("text"), image, split, image, row.text("label"))
                )
        kept = set(list(dict.fromkeys(item.image for item in items))[: self.settings.num_samples])
        return [item for item in items if item.image in kept]

    def open_image(self, item: Item) -> Image:
        """The COCO picture, from ``val2014/`` of the data folder."""
        folders = ("val2014", "images", "coco/val2014", "coco2014/val2014")
        return open_picture([item.image], self.settings.data_dir, folders, "get COCO val2014")

    def read_answers(self, path: str | Path) -> list[Prediction]:
        """Answers by id, by number in the joint file, or in the order of the questions, as the row says."""
        items = self.unlimited().load()
        rows = read_rows(path)
        ids = self._ids(rows, items, path)
        unique(ids, rows, "question")
        known = {item.id: item for item in items}
        found = []
        for key, row in zip(ids, rows, strict=True):
            item = known[key]
            self._check_question(row, item)
            found.append(
                Prediction(key, item.question, row.text("answer", "text", "response"), item.image, item.kind)
            )
        return found

    def record(self, item: Item, answer: str, reply: str | None = None) -> dict[str, Any]:
        """Counts of one answer."""
        parsed = yes_or_no(answer)
        says_yes = (parsed is True) if self.settings.mode == "strict" else official_yes(answer)
        says_no = (parsed is False) if self.settings.mode == "strict" else not says_yes
        is_yes = item.truth != "no"
        return {
            "label": item.truth,
            "questions": 1,
            "right": int(says_yes if is_yes else says_no),
            "tp": int(is_yes and says_yes),
            "fp": int(not is_yes and says_yes),
            "fn": int(is_yes and not says_yes),
            "tn": int(not is_yes and says_no),
            "said_yes": int(says_yes),
            "unparsed": int(parsed is None),
        }

    def printed(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Mean of the sets' F1, which papers report beside the sets' own."""
        scores = []
        for split in SPLITS:
            counts = [record for record in records if record["kind"] == split]
            tp, errors = (sum(r["tp"] for r in counts), sum(r["fp"] + r["fn"] for r in counts))
            if counts:
                scores.append(2 * tp / (2 * tp + errors) if tp + errors else float("nan"))
        return {"mean_F1": sum(scores) / len(scores)} if scores else {}

    def describe(self) -> dict[str, Any]:
        """Settings with the files that the labels come from."""
        paths = {
            split: locate(_data(split, self.variant), self.settings.data_dir) for split in self._splits()
        }
        return {
            **super().describe(),
            "variant": self.variant,
            "data": {split: f"{path.name} sha256:{sha256_of(path)}" for split, path in paths.items()},
            "unverified": [
                "no output of the official script was at hand to compare with; its rules are tested"
            ],
        }

    def _splits(self) -> tuple[str, ...]:
        split = self.settings.split
        if split in ("test", "all"):
            return SPLITS
        if split not in SPLITS:
            raise UserError("POPE has no such set", f"--split {split}", nearest(split, [*SPLITS, "all"]))
        return (split,)

    def _check_size(self, rows: Sequence[Row], path: Path) -> None:
        expected = {"aoidragon": 3000, "llava15": 2910}[self.variant]
        if len(rows) != expected and len(rows) in (3000, 2910):
            other = next(name for name in self.variants if name != self.variant)
            raise UserError(
                f"this file of the random set has {len(rows)} rows, variant {self.variant} has {expected}",
                where=str(path),
                fix=f"give --variant {other}, or the other file",
            )

    def _check_question(self, row: Row, item: Item) -> None:
        """A row that repeats its question must repeat the right one; prompts may add to it."""
        asked = row.record.get("question", row.record.get("prompt"))
        if isinstance(asked, str) and asked.strip() and item.question.strip() not in asked:
            raise UserError(
                f"this answers {asked.strip()[:60]!r}, question {item.id} is {item.question!r}",
                row.where,
                "answers must stand in the order of the questions, of all sets or of that of --split",
            )

    def _ids(self, rows: Sequence[Row], items: Sequence[Item], path: str | Path) -> list[str]:
        known = {item.id for item in items}
        if all(isinstance(row.record.get("id"), str) for row in rows):
            for row in rows:
                if row.record["id"] not in known:
                    raise UserError(
                        f"no such question: {row.record['id']!r}", row.where, "is it of another --split?"
                    )
            return [row.text("id") for row in rows]
        numbered = all(isinstance(row.record.get("question_id"), int) for row in rows)
        if keys := self._numbered(rows) if numbered else None:
            wrong = next((row for key, row in zip(keys, rows, strict=True) if key not in known), None)
            if wrong is not None:
                raise UserError(
                    "no such question",
                    wrong.where,
                    "`question_id` counts from 1 in each set; right --variant?",
                )
            return keys
        for asked in (items, self.load()):
            if len(rows) == len(asked):
                return [item.id for item in asked]
        raise UserError(
            f"{len(rows)} answers for {len(items)} questions",
            where=str(path),
            fix="answers without ids must be as many as the questions, in order; --split NAME scores one set",
        )

    def _numbered(self, rows: Sequence[Row]) -> list[str] | None:
        """Ids by set and number; None if the rows don't say of which set they are."""
        numbers = [row.integer("question_id") for row in rows]
        sets = [row.record.get("category") for row in rows]
        if not all(one in self._splits() for one in sets):
            if max(numbers, default=0) <= _JOINT_STEP:
                return None
            sets = [dict(enumerate(_JOINT)).get(number // _JOINT_STEP, "") for number in numbers]
        return [f"{one}/{number % _JOINT_STEP}" for one, number in zip(sets, numbers, strict=True)]


def official_yes(answer: str) -> bool:
    """Whether the official script takes an answer for a yes."""
    first = answer.split(".")[0].replace(",", "")
    return not {"No", "not", "no"}.intersection(first.split(" "))
