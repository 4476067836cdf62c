"""What every benchmark is: questions to load, answers to read, judges to ask, scores to give.

The order of use, whoever answers and whoever judges::

    items = benchmark.load()                                # questions, for generation
    predictions = benchmark.read_answers(path)              # ours or the official answer format
    items = benchmark.select(predictions, path)             # what is scored; complains of what is missing
    requests = benchmark.judge_requests(items, answers)     # empty where no judge is needed
    judgements = {request.key: reply, ...}                  # from a judge, or benchmark.read_judgements(path)
    result = benchmark.score(items, answers, judgements)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias

from mfpo.errors import UserError, nearest
from mfpo.evaluation.answers import read_answers, read_skips
from mfpo.evaluation.results import ScoreResult, finite, score_result
from mfpo.evaluation.statistics import Metric, tabulate, values
from mfpo.records import Prediction

if TYPE_CHECKING:
    from PIL.Image import Image

    from mfpo.evaluation.config import QuestionSettings, ScoreSettings

Mode: TypeAlias = Literal["official", "strict"]


@dataclass(frozen=True, slots=True)
class JudgeRequest:
    """One question to a judge, exactly as the official script sends it.

    Attributes:
        key: What the reply is kept by; the item's id.
        messages: Chat messages of the OpenAI protocol: pairs of role and text.
        max_tokens: Tokens after which the reply is cut; the server's limit when None.
        temperature: As the official script has it; the server's default when None.
    """

    key: str
    messages: tuple[tuple[str, str], ...]
    max_tokens: int | None = None
    temperature: float | None = None

    def payload(self) -> list[dict[str, str]]:
        """The messages as the protocol wants them."""
        return [{"role": role, "content": text} for role, text in self.messages]


@dataclass(frozen=True, slots=True)
class Judge:
    """What a benchmark needs a judge for.

    Attributes:
        model: The judge of the official script; scores of different judges don't compare.
        required: Whether there are no scores without one.
        purpose: What it does, in a few words for people.
    """

    model: str
    required: bool
    purpose: str


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
    """Which questions are asked, and how answers are scored.

    Attributes:
        data_dir: Folder with the benchmark's data, for those that need one.
        split: Part of the benchmark, for those that have several.
        num_samples: Keep to the items of the first N images; all of them when None.
        mode: ``official`` scores as the official script does, quirks included; ``strict`` without them.
        variant: Which of the versions in circulation, for benchmarks that have several; its first when None.
        similarity: What counts as a synonym, for ``amber``: ``exact``, a table file or a source of vectors.
    """

    data_dir: str | None = None
    split: str = "test"
    num_samples: int | None = None
    mode: Mode = "official"
    variant: str | None = None
    similarity: str | None = None

    @classmethod
    def of(cls, questions: QuestionSettings, scoring: ScoreSettings | None = None) -> BenchmarkSettings:
        """What a verb's settings say of its benchmark; how answers are scored only where they are."""
        return cls(
            data_dir=questions.data_dir,
            split=questions.split,
            num_samples=questions.num_samples,
            mode="official" if scoring is None else scoring.mode,
            variant=questions.variant,
            similarity=None if scoring is None else scoring.similarity,
        )


