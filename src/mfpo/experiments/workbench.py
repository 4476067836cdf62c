"""Steps that experiments on the scene world are made of; each is skipped when its result is there.

Every step goes through the function behind the verb of the same name, so what runs here is what a user runs.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from mfpo import __version__
from mfpo.data.files import write_json
from mfpo.data.fingerprint import code_digest
from mfpo.errors import UserError
from mfpo.experiments.methods import METHODS, Budget, Method
from mfpo.preferences.config import BuildConfig
from mfpo.scenes.config import ScenesConfig
from mfpo.training.config import TrainConfig

CODE = (
    "data",
    "difficulty",
    "evaluation",
    "experiments/jobs.py",
    "experiments/workbench.py",
    "models",
    "preferences",
    "records.py",
    "scenes",
    "training",
)
"""Source that the results of an experiment depend on."""
PROBE_ROWS = 200


@dataclass(frozen=True, slots=True)
class Workbench:
    """Where an experiment's files are, and how much work it is.

    Attributes:
        folder: Everything is under it, except the cached model.
        seed: Seed of scenes, rows and the model before preference training.
        budget: How much data and work.
        cache_dir: Where trained scene models are kept; the user's cache when None.
        settings: What else the results depend on.
        quick: Train hardly at all and make rejected answers from templates, to see that everything runs.
        console: Where progress is told.
    """

    folder: Path
    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    cache_dir: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    quick: bool = False
    console: Console = field(default_factory=Console)

    @property
    def dataset(self) -> Path:
        """The preference rows with their image preferences."""
        return self.folder / "dataset"

    def llava(self) -> Path:
        """The small LLaVA, trained now unless it is in the cache.

        Raises:
            UserError: The folder holds results of other settings or of another version.
        """
        from mfpo.scenes.checkpoint import cached_llava
        from mfpo.scenes.training import Recipe

        self.console.rule("[bold]1  the small LLaVA")
        recipe = Recipe(seed=self.seed)
        if self.quick:
            recipe = replace(
                recipe, num_scenes=256, tower_steps=4, alignment_steps=4, steps=4, lesson_steps=2
            )
        self.claim(recipe.fingerprint())
        folder = cached_llava(recipe, self.cache_dir)
        self.console.print(f"checkpoint: {folder}")
        return folder

    def claim(self, recipe: str) -> None:
        """Mark the folder with what its results depend on, so that results of two settings never mix."""
        mark = {
            "mfpo": __version__,
            "code": code_digest(CODE),
            "scene_llava": recipe,
            "seed": self.seed,
            "methods": {method.name: asdict(method) for method in METHODS},
            **asdict(self.budget),
            **self.settings,
        }
        path = self.folder / "experiment.json"
        if path.is_file() and json.loads(path.read_text()) != mark:
            raise UserError(
                "the folder holds results of other settings or of another version",
                where=str(self.folder),
                fix="choose another --output_dir, or remove the folder",
            )
        write_json(path, mark)

    def build(self, model: Path) -> Path:
        """The dataset: sampled answers and their corrections, then keywords, regions and noise."""
        self.console.rule("[bold]2  preference rows: keywords, regions, noise")
        rows = ScenesConfig(
            num_samples=self.budget.num_rows,
            output_dir=str(self.folder / "scenes"),
            model_name_or_path=None if self.quick else str(model),
            seed=self.seed,
            swap_images=True,
            overwrite=True,
        )
        return self._build(rows, self.dataset)

    def probe_rows(self) -> Path:
        """Rows about validation scenes, from templates, for the distortion probe."""
        rows = ScenesConfig(
            num_samples=PROBE_ROWS,
            output_dir=str(self.folder / "probe_scenes"),
            split="validation",
            seed=self.seed,
            overwrite=True,
        )
        return self._build(rows, self.folder / "probe_dataset")

    def _build(self, rows: ScenesConfig, dataset: Path) -> Path:
        """Text preferences about scenes unless they are there, then the dataset with image preferences."""
        from mfpo.preferences.build import run as build
        from mfpo.scenes.command import ANNOTATIONS
        from mfpo.scenes.command import run as scenes

        annotations = Path(str(rows.output_dir)) / ANNOTATIONS
        if not annotations.is_file():
            scenes(rows)
        build(
            BuildConfig(
                dataset=str(rows.output_dir),
                annotations=str(annotations),
                output_dir=str(dataset),
                noise_step=self.budget.noise_step,
                noise_schedule=self.budget.noise_schedule,
                seed=self.seed,
            )
        )
        return dataset

    def rank(self, model: Path) -> None:
        """Reference log-probabilities and difficulty, once for all methods with the rows' own noise."""
        from mfpo.difficulty.config import RankConfig
        from mfpo.difficulty.rank import run as rank

        self.console.rule("[bold]3  reference pass: log-probabilities, entropy, difficulty")
        rank(RankConfig(dataset=str(self.dataset), model_name_or_path=str(model), per_device_batch_size=32))

    def training(
        self, method: Method, model: Path, learning_rate: float, output_dir: Path, seed: int = 0
    ) -> TrainConfig:
        """Settings of one training."""
        return TrainConfig(
            dataset=str(self.dataset),
            model_name_or_path=str(model),
            output_dir=str(output_dir),
            objective=method.objective,
            stages=method.stages,
            noise_scope=method.noise_scope,
            learning_rate=learning_rate,
            num_train_epochs=self.budget.num_epochs,
            per_device_train_batch_size=self.budget.batch_size,
            gradient_accumulation_steps=1,
            logging_steps=5,
            seed=seed,
        )
