"""AMBER (Wang et al., 2023, https://arxiv.org/abs/2311.07397): descriptions and yes/no questions, no judge.

Data and script: https://github.com/junyangwang0410/AMBER (Apache-2.0), 1,004 pictures. A problem::

    AMBER_2.jpg  "Describe this image."  truth: sky, man, ship, ..., hallu: bird, cloud, sun, ...
    AMBER_1.jpg  "Is the sky sunny in this image?"  truth: yes

Descriptions. The nouns of an answer are kept if they are among the 418 words of ``relation.json``; each is
safe, true (and covers an object), imagined (in ``hallu``), a synonym of one of these, or hallucinated:

- CHAIR: hallucinated nouns / nouns.  Hal: answers with one / answers.
- Cover: objects covered / objects in the picture.  Cog: ``hallu`` objects named / ``hallu`` objects.

Yes/no questions on existence, attributes (state, number, action) and relations; "No" is the positive class::

    Accuracy = right / questions, Precision = right "No" / "No" said, Recall = right "No" / "No" right

Answers as the official script reads them, ``[{"id": 2, "response": "..."}, ...]``, or as ``mfpo generate``
writes them. Questions without an answer are left out and counted, as there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mfpo.errors import UserError
from mfpo.evaluation.answer_files import read_rows, read_text, unique
from mfpo.evaluation.benchmarks.base import Benchmark, BenchmarkSettings, Item
from mfpo.evaluation.benchmarks.images import open_picture
from mfpo.evaluation.mentions.amber_nouns import Annotation, Vocabulary, count_nouns
from mfpo.evaluation.mentions.similarity import EXACT, OFFICIAL_VECTORS, Similarity, load_similarity
from mfpo.evaluation.mentions.words import load_words, token_spans, tools
from mfpo.evaluation.mentions.yes_no import yes_or_no
from mfpo.evaluation.official_data import DataFile, locate, sha256_of
from mfpo.evaluation.statistics import Metric
from mfpo.records import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image

_SOURCE = (
    "https://raw.githubusercontent.com/junyangwang0410/AMBER/534babf6bbfcce2e735c26289dedfb21cef3c939/data"
)
_FILES = {
    "annotations": ("annotations.json", "db22a436c4836fbb295e60b4e80d519573077579fb7032f01b193c1bd022b797"),
    "relation": ("relation.json", "c4c1491e9bbc3209abc1888c12a1bf8413bdbab8a0d8be04b990a2e7680cf23e"),
    "safe_words": ("safe_words.txt", "f92cf1123f4578a2630832fac3e6ac4de36212ea55859d3bed4fd233723f4043"),
    "query": ("query/query_all.json", "127680ae61f7d4a92d2f7f07a8deaec07f0689b194d2c7c0f41ead7bd2c5bcf5"),
}
DATA = {
    key: DataFile(
        (name, f"data/{name}", f"amber/{name}", f"AMBER/data/{name}"), "Apache-2.0", f"{_SOURCE}/{name}", sha
    )
    for key, (name, sha) in _FILES.items()
}

_DIMENSIONS = {
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
    "discriminative-relation": "relation",
    "relation": "relation",
}
YES_NO = {
    "": ("existence", "state", "number", "action", "relation"),
    "Existence_": ("existence",),
    "Attribute_": ("state", "number", "action"),
    "State_": ("state",),
    "Number_": ("number",),
    "Action_": ("action",),
    "Relation_": ("relation",),
}
"""The sub-tables of the official script: prefix of their metrics, and the kinds of questions in them."""


def _metrics() -> dict[str, Metric]:
    generative = ("generative",)
    found = {
        "CHAIR": Metric(
            "chair_score", "chair_num", better="lower", text="nouns that are hallucinated", kinds=generative
        ),
        "Cover": Metric(
            "safe_cover_score",
            "safe_cover_num",
            better="higher",
            text="objects in the picture that are named",
            kinds=generative,
        ),
        "Hal": Metric(
            "hal_score", "non_hallu_num", better="lower", text="answers that hallucinate", kinds=generative
        ),
        "Cog": Metric(
            "hallu_cover_score",
            "hallu_cover_num",
            better="lower",
            text="objects people might imagine that are named",
            kinds=generative,
        ),
    }
    for prefix, kinds in YES_NO.items():
        about = f" ({prefix.strip('_').lower()})" if prefix else ""
        for name, numerator, denominator, text in (
            ("Accuracy", "qa_correct_score", "qa_correct_num", "right answers"),
            ("Precision", "qa_ans_no_score", "qa_ans_no_num", 'right among answers "No"'),
            ("Recall", "qa_no_score", "qa_no_num", '"No" said where it is right'),
        ):
            found[prefix + name] = Metric(
                numerator, denominator, better="higher", text=text + about, kinds=kinds
            )
        found[f"{prefix}F1"] = Metric(
            {"qa_no_score": 2},
            {"qa_ans_no_num": 1, "qa_no_num": 1},
            better="higher",
            text=f"harmonic mean of precision and recall{about}",
            kinds=kinds,
        )
    found["Unparsed"] = Metric(
        "qa_unparsed", "qa_correct_num", text="answers to yes/no questions that say neither", kinds=YES_NO[""]
    )
    return found


@dataclass(frozen=True, slots=True)
class YesNo:
    """Truth of a yes/no question: ``yes`` or ``no``."""

    truth: str


class AmberBenchmark(Benchmark):
    """AMBER's descriptions and yes/no questions."""

    name = "amber"
    variants = ("all", "generative", "discriminative")
    metrics: ClassVar[dict[str, Metric]] = _metrics()
    quirks: ClassVar[dict[str, str]] = {
        "case": "nouns are looked up as they are written, so `Dog` at the start of a sentence is no dog",
        "repeated-truth": "an object annotated twice is two objects, of which one can never be covered",
        "start-0.001": "denominators start at 0.001 and totals are rounded to one decimal",
        "exact-yes-no": "only `Yes` and `No` are understood; `No.` is wrong, and not counted as a No",
        "rounded-F1": "F1 is made of rounded precision and recall, plus 0.0001 (existence 0.001) below",
    }

    def __init__(self, settings: BenchmarkSettings | None = None) -> None:
        super().__init__(settings)
        self._paths: dict[str, Path] = {}
        self._all: list[Item] = []
        self._has_yes_no = False

    def load(self) -> list[Item]:
        """The questions of the variant, descriptions first."""
        items = self._questions()
        wanted = {"generative": {"generative"}, "discriminative": set(YES_NO[""])}.get(self.variant)
        kept = set(list(dict.fromkeys(item.image for item in items))[: self.settings.num_samples])
        return [item for item in items if item.image in kept and (wanted is None or item.kind in wanted)]

    def _questions(self) -> list[Item]:
        """All questions; ground truth is looked up by position, as by the official script."""
        if self._all:
            return self._all
        annotations = _read_json(self._path("annotations"))
        try:
            self._all = [
                _item(query, annotations[query["id"] - 1]) for query in _read_json(self._path("query"))
            ]
        except (LookupError, TypeError) as error:
            where = f"{self._path('query')} and {self._path('annotations').name}"
            raise UserError(f"these are not AMBER's: {error!r}", where, "get the files again") from None
        return self._all

    def open_image(self, item: Item) -> Image:
        """The picture, from ``image/`` of the data folder."""
        return open_picture(
            [item.image],
            self.settings.data_dir,
            ("image", "images", "amber/image"),
            "AMBER's README links them",
        )

    def read_answers(self, path: str | Path) -> list[Prediction]:
        """``[{"id": 2, "response": "..."}, ...]``, or the answers of ``mfpo generate``."""
        items = {item.id: item for item in self._questions()}
        rows = read_rows(path)
        ids = [str(row.integer("id")) for row in rows]
        unique(ids, rows, "question")
        found = []
        for key, row in zip(ids, rows, strict=True):
            if key not in items:
                raise UserError(f"AMBER has no question {key}", row.where, f"ids go from 1 to {len(items)}")
            item = items[key]
            found.append(
                Prediction(key, item.question, row.text("response", "answer"), item.image, item.kind)
            )
        return found

    def select(self, predictions: Sequence[Prediction], path: str | Path) -> list[Item]:
        """The questions that have an answer; the others are left out, as by the official script."""
        answered = {prediction.id for prediction in predictions}
        items = [item for item in self.load() if item.id in answered]
        if not items:
            raise UserError(f"no answer to a {self.variant} question", where=str(path))
        return items

    def unanswered(self, known: Set[str]) -> int:
        """Of the questions of the variant."""
        return sum(item.id not in known for item in self.load())

    def records(
        self,
        items: Sequence[Item],
        answers: Mapping[str, Prediction],
        judgements: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """Counts of each answer, under the names of the official script."""
        words = load_words()
        vocabulary, similar = self.vocabulary(), self.similarity()
        strict = self.settings.mode == "strict"
        texts = [answers[item.id].answer for item in items if isinstance(item.truth, Annotation)]
        tagged = iter(words.tagged(texts))
        records = []
        for item in items:
            answer = answers[item.id].answer
            if isinstance(item.truth, YesNo):
                self._has_yes_no = True
                records.append({"id": int(item.id), **_count_answer(answer, item.truth, strict=strict)})
                continue
            tokens = next(tagged)
            spans = token_spans(answer, [token for token, _ in tokens])
            found = [
                (word, tag, span)
                for (word, tag), span in zip(tokens, spans, strict=True)
                if tag.startswith("NN")
            ]
            nouns = [words.lemma(word.lower() if strict else word, tag) for word, tag, _ in found]
            record = count_nouns(nouns, item.truth, vocabulary, similar, strict=strict)
            places = [
                span
                for noun, (_, _, span) in zip(nouns, found, strict=True)
                if vocabulary.knows(noun, strict=strict)
            ]
            wrong = set(record.pop("hallucinated_positions"))
            record["absent_spans"] = [list(s) for at, s in enumerate(places) if at in wrong and s is not None]
            record["present_spans"] = [
                list(s) for at, s in enumerate(places) if at not in wrong and s is not None
            ]
            records.append({"id": int(item.id), **record})
        return records

    def printed(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """The official script's totals: rounded to one decimal, denominators from 0.001."""
        if self.settings.mode == "strict":
            return {}
        found: dict[str, float] = {}
        sums = _Sums(records)
        if "generative" in sums.kinds:
            for name, numerator, denominator in (
                ("CHAIR", "chair_score", "chair_num"),
                ("Cover", "safe_cover_score", "safe_cover_num"),
                ("Cog", "hallu_cover_score", "hallu_cover_num"),
            ):
                found[name] = round(sums(numerator) / (sums(denominator) + 0.001) * 100, 1)
            found["Hal"] = round(100 - sums("non_hallu_score") / (sums("non_hallu_num") + 0.001) * 100, 1)
        for prefix, kinds in YES_NO.items():
            if sums.kinds.intersection(kinds):
                found |= _printed_yes_no(sums, prefix, kinds)
        return found

    def describe(self) -> dict[str, Any]:
        """Settings with the tools, the synonyms and the data that the scores depend on."""
        similar = self.similarity()
        words = load_words()
        reasons = [] if words.official else ["NLTK's data is missing"]
        if similar.source.startswith(("spacy", "vectors")):
            reasons.append(
                f"similarity by {similar.source}: no output of the official script with it was at hand"
            )
        if self._has_yes_no:
            reasons.append("yes/no questions: no output of the official script was at hand to compare with")
        return {
            **super().describe(),
            "variant": self.variant,
            **tools(words),
            "similarity": similar.describe(),
            "data": {path.name: sha256_of(path) for path in self._paths.values()},
            "unverified": reasons,
        }

    def vocabulary(self) -> Vocabulary:
        """The 418 words, their associations, and the words that are always safe."""
        safe = read_text(self._path("safe_words")).splitlines()
        return Vocabulary(_read_json(self._path("relation")), frozenset(safe))

    def similarity(self) -> Similarity:
        """The synonyms by ``--similarity``; without it the official vectors if they are installed."""
        source = self.settings.similarity
        if source is None:
            from importlib.util import find_spec

            source = OFFICIAL_VECTORS if find_spec(OFFICIAL_VECTORS) else "exact"
        return EXACT if source == "exact" else _similarity(source, self.vocabulary().words)

    def _path(self, key: str) -> Path:
        if key not in self._paths:
            self._paths[key] = locate(DATA[key], self.settings.data_dir)
        return self._paths[key]


def _item(query: Mapping[str, Any], annotation: Mapping[str, Any]) -> Item:
    kind = _DIMENSIONS.get(annotation["type"], "generative")
    truth: Annotation | YesNo
    if kind == "generative":
        truth = Annotation(tuple(annotation["truth"]), tuple(annotation["hallu"]))
    else:
        truth = YesNo(annotation["truth"])
    return Item(str(query["id"]), query["query"], query["image"], kind, query["image"], truth)


class _Sums:
    """Sums of counts over the records of some kinds."""

    def __init__(self, records: Sequence[Mapping[str, Any]]) -> None:
        self.records = records
        self.kinds = {record["kind"] for record in records}

    def __call__(self, name: str, kinds: Sequence[str] = ("generative",)) -> int:
        return sum(record[name] for record in self.records if record["kind"] in kinds)


def _printed_yes_no(sums: _Sums, prefix: str, kinds: Sequence[str]) -> dict[str, float]:
    # The attribute table adds up three denominators that each start at 0.001; the table of all has its own.
    start = 0.001 * len(kinds) if prefix else 0.001
    percent = {
        name: round(sums(numerator, kinds) / (sums(denominator, kinds) + start) * 100, 1)
        for name, numerator, denominator in (
            ("Accuracy", "qa_correct_score", "qa_correct_num"),
            ("Precision", "qa_ans_no_score", "qa_ans_no_num"),
            ("Recall", "qa_no_score", "qa_no_num"),
        )
    }
    p, r = percent["Precision"] / 100, percent["Recall"] / 100
    percent["F1"] = round(2 * p * r / (p + r + (0.001 if prefix == "Existence_" else 0.0001)) * 100, 1)
    return {prefix + name: value for name, value in percent.items()}


def _count_answer(answer: str, truth: YesNo, *, strict: bool) -> dict[str, int]:
    """Counts of a yes/no answer; "No" is the positive class."""
    if strict:
        said = yes_or_no(answer)
    else:
        said = {"Yes": True, "No": False}.get(answer)
    right = said is not None and said == (truth.truth == "yes")
    is_no = truth.truth != "yes"
    return {
        "qa_correct_num": 1,
        "qa_correct_score": int(right),
        "qa_no_num": int(is_no),
        "qa_no_score": int(is_no and said is False),
        "qa_ans_no_num": int(said is False),
        "qa_ans_no_score": int(is_no and said is False),
        "qa_unparsed": int(said is None),
    }


@lru_cache(maxsize=4)
def _similarity(source: str, vocabulary: frozenset[str]) -> Similarity:
    return load_similarity(source, vocabulary)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except ValueError as error:
        raise UserError(f"broken JSON: {error}", where=str(path), fix="get the file again") from None
