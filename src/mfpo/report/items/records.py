"""What the page knows of an item. The fields' names are the keys of the JSON that the page's script reads."""

from __future__ import annotations

from dataclasses import dataclass

Piece = str | tuple[str, str]
"""A stretch of an answer: as it is, or with its mark: ``absent``, ``wrong`` or ``present``."""


@dataclass(frozen=True, slots=True)
class AnswerEntry:
    """A run's answer to an item.

    Attributes:
        pieces: The answer, cut at its marks.
        cut: Characters that the page leaves out at its end.
        badness: The larger the worse; None where nothing could be made of the answer.
        faulty: Whether it is wrong, or hallucinates.
        verdict: What was made of it, in words.
        replies: What judges said of it.
    """

    pieces: tuple[Piece, ...]
    cut: int
    badness: float | None
    faulty: bool
    verdict: str
    replies: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ItemEntry:
    """A question with the answers of the runs.

    Attributes:
        id: The item's id.
        kind: Its type or category within the benchmark.
        question: What was asked.
        truth: What is right, in words, where the record says it.
        image: Name of the picture.
        picture: Its place in [`ItemSection.pictures`]; -1 where it is not on the page.
        problem: Why its picture is not on the page; empty where it is, or was not looked for.
        answers: One per run of the report; None for a run that has not answered.
    """

    id: str
    kind: str
    question: str
    truth: str
    image: str
    picture: int
    problem: str
    answers: tuple[AnswerEntry | None, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """How a run's answers differ from those of an earlier run, in items that both have answered.

    Attributes:
        before: Name of the earlier run.
        run: Its name.
        total: Items that both have answered.
        cleared: Faulty in the earlier run and not in this one.
        introduced: The other way round.
        both: Faulty in both.
    """

    before: str
    run: str
    total: int
    cleared: int
    introduced: int
    both: int


@dataclass(frozen=True, slots=True)
class ItemSection:
    """The items of a benchmark.

    Attributes:
        name: Its name.
        order: What badness is, in words.
        items: Worst first.
        pictures: ``data:`` URIs.
        changes: One for each run but the first that has answered it.
        looked: Items, the worst ones, whose pictures were looked for.
        unfound: How many of these have none.
    """

    name: str
    order: str
    items: tuple[ItemEntry, ...]
    pictures: tuple[str, ...]
    changes: tuple[Change, ...]
    looked: int
    unfound: int
