"""CHAIR (Rohrbach et al., 2018, https://arxiv.org/abs/1809.02156): absent objects in captions of COCO images.

Any file of captions is scored, one of an image: JSON Lines or a JSON list with ``image_id`` and ``caption``
(or ``answer``, ``text``, ``response``), or the original script's ``{"imgToEval": {...}}``. A caption::

    {"image_id": 274134, "caption": "A baby elephant stands by a bench."}
    in the picture: bench, book, chair, dining table, person  ->  elephant is absent, bench is there

    CHAIR_s = captions with an absent object / captions    CHAIR_i = mentions of absent objects / mentions
    Recall = objects of the picture that are mentioned / objects in the picture    Len = words a caption

Variants in circulation differ in how words get their dictionary form and in the list of synonyms:

- ``wordnet``: by part of speech with WordNet; the code that most papers on large models use
  (https://github.com/Maxlinn/CHAIR-metric-standalone, the copy in https://github.com/shikiw/OPERA).
- ``pattern``: ``pattern.en.singularize``, the original code (https://github.com/LisaAnne/Hallucination).
- ``objhal``: WordNet nouns and the refined synonyms of Object HalBench.

The list of synonyms is CHAIR's (BSD-2, see ``data/LICENSES.md``). Ground truth comes from COCO's annotations
(CC BY 4.0) or from a file of objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mfpo.errors import UserError
from mfpo.evaluation.answer_files import Row, read_rows, unique
from mfpo.evaluation.answers import read_skips
from mfpo.evaluation.benchmarks.base import Benchmark, BenchmarkSettings, Item
from mfpo.evaluation.benchmarks.coco_items import coco_items
from mfpo.evaluation.benchmarks.images import list_pictures, open_picture
from mfpo.evaluation.mentions.coco import (
    CHAIR_DOUBLES,
    OBJECT_METRICS,
    GroundTruth,
    Rules,
    count_objects,
    find_objects,
    ground_truth,
    make_rules,
    mention_spans,
    read_synonyms,
)
from mfpo.evaluation.mentions.objhal_rules import objhal_rules
from mfpo.evaluation.mentions.words import Tagged, WordNetPos, load_words, token_spans, tools
from mfpo.evaluation.official_data import sha256_of
from mfpo.evaluation.statistics import Metric
from mfpo.records import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image

SYNONYMS = Path(__file__).parent / "data" / "chair_synonyms.txt"
PROMPT = "Please describe this image in detail."
"""What is asked by OPERA and those that follow it; CHAIR itself has no prompt."""

_FOLDERS = ("val2014", "images/val2014", "coco/val2014", "coco2014/val2014", "images")
_POS: dict[str, WordNetPos] = {"J": "a", "V": "v", "N": "n", "R": "r"}


class ChairBenchmark(Benchmark):
    """CHAIR on any captions of COCO 2014 images."""

    name = "chair"
    variants = ("wordnet", "pattern", "objhal")
    metrics: ClassVar[dict[str, Metric]] = {
        **OBJECT_METRICS,
        "Len": Metric("words_total", "captions", scale=1, text="words a caption, punctuation included"),
    }
    quirks: ClassVar[dict[str, str]] = {
        "blanks": "synonyms after a double blank (`motor bike`, `cheesecake`) are never found",
        "iPhone": "captions are lower-cased and the synonym `iPhone` is not",
        "seat-index": "`hallucination_idxs` is off by one after a `seat` that a `toilet` made drop out",
    }

    def __init__(self, settings: BenchmarkSettings | None = None) -> None:
        super().__init__(settings)
        self._truth: GroundTruth | None = None

    def load(self) -> list[Item]:
        """The pictures of the data folder, each with the usual request."""
        pictures = list_pictures(
            self.settings.data_dir, _FOLDERS, "get COCO val2014 and name its folder with --data_dir"
        )
        items = [
            Item(str(number), PROMPT, name, "describe", str(number))
            for name in pictures
            for number in [_number(name)]
            if number is not None
        ]
        return items[: self.settings.num_samples]

    def open_image(self, item: Item) -> Image:
        """The picture, from ``val2014/`` or ``images/`` of the data folder."""
        names = (
            [item.image]
            if item.image
            else [f"COCO_val2014_{int(item.id):012d}.jpg", f"{int(item.id):012d}.jpg"]
        )
        return open_picture(names, self.settings.data_dir, _FOLDERS, "get COCO val2014")

    def read_answers(self, path: str | Path) -> list[Prediction]:
        """Captions by ``image_id``; a file name with the number in it will do."""
        rows = _flat(read_rows(path))
        ids = [str(_image_id(row)) for row in rows]
        unique(ids, rows, "image")
        return [
            Prediction(
                key,
                row.optional("question"),
                row.text("caption", "answer", "text", "response"),
                row.optional("image"),
                "describe",
            )
            for key, row in zip(ids, rows, strict=True)
        ]

    def select(self, predictions: Sequence[Prediction], path: str | Path) -> list[Item]:
        """The captions of the file, in its order.

        The first images of ``num_samples`` are those with the smallest numbers, skipped ones included:
        answers are written as they come, so the order of a file means nothing.

        Raises:
            UserError: An image is none of COCO 2014's.
        """
        numbers = sorted({*(p.id for p in predictions), *read_skips(path)}, key=int)
        return coco_items(predictions, self.truth, path, set(numbers[: self.settings.num_samples]))

    def records(
        self,
        items: Sequence[Item],
        answers: Mapping[str, Prediction],
        judgements: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """Counts of each caption, with the official script's fields."""
        rules, strict = self.rules(), self.settings.mode == "strict"
        captions = [answers[item.id].answer for item in items]
        tagged = self._tagged(captions)
        records = []
        for item, caption, tokens in zip(items, captions, tagged, strict=True):
            mentions = find_objects(self._lemmas(tokens), rules)
            counts = count_objects(mentions, item.truth, strict=strict)
            absent = set(counts.pop("absent"))
            pairs = list(zip(mentions.words, mentions.nodes, strict=True))
            metrics = {
                "CHAIRs": counts["hallucinated_captions"],
                "CHAIRi": counts["hallucinated_mentions"] / counts["mentions"] if counts["mentions"] else 0.0,
                "Recall": counts["recalled"] / counts["gt_objects"] if counts["gt_objects"] else 0.0,
                "Len": float(len(mentions.raw)) if strict else 0.0,
            }
            spans = (
                token_spans(caption.lower(), [token for token, _ in tokens])
                if len(caption) == len(caption.lower())
                else []
            )
            records.append(
                {
                    "image_id": int(item.id),
                    "caption": caption,
                    "mscoco_hallucinated_words": [list(pairs[at]) for at in sorted(absent)],
                    "mscoco_generated_words": mentions.nodes,
                    "words": mentions.raw,
                    "words_total": len(mentions.raw),
                    "metrics": metrics,
                    **counts,
                    **(mention_spans(mentions, absent, spans) if spans else {}),
                }
            )
        return records

    def describe(self) -> dict[str, Any]:
        """Settings with the tools, the synonyms and the ground truth that the scores depend on."""
        words = load_words()
        reasons = [] if words.official else ["NLTK's data is missing"]
        if self.variant != "wordnet":
            reasons.append(f"variant {self.variant}: no output of its script was at hand to compare with")
        found: dict[str, Any] = {
            **super().describe(),
            "variant": self.variant,
            **tools(words),
            "synonyms": f"{SYNONYMS.name} sha256:{sha256_of(SYNONYMS)}",
            **(self._truth.source if self._truth else {}),
            "unverified": reasons,
        }
        if self.variant == "pattern":
            found["singularize"] = _singularizer()[0]
        return found

    def truth(self, ids: Sequence[int]) -> GroundTruth:
        """Objects in images, see [`ground_truth`]."""
        variant = "pattern" if self.variant == "pattern" else "wordnet"
        if self._truth is None or not set(ids) <= set(self._truth.objects):
            self._truth = ground_truth(
                self.settings.data_dir,
                variant,
                ids,
                self.rules(),
                lambda texts: [self._lemmas(t) for t in self._tagged(texts)],
            )
        return self._truth

    def rules(self) -> Rules:
        """Synonyms and pairs of words of the variant."""
        strict = self.settings.mode == "strict"
        if self.variant == "objhal":
            return objhal_rules(self.settings.data_dir, strict=strict)
        doubles = [*CHAIR_DOUBLES, "train track"] if self.variant == "wordnet" else CHAIR_DOUBLES
        synonyms = read_synonyms(SYNONYMS.read_text(encoding="utf-8"), strip=strict)
        return make_rules(synonyms, doubles, lower=strict)

    def _tagged(self, captions: Sequence[str]) -> list[Tagged]:
        return load_words().tagged(captions, lower=True, tags=self.variant == "wordnet")

    def _lemmas(self, tokens: Tagged) -> list[str]:
        words = load_words()
        if self.variant == "pattern":
            singularize = _singularizer()[1]
            return [singularize(token) for token, _ in tokens]
        if self.variant == "objhal":
            return [words.lemma(token, tag) for token, tag in tokens]
        return [words.lemma(token, tag, _POS.get(tag[:1], "n")) for token, tag in tokens]


