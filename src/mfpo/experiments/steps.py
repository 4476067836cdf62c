"""The steps that experiments are made of, each addressed by what its result depends on.

A step's digest is a hash over its settings, over the steps it needs and over the code and libraries that
carry it out. Two experiments that ask for the same training ask for the same digest, and get one training.
Every step goes through the function behind the verb of the same name, so what runs here is what a user runs.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from mfpo.data.files import write_json
from mfpo.data.fingerprint import code_digest, library_versions
from mfpo.experiments.measures import Measuring
from mfpo.experiments.schema import Source
from mfpo.records import Schedule, Scope
from mfpo.scenes.config import DifficultySettings
from mfpo.training.config import SKIPPED_FILE, TrainConfig

DATA_CODE = ("data", "models", "preferences", "records.py", "scenes")
TRAINING_CODE = (*DATA_CODE, "difficulty", "training")
MEASURE_CODE = (*DATA_CODE, "evaluation", "experiments/measures.py", "experiments/scene_measures.py")
NOT_DECISIVE = frozenset(
    {"dataset", "model_name_or_path", "output_dir", "report_to", "plot_every", "save_steps", "dry_run"}
    | {"push_to_hub", "resume_from_checkpoint"}
)
"""Settings of a training that do not change its result, or that stand for a step of their own."""

Place: TypeAlias = Callable[["Step"], Path]
"""Where a step's result is."""


class Step(ABC):
    """Something that is made once.

    Attributes:
        kind: Folder of the store that its results are in.
    """

    kind: ClassVar[str]

    @cached_property
    def digest(self) -> str:
        """The step's address: 16 hex digits of SHA-256 over [`depends`], needed steps included."""
        parts = self.depends() | {"needs": [step.digest for step in self.needs]}
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @property
    def needs(self) -> tuple[Step, ...]:
        """Steps whose results it takes."""
        return ()

    @property
    def cost(self) -> float:
        """About how many seconds it takes on one core at full size; order and progress bar depend on it."""
        return 1.0

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.kind} {self.digest}"

    @abstractmethod
    def depends(self) -> dict[str, Any]:
        """What the result depends on, as JSON, the needed steps left out."""

    @abstractmethod
    def done(self, folder: Path) -> bool:
        """Whether the result in a folder is complete."""

    @abstractmethod
    def make(self, folder: Path, place: Place) -> None:
        """Make the result; what an interrupted attempt left behind may be there."""


class Model(Step):
    """A step whose result is a checkpoint."""


@dataclass(frozen=True)
class SceneLlava(Model):
    """The small LLaVA of a world, trained from nothing.

    Attributes:
        difficulty: The world.
        seed: Seed of its scenes and weights.
        short: Train it hardly at all.
    """

    kind: ClassVar[str] = "llava"
    difficulty: DifficultySettings = field(default_factory=DifficultySettings)
    seed: int = 0
    short: bool = False

    @property
    def cost(self) -> float:
        """It draws all its scenes and trains tower and language model."""
        return 600.0

    @cached_property
    def recipe(self) -> Any:
        """What it is trained by."""
        from mfpo.scenes.checkpoint import quick, recipe_for

        recipe = recipe_for(self.difficulty, self.seed)
        return quick(recipe) if self.short else recipe

    def depends(self) -> dict[str, Any]:
        """The recipe's own fingerprint covers code and libraries."""
        return {"recipe": self.recipe.fingerprint()}

    def done(self, folder: Path) -> bool:
        """A folder holds the model of a recipe as a whole or not at all."""
        from mfpo.scenes.checkpoint import recipe_of

        return recipe_of(folder) == self.recipe.fingerprint()

    def make(self, folder: Path, place: Place) -> None:
        """Train it."""
        from mfpo.scenes.checkpoint import ensure_llava

        # Workers of a worker would outlive it when it is killed.
        ensure_llava(self.recipe, folder, num_workers=1)


@dataclass(frozen=True)
class GivenModel(Model):
    """A checkpoint that is there already.

    Attributes:
        model_name_or_path: Folder or Hub name.
        fingerprint: What tells it from another one of that name.
    """

    kind: ClassVar[str] = "given"
    model_name_or_path: str = ""
    fingerprint: str = ""

    def depends(self) -> dict[str, Any]:
        """Its weights; where they are does not matter."""
        return {"model": self.fingerprint}

    def done(self, folder: Path) -> bool:
        """It is there already."""
        return True

    def make(self, folder: Path, place: Place) -> None:
        """Nothing is to be made."""


class Rows(Step):
    """A step whose result is a dataset folder."""

    def dataset(self, folder: Path) -> Path:
        """The dataset in the step's folder."""
        return folder


