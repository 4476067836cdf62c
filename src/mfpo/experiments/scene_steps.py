"""The steps of the scene world: its small LLaVA, and preference rows about scenes."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

from mfpo.experiments.step import DATA_CODE, Model, Place, Rows, Step, code
from mfpo.records import Schedule
from mfpo.scenes.config import DifficultySettings


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
        return settings | code(DATA_CODE)

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