def _singularizer() -> tuple[str, Any]:
    """Name and function of what brings words to their singular for the variant ``pattern``."""
    for package, module in (("pattern", "pattern.en"), ("textblob", "textblob.en.inflect")):
        if find_spec(package) is not None:
            import importlib
            from importlib import metadata

            return f"{module} {metadata.version(package)}", importlib.import_module(module).singularize
    raise UserError(
        "the variant needs `singularize` of the package pattern, or its descendant in textblob",
        where="--variant pattern",
        fix="pip install textblob",
    )


def _flat(rows: list[Row]) -> list[Row]:
    """The captions of the original format, which is one object with all of them; other rows as they are."""
    captions = rows[0].record.get("imgToEval")
    if len(rows) > 1 or not isinstance(captions, dict):
        return rows
    broken = next((key for key, value in captions.items() if not isinstance(value, dict)), None)
    if broken is not None:
        raise UserError(f"the entry {broken!r} of imgToEval is no object", rows[0].where)
    return [Row(f"{rows[0].where}", value, at) for at, value in enumerate(captions.values())]


def _image_id(row: Row) -> int:
    """Number of the image, given as such or in a file name."""
    value = row.first("image_id", "id", "image")
    if isinstance(value, str) and not value.strip().isdigit():
        number = _number(value)
        if number is not None:
            return number
    return row.integer("image_id", "id")


def _number(name: str) -> int | None:
    """The number in ``COCO_val2014_000000391895.jpg``."""
    digits = Path(name).stem.rsplit("_", 1)[-1]
    return int(digits) if digits.isascii() and digits.isdigit() else None