@dataclass(frozen=True)
class SceneRows(Rows):
    """Preference rows about scenes, with keywords, regions and noise.

    Attributes:
        difficulty: The world; its ``faulty_corrections`` are those of the rows.
        model: Model whose answers are rejected; captions from templates when None.
        seed: Seed of scenes, samples and noise.
        num_rows: Number of rows.
        split: Scenes they are about.
        swap_images: Whether each row has its picture with one object swapped.
        noise_step: Diffusion step.
        noise_schedule: Its schedule.
    """

    kind: ClassVar[str] = "rows"
    difficulty: DifficultySettings = field(default_factory=DifficultySettings)
    model: Model | None = None
    seed: int = 0
    num_rows: int = 1200
    split: Any = "train"
    swap_images: bool = True
    noise_step: int = 900
    noise_schedule: Schedule = "vcd"

    @property
    def needs(self) -> tuple[Step, ...]:
        """The model that answers."""
        return () if self.model is None else (self.model,)

    @property
    def cost(self) -> float:
        """Drawing, answers, keywords."""
        return self.num_rows / 24

    def depends(self) -> dict[str, Any]:
        """World, sizes, noise and code."""
        settings = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "model"}
        settings["difficulty"] = asdict(self.difficulty)
        return settings | _code(DATA_CODE)

    def dataset(self, folder: Path) -> Path:
        """Beside the folder of the text preferences."""
        return folder / "dataset"

    def done(self, folder: Path) -> bool:
        """The dataset's manifest is written last."""
        return (self.dataset(folder) / "manifest.json").is_file()

    def make(self, folder: Path, place: Place) -> None:
        """As `mfpo scenes` and `mfpo build` do."""
        model = None if self.model is None else str(place(self.model))
        make_rows(self, model, folder / "scenes", self.dataset(folder))


@dataclass(frozen=True)
class GivenRows(Rows):
    """A dataset folder that `mfpo build` wrote.

    Attributes:
        folder: The folder.
        fingerprint: What tells it from another one.
    """

    kind: ClassVar[str] = "given"
    folder: str = ""
    fingerprint: str = ""

    def depends(self) -> dict[str, Any]:
        """Its rows; where they are does not matter."""
        return {"rows": self.fingerprint}

    def done(self, folder: Path) -> bool:
        """It is there already."""
        return True

    def make(self, folder: Path, place: Place) -> None:
        """Nothing is to be made."""


@dataclass(frozen=True)
class Ranking(Step):
    """Reference log-probabilities and entropies of rows; they are kept in the dataset's folder.

    Attributes:
        rows: The rows.
        model: The reference.
        noise_scope: In place of the rows' own.
        noise_step: In place of the rows' own.
        semantic: Also the semantic entropies.
        batch_size: Rows scored at once.
        dtype: As `mfpo rank --precision` takes it.
    """

    kind: ClassVar[str] = "rankings"
    rows: Rows
    model: Model
    noise_scope: Scope | None = None
    noise_step: int | None = None
    semantic: bool = False
    batch_size: int = 32

    @property
    def needs(self) -> tuple[Step, ...]:
        """Rows and model; sampling answers comes after scoring the given ones."""
        plain = (replace(self, semantic=False),) if self.semantic else ()
        return self.rows, self.model, *plain

    @property
    def cost(self) -> float:
        """One pass; many sampled answers."""
        return 200.0 if self.semantic else 15.0

    def depends(self) -> dict[str, Any]:
        """Noise and code."""
        settings = {name: getattr(self, name) for name in ("noise_scope", "noise_step", "semantic")}
        return settings | {"batch_size": self.batch_size} | _code((*DATA_CODE, "difficulty"))

    def done(self, folder: Path) -> bool:
        """The scores have names of their own in the dataset's folder; a mark stands here."""
        return (folder / "done.json").is_file()

    def make(self, folder: Path, place: Place) -> None:
        """As `mfpo rank` does."""
        from mfpo.difficulty.config import RankConfig
        from mfpo.difficulty.rank import run as rank

        rank(
            RankConfig(
                dataset=str(self.rows.dataset(place(self.rows))),
                model_name_or_path=str(place(self.model)),
                noise_scope=self.noise_scope,
                noise_step=self.noise_step,
                per_device_batch_size=self.batch_size,
                semantic=self.semantic,
            )
        )
        write_json(folder / "done.json", {"rows": self.rows.digest, "model": self.model.digest})


