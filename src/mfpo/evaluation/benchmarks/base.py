"""What every benchmark is: questions to load, answers to read, scores to give."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from mfpo.evaluation.answers import read_answers
from mfpo.evaluation.results import ScoreResult, score_result
from mfpo.evaluation.statistics import Metric
from mfpo.records import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class Item:
    """One question of a benchmark.

    Attributes:
        id: Unique within the benchmark; answers are kept by it.
        question: Text of the question; it is asked with the image before it.
        image: Name of the image, for people and for [`Benchmark.open_image`].
        kind: Kind of item within the benchmark (``describe``, ``exists``, ...).
        group: What the item shares with others that are not independent of it, usually the image.
        truth: What the benchmark needs to score an answer.
    """

    id: str
    question: str
    image: str = ""
    kind: str = ""
    group: str = ""
    truth: Any = None


@dataclass(frozen=True, slots=True)
class BenchmarkSettings:
    """Which questions are asked.

    Attributes:
        data_dir: Folder with the benchmark's data, for those that need one.
        split: Part of the benchmark, for those that have several.
        num_samples: Keep to the items of the first N images; all of them when None.
    """

    data_dir: str | None = None
    split: str = "test"
    num_samples: int | None = None


class Benchmark(ABC):
    """A benchmark with its settings. One benchmark is one file, and one line of the table of benchmarks.

    Attributes:
        name: What the user calls it.
        metrics: Its metrics, as ratios of sums of the counts in its item records.
        max_new_tokens: Tokens after which an answer is cut unless the user says otherwise.
        settings: Which questions are asked.
    """

    name: ClassVar[str]
    metrics: ClassVar[Mapping[str, Metric]]
    max_new_tokens: ClassVar[int] = 512

    def __init__(self, settings: BenchmarkSettings | None = None) -> None:
        self.settings = settings or BenchmarkSettings()

    @abstractmethod
    def load(self) -> list[Item]:
        """All items in their order, the same for the same settings.

        Raises:
            UserError: The data is not there or not as expected, or the settings don't fit.
        """

    @abstractmethod
    def open_image(self, item: Item) -> Image:
        """The item's picture, RGB."""

    @abstractmethod
    def record(self, item: Item, answer: str) -> dict[str, Any]:
        """The counts of one answered item, as [`metrics`] name them; identity and texts are added to it."""

    def read_answers(self, path: str | Path) -> list[Prediction]:
        """The answers in a file: ours, or for a benchmark that has one, the format of its official script.

        Raises:
            UserError: The file cannot be read, or a line of it is no answer.
        """
        return read_answers(path)

    def score(self, items: Sequence[Item], answers: Mapping[str, Prediction]) -> ScoreResult:
        """Score answered items.

        Args:
            items: The items to score.
            answers: An answer for each of them, by the item's id.
        """
        records = [
            {
                "id": item.id,
                "group": item.group or item.id,
                "kind": item.kind,
                "image": item.image,
                "question": item.question,
                "answer": answers[item.id].answer,
                **self.record(item, answers[item.id].answer),
            }
            for item in items
        ]
        return score_result(self.name, records, self.metrics, self.describe())

    def describe(self) -> dict[str, Any]:
        """Settings to be kept with a score."""
        return asdict(self.settings)
