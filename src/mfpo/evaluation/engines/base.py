"""What an engine is given and what it gives back."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from mfpo.errors import Skip

if TYPE_CHECKING:
    from PIL.Image import Image

REQUEST_FAILED = "request-failed"
"""Reason of a skip that may be none the next time, unlike a broken picture."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question about a picture.

    Attributes:
        id: What the answer is kept by, and what its random choices are derived from.
        text: What is asked, after the picture.
        open_image: Opens the picture, RGB; raises RowError where that is not possible.
    """

    id: str
    text: str
    open_image: Callable[[], Image]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How answers are drawn.

    Attributes:
        max_new_tokens: Tokens after which an answer is cut.
        temperature: 0 for greedy answers.
        top_p: Share of the probability that is sampled from.
        seed: Seed of the samples.
    """

    max_new_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a question.

    Attributes:
        id: The question's id.
        answer: The answer, if there is one.
        skip: Why there is none.
    """

    id: str
    answer: str = ""
    skip: Skip | None = None


class Engine(Protocol):
    """Something that answers questions about pictures."""

    def answer(self, questions: Sequence[Question]) -> Iterator[list[Outcome]]:
        """Every question's outcome, some at a time, in any order."""

    @property
    def answered_by(self) -> set[str]:
        """Names of the models that have answered, where only the server knows them."""
