"""Items of a benchmark with the answers of all runs, worst first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mfpo.evaluation.results import ScoreResult
from mfpo.report.config import NUM_PICTURES
from mfpo.report.items.judgement import MARKED, ORDERS, judge
from mfpo.report.items.pictures import ItemPictures
from mfpo.report.items.records import AnswerEntry, Change, ItemEntry, ItemSection, Piece
from mfpo.report.marks import Mark, pieces

Record = Mapping[str, Any]
LONGEST_ANSWER = 6_000
_STYLES = ("absent", "wrong", "present")


def item_section(
    name: str,
    results: Sequence[ScoreResult | None],
    labels: Sequence[str],
    *,
    num_pictures: int = NUM_PICTURES,
    data_dir: str | None = None,
) -> ItemSection | None:
    """The items of a benchmark that have an answer in any run, worst first.

    The order is by the mean badness over the runs that have answered, *all* of them: by the first run alone
    any other run would look better than it is. Equal items keep their order in the benchmark.

    Args:
        name: Its name on the page.
        results: Its scores, one per run of the report; None for a run without.
        labels: Names of the runs.
        num_pictures: Items, the worst ones, whose pictures come onto the page.
        data_dir: Where pictures are looked for first; only in the score file's folder when None.

    Returns:
        None where no record has an answer, as those of probes.
    """
    records = [_answered(result) for result in results]
    ids = list(dict.fromkeys(identifier for found in records for identifier in found))
    if not ids:
        return None
    found = {identifier: tuple(map(_answer_entry, _of(records, identifier))) for identifier in ids}
    ids.sort(key=lambda identifier: -_mean_badness(found[identifier]))
    first = next(place for place, own in enumerate(records) if own)
    result = results[first]
    assert result is not None
    pictures = ItemPictures(result, data_dir)
    items = []
    for place, identifier in enumerate(ids):
        record = next(record for record in _of(records, identifier) if record is not None)
        picture, problem = pictures.find(record) if place < num_pictures else (-1, "")
        items.append(_item_entry(identifier, record, picture, problem, found[identifier]))
    return ItemSection(
        name=name,
        order=ORDERS.get(result.name, MARKED),
        items=tuple(items),
        pictures=tuple(pictures.uris),
        changes=_changes(found, labels, first),
        looked=min(num_pictures, len(items)),
        unfound=sum(item.problem != "" for item in items),
    )


def _answered(result: ScoreResult | None) -> dict[str, Record]:
    if result is None:
        return {}
    return {str(item["id"]): item for item in result.items if isinstance(item.get("answer"), str)}


def _of(records: Sequence[Mapping[str, Record]], identifier: str) -> list[Record | None]:
    return [found.get(identifier) for found in records]


def _mean_badness(answers: Sequence[AnswerEntry | None]) -> float:
    known = [a.badness for a in answers if a is not None and a.badness is not None]
    return sum(known) / len(known) if known else -math.inf


def _answer_entry(record: Record | None) -> AnswerEntry | None:
    if record is None:
        return None
    text = record["answer"]
    judgement = judge(record)
    return AnswerEntry(
        pieces=_pieces(text[:LONGEST_ANSWER], record),
        cut=max(0, len(text) - LONGEST_ANSWER),
        badness=judgement.badness,
        faulty=judgement.faulty,
        verdict=judgement.verdict,
        replies=tuple(str(reply)[:LONGEST_ANSWER] for reply in _replies(record)),
    )


def _replies(record: Record) -> Sequence[Any]:
    """All that judges said of an answer; score files of saved replies hold one."""
    return record.get("judge_replies") or [reply for reply in [record.get("reply")] if reply]


def _pieces(text: str, record: Record) -> tuple[Piece, ...]:
    marks = [
        Mark(int(start), int(end), style)
        for style in _STYLES
        for start, end in record.get(f"{style}_spans", ())
    ]
    return tuple((piece.text, piece.style) if piece.style else piece.text for piece in pieces(text, marks))


def _item_entry(
    identifier: str, record: Record, picture: int, problem: str, answers: tuple[AnswerEntry | None, ...]
) -> ItemEntry:
    return ItemEntry(
        id=identifier,
        kind=str(record.get("kind", "")),
        question=str(record.get("question", ""))[:LONGEST_ANSWER],
        truth=_truth(record),
        image=str(record.get("image", "")),
        picture=picture,
        problem=problem,
        answers=answers,
    )


def _truth(record: Record) -> str:
    """What is right, where the record says it."""
    if "mscoco_gt_words" in record:
        return f"In the picture: {', '.join(map(str, record['mscoco_gt_words'])) or 'none of the objects'}"
    if record.get("label"):
        return f"Right answer: {record['label']}"
    known = (("Reference answer", "reference_answer"), ("In the picture", "in_picture"))
    return "\n".join(f"{words}: {record[name]}" for words, name in known if record.get(name))


def _changes(
    found: Mapping[str, Sequence[AnswerEntry | None]], labels: Sequence[str], first: int
) -> tuple[Change, ...]:
    """The runs after the first that has answered, against it."""
    changes = []
    for place, label in list(enumerate(labels))[first + 1 :]:
        pairs = [(answers[first], answers[place]) for answers in found.values()]
        both = [(a.faulty, b.faulty) for a, b in pairs if a is not None and b is not None]
        if both:
            counts = (both.count((True, False)), both.count((False, True)), both.count((True, True)))
            changes.append(Change(labels[first], label, len(both), *counts))
    return tuple(changes)