class Benchmark(ABC):
    """A benchmark with its settings. One benchmark is one file, and one line of the table of benchmarks.

    Attributes:
        name: What the user calls it.
        metrics: Its metrics, as ratios of sums of the counts in its item records.
        max_new_tokens: Tokens after which an answer is cut unless the user says otherwise.
        judge: What a judge is needed for; None where none is.
        variants: Versions in circulation, the default one first; empty where there is one only.
        quirks: What ``official`` does and ``strict`` does not, by a short name; empty where nobody else's
            script is followed.
        settings: Which questions are asked, and how answers are scored.
    """

    name: ClassVar[str]
    metrics: ClassVar[Mapping[str, Metric]]
    max_new_tokens: ClassVar[int] = 512
    judge: ClassVar[Judge | None] = None
    variants: ClassVar[tuple[str, ...]] = ()
    quirks: ClassVar[Mapping[str, str]] = {}

    def __init__(self, settings: BenchmarkSettings | None = None) -> None:
        self.settings = settings or BenchmarkSettings()
        self._check_variant()

    @property
    def variant(self) -> str:
        """The chosen version; empty where there is one only."""
        return self.settings.variant or next(iter(self.variants), "")

    @abstractmethod
    def load(self) -> list[Item]:
        """All items in their order, the same for the same settings.

        Raises:
            UserError: The data is not there or not as expected, or the settings don't fit.
        """

    @abstractmethod
    def open_image(self, item: Item) -> Image:
        """The item's picture, RGB."""

    def record(self, item: Item, answer: str, reply: str | None = None) -> dict[str, Any]:
        """The counts of one answered item, as [`metrics`] name them; identity and texts are added to it.

        Args:
            item: The item.
            answer: What the model said.
            reply: What the judge said of it; None where there is no judge, or it has not been asked.
        """
        raise NotImplementedError

    def records(
        self,
        items: Sequence[Item],
        answers: Mapping[str, Prediction],
        judgements: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """[`record`] of all items; benchmarks that read answers in batches do it here."""
        replies = judgements or {}
        return [self.record(item, answers[item.id].answer, replies.get(item.id)) for item in items]

    def read_answers(self, path: str | Path) -> list[Prediction]:
        """The answers in a file: ours, or for a benchmark that has one, the format of its official script.

        Raises:
            UserError: The file cannot be read, or a line of it is no answer.
        """
        return read_answers(path)

    def select(self, predictions: Sequence[Prediction], path: str | Path) -> list[Item]:
        """The items that a file of answers is scored on: all of [`load`] whose picture can be used.

        Args:
            predictions: The answers of the file.
            path: The file, for messages.

        Raises:
            UserError: Items have no answer. Answers to other questions are left aside and counted.
        """
        skipped = read_skips(path)
        items = [item for item in self.load() if item.id not in skipped]
        answered = {prediction.id for prediction in predictions}
        missing = [item.id for item in items if item.id not in answered]
        if missing:
            raise UserError(
                f"{len(missing)} of {len(items)} items have no answer, the first is {missing[0]!r}",
                where=str(path),
                fix="let `mfpo generate` go on with this file, or score fewer images with --num_samples",
            )
        return items

    def unanswered(self, known: Set[str]) -> int:
        """How many questions lack an answer; none where [`select`] wants them all, or any number is complete.

        Args:
            known: Ids of the items that are scored, and of those that were skipped for their picture.
        """
        return 0

    def unlimited(self) -> Benchmark:
        """The same benchmark with all its items."""
        return type(self)(replace(self.settings, num_samples=None))

    def judge_requests(self, items: Sequence[Item], answers: Mapping[str, Prediction]) -> list[JudgeRequest]:
        """What a judge is asked about the answers, an item each, in the order of the items."""
        return []

    def accepts(self, reply: str) -> bool:
        """Whether a judge's reply is kept; the official script asks again until it gets such a one."""
        return True

    def read_judgements(self, path: str | Path) -> dict[str, str]:
        """Replies of a judge by the key of their request, from a file of the official script's format.

        Raises:
            UserError: The benchmark needs no judge, or the file is not of that format.
        """
        raise UserError(f"{self.name} needs no judge", where=f"--judgements {path}", fix="leave it out")

    def score(
        self,
        items: Sequence[Item],
        answers: Mapping[str, Prediction],
        judgements: Mapping[str, str] | None = None,
    ) -> ScoreResult:
        """Score answered items.

        Args:
            items: The items to score.
            answers: An answer for each of them, by the item's id.
            judgements: The judge's replies by the key of their request, for benchmarks that need a judge.

        Raises:
            UserError: Replies are needed and missing.
        """
        records = self._full_records(items, answers, judgements)
        result = score_result(self.name, records, self.metrics_of(records), self.describe())
        if not self.quirks:
            return result
        result.metrics |= self.printed(records)
        other = self.in_mode("strict" if self.settings.mode == "official" else "official")
        both = {
            self.settings.mode: result.metrics,
            other.settings.mode: other.totals(other._full_records(items, answers, judgements)),
        }
        result.settings["modes"] = {
            mode: {name: finite(value) for name, value in both[mode].items()}
            for mode in ("official", "strict")
        }
        result.settings["quirks"] = dict(self.quirks)
        return result

    def metrics_of(self, records: Sequence[Mapping[str, Any]]) -> dict[str, Metric]:
        """The metrics that these records say something about: those of their kinds."""
        kinds = {record["kind"] for record in records}
        return {
            name: metric
            for name, metric in self.metrics.items()
            if not metric.kinds or kinds.intersection(metric.kinds)
        }

    def totals(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """The metrics without their intervals."""
        return values(tabulate(records, self.metrics_of(records))) | self.printed(records)

    def printed(self, records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """What the official script prints where that is not the ratio of sums: rounded, or with a constant.

        Nothing in ``strict`` mode.
        """
        return {}

    def in_mode(self, mode: Mode) -> Benchmark:
        """The same benchmark, scored the other way."""
        return type(self)(replace(self.settings, mode=mode))

    def _full_records(
        self,
        items: Sequence[Item],
        answers: Mapping[str, Prediction],
        judgements: Mapping[str, str] | None,
    ) -> list[dict[str, Any]]:
        return [
            {
                "id": item.id,
                "group": item.group or item.id,
                "kind": item.kind,
                "image": item.image,
                "question": item.question,
                "answer": answers[item.id].answer,
                **counts,
            }
            for item, counts in zip(items, self.records(items, answers, judgements), strict=True)
        ]

    def describe(self) -> dict[str, Any]:
        """Settings to be kept with a score."""
        return asdict(self.settings)

    def _check_variant(self) -> None:
        variant = self.settings.variant
        if variant is not None and variant not in self.variants:
            fix = nearest(variant, self.variants) if self.variants else "leave it out"
            raise UserError(f"{self.name} has no such variant", where=f"--variant {variant}", fix=fix)