@dataclass(frozen=True)
class Training(Model):
    """A training of `mfpo train`.

    Attributes:
        rows: What it is trained on.
        model: What it starts from.
        config: Its settings; dataset, model and folder are put in when it runs.
        ranking: Reference pass whose scores it finds; None if it makes its own or needs none.
        keep_stages: Whether the models at the ends of the stages are kept, in ``stage-1``, ``stage-2``, ...
    """

    kind: ClassVar[str] = "trainings"
    rows: Rows
    model: Model
    config: TrainConfig
    ranking: Ranking | None = None
    keep_stages: bool = False

    @property
    def needs(self) -> tuple[Step, ...]:
        """Rows, model and reference pass."""
        return self.rows, self.model, *(() if self.ranking is None else (self.ranking,))

    @property
    def cost(self) -> float:
        """Two sequences a row, or three."""
        text_only = self.config.objective.startswith(("dpo", "ha-dpo")) or self.config.image_weight == 0
        return 35.0 if text_only else 55.0

    @property
    def name(self) -> str:
        """With what is trained."""
        return f"training {self.config.objective} ({self.digest})"

    def depends(self) -> dict[str, Any]:
        """All settings that change the result, and code."""
        settings = {k: v for k, v in asdict(self.config).items() if k not in NOT_DECISIVE}
        return {"config": settings} | _code(TRAINING_CODE)

    def done(self, folder: Path) -> bool:
        """The list of skipped rows is written after the weights."""
        stages = (not self.keep_stages) or (stage_folder(folder, NUM_STAGES - 1) / "config.json").is_file()
        return stages and (folder / SKIPPED_FILE).is_file()

    def make(self, folder: Path, place: Place) -> None:
        """Train."""
        from mfpo.experiments.stage_models import StageModels
        from mfpo.training.train import run as train

        config = replace(
            self.config,
            dataset=str(self.rows.dataset(place(self.rows))),
            model_name_or_path=str(place(self.model)),
            output_dir=str(folder),
            trainer={"disable_tqdm": True, **self.config.trainer},
        )
        (folder / SKIPPED_FILE).unlink(missing_ok=True)
        train(config, callbacks=[StageModels(folder)] if self.keep_stages else [])


@dataclass(frozen=True)
class Measurement(Step):
    """What a model does: answers that are scored, or a probe; the result is ``scores/<measure>.json``.

    Attributes:
        model: The model.
        measuring: What is measured, and how.
        stage: Measure the model at the end of this stage of its training; the finished one when None.
        rows: Rows that a probe needs.
        world: Scene model whose world the scenes are of; the default world when None.
    """

    kind: ClassVar[str] = "measurements"
    model: Model
    measuring: Measuring
    stage: int | None = None
    rows: Rows | None = None
    world: SceneLlava | None = None

    @property
    def needs(self) -> tuple[Step, ...]:
        """Model, rows, world."""
        return tuple(step for step in (self.model, self.rows, self.world) if step is not None)

    @property
    def cost(self) -> float:
        """By what is measured."""
        return self.measuring.cost

    @property
    def name(self) -> str:
        """With what is measured."""
        return f"{self.measuring.measure} of {self.model.name}"

    def depends(self) -> dict[str, Any]:
        """How it is measured, and code."""
        return {"measuring": self.measuring.decisive(), "stage": self.stage} | _code(MEASURE_CODE)

    def done(self, folder: Path) -> bool:
        """Score files are written as a whole."""
        return self.scores(folder).is_file()

    def scores(self, folder: Path) -> Path:
        """The score file."""
        return folder / "scores" / f"{self.measuring.measure}.json"

    def make(self, folder: Path, place: Place) -> None:
        """Measure; begun answers of small models are made anew, so that the bits are those of one go."""
        from mfpo.experiments.measures import measure

        model = place(self.model)
        if self.stage is not None and self.stage < NUM_STAGES:
            model = stage_folder(model, self.stage)
        rows = None if self.rows is None else self.rows.dataset(place(self.rows))
        world = None if self.world is None else place(self.world)
        measure(self.measuring, str(model), folder, rows=rows, world=world)


NUM_STAGES = 3
"""Easy, medium, hard."""


def stage_folder(training: Path, stage: int) -> Path:
    """Where the model at the end of a stage is, the last stage excepted."""
    return training / f"stage-{stage}"


def make_rows(rows: SceneRows, model: str | None, scenes_dir: Path, dataset: Path) -> None:
    """Text preferences about scenes unless they are there, then the dataset with image preferences."""
    from mfpo.preferences.build import run as build
    from mfpo.preferences.config import BuildConfig
    from mfpo.scenes.command import ANNOTATIONS
    from mfpo.scenes.command import run as scenes
    from mfpo.scenes.config import ScenesConfig

    if not (scenes_dir / ANNOTATIONS).is_file():
        scenes(
            ScenesConfig(
                **asdict(rows.difficulty),
                num_samples=rows.num_rows,
                output_dir=str(scenes_dir),
                model_name_or_path=model,
                split=rows.split,
                seed=rows.seed,
                swap_images=rows.swap_images,
                overwrite=True,
            )
        )
    build(
        BuildConfig(
            dataset=str(scenes_dir),
            annotations=str(scenes_dir / ANNOTATIONS),
            output_dir=str(dataset),
            noise_step=rows.noise_step,
            noise_schedule=rows.noise_schedule,
            seed=rows.seed,
        )
    )


def source_model(source: Source, llava: Model) -> Model | None:
    """The model that gives rejected answers; None for templates."""
    return llava if source == "sampled" else None


def _code(parts: tuple[str, ...]) -> dict[str, Any]:
    return {"code": code_digest(parts), "libraries": library_versions()}
