"""What an experiment's file may say, as records."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from mfpo.evaluation.config import Decoding
from mfpo.scenes.config import DifficultySettings

FigureKind: TypeAlias = Literal[
    "trade_off",
    "thresholds",
    "relations",
    "bars",
    "steps",
    "stages",
    "rewards",
    "losses",
    "distortion",
    "none",
]
Source: TypeAlias = Literal["sampled", "templates"]
Split: TypeAlias = Literal["validation", "test"]
TUNED = "tuned"
"""In place of the arms of a file: the arms of all files that are tuned on their own."""
NOT_OURS = frozenset(
    {"dataset", "model_name_or_path", "output_dir", "seed", "dry_run", "push_to_hub", "recipe"}
)
"""Settings of a training that the experiment sets and a file may not, and the name of a recipe, which the
command line of `mfpo train` takes alone."""
MEASURES = (
    *("scenes", "questions", "matched", "grounding", "distortion", "attention", "naming", "rewards"),
    *("amber", "chair", "llava-bench", "mmhal", "objhal", "pope"),
)
"""What a model can be measured by: kinds of the scene world, of any world, and benchmarks."""


@dataclass(frozen=True)
class Data:
    """The preference rows of an arm.

    Attributes:
        source: Rejected answers sampled from the model, or captions made from templates.
        num_rows: Number of rows; the budget's when None.
        faulty_corrections: Share of chosen answers with an absent object.
    """

    source: Source = "sampled"
    num_rows: int | None = None
    faulty_corrections: float = 0.0


@dataclass(frozen=True)
class Arm:
    """One row of the table: a way to train, or to decode.

    Attributes:
        name: Its name.
        text: What it is, in a phrase.
        train: Settings of `mfpo train`; None for the model before preference training.
        decoding: How answers are decoded.
        decoding_options: Options of the decoding.
        data: The rows it is trained on.
        tune: Name of the arm whose learning rate it takes; its own when empty.
        stage: Evaluate the checkpoint at the end of this stage (1, 2, ...); the finished model when None.
        x: Where it stands on the horizontal axis of a figure.
        group: Line of a figure that it belongs to.
        world: Name of the world, when the experiment has several.
    """

    name: str
    text: str = ""
    train: Mapping[str, Any] | None = None
    decoding: Decoding = "greedy"
    decoding_options: Mapping[str, Any] = field(default_factory=dict)
    data: Data = field(default_factory=Data)
    tune: str = ""
    stage: int | None = None
    x: float | None = None
    group: str = ""
    world: str = "default"

    @property
    def plain_name(self) -> str:
        """Its name without that of its world."""
        return self.name.removesuffix(f", {self.world}")

    @property
    def tuned_as(self) -> str:
        """The arm whose learning rate it takes."""
        return self.tune or self.name

    @property
    def tunes_itself(self) -> bool:
        """Whether its learning rate is to be chosen for it."""
        return self.train is not None and not self.tune and "learning_rate" not in self.train


@dataclass(frozen=True)
class Claim:
    """Something the paper says, in a form that can be checked.

    Attributes:
        text: The claim in words.
        better: Arm that is said to be better.
        than: Arms that it is said to be better than.
        metrics: Metrics it is said to be better on; each has a direction.
        source: Where the paper says it.
    """

    text: str
    better: str
    than: tuple[str, ...]
    metrics: tuple[str, ...]
    source: str = ""


@dataclass(frozen=True)
class Relation:
    """A question about all arms together: does one metric rise with another?

    Attributes:
        text: The question in words.
        x: A metric.
        y: Another one.
    """

    text: str
    x: str
    y: str


@dataclass(frozen=True)
class Paper:
    """The paper's numbers.

    Attributes:
        columns: Names of its metrics.
        rows: Its numbers by arm, or by a name of its own for what has no arm here; None where it gives none.
    """

    columns: tuple[str, ...] = ()
    rows: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """What is drawn.

    Attributes:
        kind: Sort of drawing.
        metrics: What it shows, where that is not plain from the kind.
        x: Name of the horizontal axis.
        highlight: Arms whose `thresholds` are drawn in colour, the others in grey; all when empty.
    """

    kind: FigureKind = "trade_off"
    metrics: tuple[str, ...] = ()
    x: str = ""
    highlight: tuple[str, ...] = ()


@dataclass(frozen=True)
class Experiment:
    """A table or figure as a file declares it.

    Attributes:
        name: Name of the file.
        title: What it is, in a line.
        arms: The rows of the table, all worlds together; the first one is what others are compared with.
        metrics: For each measure, the metrics that are shown.
        claims: What is checked.
        relations: Metrics that are compared over all arms.
        paper: The paper's numbers.
        figure: What is drawn.
        worlds: Difficulty of each world; each arm is run in all of them.
        sweep: Learning rates that every arm is trained with; empty for none.
        criterion: Metric by which a sweep chooses.
        split: Scenes that are scored.
        notes: What a reader must know.
    """

    name: str
    title: str
    arms: tuple[Arm, ...]
    metrics: Mapping[str, tuple[str, ...]]
    claims: tuple[Claim, ...] = ()
    relations: tuple[Relation, ...] = ()
    paper: Paper = field(default_factory=Paper)
    figure: Figure = field(default_factory=Figure)
    worlds: Mapping[str, DifficultySettings] = field(
        default_factory=lambda: {"default": DifficultySettings()}
    )
    sweep: tuple[float, ...] = ()
    criterion: str = "F1"
    split: Split = "test"
    notes: tuple[str, ...] = ()

    def arm(self, name: str) -> Arm:
        """The arm of that name."""
        return next(arm for arm in self.arms if arm.name == name)
