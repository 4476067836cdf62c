"""What was made of one answer: how bad it is, and why, in words. The order of items in a report is this.

Badness is defined here and nowhere else, by the counts that an item's record has:

- descriptions (AMBER, CHAIR, Object HalBench, scenes): mentions of objects that are not in the picture;
- yes/no questions (AMBER, POPE, scenes): 1 for a wrong answer, 0 for a right one;
- MMHal-Bench: 6 minus the judge's rating; faulty below 3, where the benchmark counts a hallucination;
- LLaVA-Bench: GPT-4's score minus the answer's; faulty above 0;
- records of any other kind: mentions that are marked as absent.

An answer whose judge's reply could not be read has no badness and comes after all others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

Record = Mapping[str, Any]

ORDERS = {
    "amber": "hallucinated nouns in a description, 1 for a wrong yes or no",
    "chair": "mentions of absent objects",
    "objhal": "mentions of absent objects",
    "scenes": "mentions of absent objects in a description, 1 for a wrong yes or no",
    "pope": "1 for a wrong answer, 0 for a right one",
    "mmhal": "6 minus the judge's rating",
    "llava-bench": "GPT-4's score minus the answer's",
}
"""What badness is in each benchmark, for people."""
MARKED = "mentions that are marked as absent"
HALLUCINATED_BELOW = 3


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was made of an answer.

    Attributes:
        badness: The larger the worse; None where nothing could be made of it.
        faulty: Whether the answer is wrong, or hallucinates.
        verdict: The same in words.
    """

    badness: float | None
    faulty: bool
    verdict: str


def judge(record: Record) -> Judgement:
    """Judge an answer by its item record; with several judgements of it, by their means."""
    for count, judged in _JUDGES.items():
        if count in record:
            judgement = judged(record)
            finite = judgement.badness is None or math.isfinite(judgement.badness)
            return judgement if finite else replace(judgement, badness=None)
    if record.get("unparsed"):
        return Judgement(None, False, "the judge's reply could not be read")
    absent = len(record.get("absent_spans", ()))
    return Judgement(float(absent), absent > 0, f"{absent} absent" if "absent_spans" in record else "")


def _rated(record: Record) -> Judgement:
    rated = float(record.get("rated", 1))
    if not rated:
        return Judgement(None, False, "no rating: the judge's reply could not be read")
    # Of several replies, those that strict mode could read.
    rating = float(record["rating"]) / rated
    verdict = f"rated {rating:.3g} of 6"
    if record.get("unparsed") and rated == 1:
        verdict += ", as the official script rates a reply that it cannot read"
    return Judgement(6 - rating, rating < HALLUCINATED_BELOW, verdict)


def _compared(record: Record) -> Judgement:
    reference, own = float(record["reference_score"]), float(record["model_score"])
    if min(reference, own) < 0:
        return Judgement(None, False, "the judge's reply could not be read, which counts as -1 and -1")
    return Judgement(reference - own, own < reference, f"{own:g} points, GPT-4's answer {reference:g}")


def _amber_nouns(record: Record) -> Judgement:
    wrong, nouns = record["chair_score"], round(record["chair_num"])
    words = _listed(record.get("hallucinated", ()))
    verdict = f"{wrong} of {nouns} nouns hallucinated{words}; "
    verdict += f"{record['safe_cover_score']} of {round(record['safe_cover_num'])} objects named"
    return Judgement(float(wrong), wrong > 0, verdict)


def _amber_yes_no(record: Record) -> Judgement:
    taken = "no" if record["qa_ans_no_num"] else "neither" if record["qa_unparsed"] else "yes"
    return _yes_no(bool(record["qa_correct_score"]), taken, "no" if record["qa_no_num"] else "yes")


def _asked(record: Record) -> Judgement:
    """A question of POPE or about a scene."""
    taken = "yes" if record["said_yes"] else "neither" if record.get("unparsed") else "no"
    return _yes_no(bool(record["right"]), taken, str(record.get("label", "")))


def _yes_no(right: bool, taken: str, truth: str) -> Judgement:
    if right:
        return Judgement(0.0, False, "right")
    known = f", {truth} is right" if truth else ""
    return Judgement(1.0, True, f"wrong: taken for {taken}{known}")


def _mentions(record: Record) -> Judgement:
    """A description whose objects were looked for."""
    absent = record.get("hallucinated_mentions", record.get("absent_mentions", 0))
    named = record.get("recalled", record.get("named_present", 0))
    present = record.get("gt_objects", record.get("present", 0))
    words = _listed(pair[0] for pair in record.get("mscoco_hallucinated_words", ()))
    verdict = f"{absent} of {record['mentions']} mentions absent{words}; {named} of {present} objects named"
    return Judgement(float(absent), absent > 0, verdict)


def _listed(words: Any) -> str:
    found = list(dict.fromkeys(map(str, words)))
    return f" ({', '.join(found)})" if found else ""


_JUDGES: dict[str, Callable[[Record], Judgement]] = {
    "rating": _rated,
    "reference_score": _compared,
    "chair_num": _amber_nouns,
    "qa_correct_num": _amber_yes_no,
    "mentions": _mentions,
    "said_yes": _asked,
}
"""By a count that only records of that kind have."""
