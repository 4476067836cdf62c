"""Answers of two runs to the same questions, side by side, with what they get wrong marked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mfpo.errors import RowError, UserError
from mfpo.evaluation.benchmarks import load_benchmark
from mfpo.evaluation.benchmarks.base import BenchmarkSettings
from mfpo.evaluation.results import ScoreResult
from mfpo.report.marks import Mark, Piece, pieces
from mfpo.report.page import data_uri

Record = Mapping[str, Any]
_PICTURE_SIDE = 320
_SPANS = (
    ("absent_spans", "absent", "not in the picture"),
    ("wrong_spans", "wrong", "in the picture, but with another colour or in another place"),
    ("present_spans", "present", "in the picture"),
)


@dataclass(frozen=True, slots=True)
class AnswerView:
    """An answer ready for the template.

    Attributes:
        text: The answer, marked.
        absent: Mentions of absent objects.
        named: Objects in the picture that it names.
        present: Objects in the picture.
    """

    text: tuple[Piece, ...]
    absent: int
    named: int
    present: int


@dataclass(frozen=True, slots=True)
class AnswerPair:
    """Two answers to a question.

    Attributes:
        id: The item's id.
        question: What was asked.
        image: ``data:`` URI of the picture; empty where it is not at hand.
        before: Answer of the first run.
        after: Answer of the other one.
    """

    id: str
    question: str
    image: str
    before: AnswerView
    after: AnswerView


@dataclass(frozen=True, slots=True)
class AnswerSection:
    """Answers of two runs.

    Attributes:
        pairs: The ones to show, worst first.
        total: How many answers there are of both runs.
        cleared: Answers with an absent object in the first run and none in the other.
        introduced: The other way round.
        both: Answers with an absent object in both.
    """

    pairs: tuple[AnswerPair, ...]
    total: int
    cleared: int
    introduced: int
    both: int


def answer_section(before: ScoreResult, after: ScoreResult, limit: int = 12) -> AnswerSection | None:
    """Pair the answers of two score files whose records mark absent objects (``absent_spans``).

    Shown are those with most mentions of absent objects in the two answers *together*: picking the first
    run's worst answers would make any second run look better than it is.

    Args:
        before: Scores of the first run.
        after: Scores of the other run, of the same benchmark.
        limit: Pairs to show at most.

    Returns:
        None where the score files mark nothing or share no item.
    """
    firsts = {str(item["id"]): item for item in before.items if "absent_spans" in item and "answer" in item}
    seconds = {str(item["id"]): item for item in after.items if "absent_spans" in item and "answer" in item}
    shared = [name for name in firsts if name in seconds]
    if not shared:
        return None
    faults = {
        name: (len(firsts[name]["absent_spans"]), len(seconds[name]["absent_spans"])) for name in shared
    }
    worst = sorted(shared, key=lambda name: -sum(faults[name]))[:limit]
    pictures = _pictures(before, worst)
    return AnswerSection(
        pairs=tuple(
            AnswerPair(
                id=name,
                question=str(firsts[name].get("question", "")),
                image=pictures.get(name, ""),
                before=_view(firsts[name]),
                after=_view(seconds[name]),
            )
            for name in worst
        ),
        total=len(shared),
        cleared=sum(one > 0 and other == 0 for one, other in faults.values()),
        introduced=sum(one == 0 and other > 0 for one, other in faults.values()),
        both=sum(one > 0 and other > 0 for one, other in faults.values()),
    )


def _view(record: Record) -> AnswerView:
    text = str(record["answer"])
    marks = [
        Mark(int(start), int(end), style, title)
        for key, style, title in _SPANS
        for start, end in record.get(key, ())
    ]
    return AnswerView(
        text=tuple(pieces(text, marks)),
        absent=len(record["absent_spans"]),
        named=int(record.get("named_present", 0)),
        present=int(record.get("present", 0)),
    )


def _pictures(result: ScoreResult, ids: Sequence[str]) -> dict[str, str]:
    """The items' pictures from their benchmark; none where it is not at hand."""
    settings = BenchmarkSettings(
        **{
            name: result.settings[name]
            for name in ("data_dir", "split", "num_samples")
            if result.settings.get(name)
        }
    )
    try:
        benchmark = load_benchmark(result.name, settings)
        items = {item.id: item for item in benchmark.load() if item.id in set(ids)}
        return {name: data_uri(benchmark.open_image(item), _PICTURE_SIDE) for name, item in items.items()}
    except (UserError, RowError, OSError):
        return {}
