"""The two worlds of experiments: scenes, where everything is made here, and a real checkpoint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from mfpo.data.folder import stored_columns
from mfpo.errors import UserError
from mfpo.evaluation.benchmarks import benchmark_class
from mfpo.evaluation.benchmarks.images import ENDINGS
from mfpo.evaluation.config import JudgeSettings
from mfpo.evaluation.official_data import sha256_of
from mfpo.evaluation.provenance import model_fingerprint, processor_fingerprint
from mfpo.experiments.budget import Budget
from mfpo.experiments.measures import GivenData, Measuring
from mfpo.experiments.plan import base_settings
from mfpo.experiments.scene_steps import SceneLlava, SceneRows
from mfpo.experiments.schema import Arm, Data, Experiment
from mfpo.experiments.step import GivenModel, GivenRows, Model, Rows
from mfpo.experiments.steps import Measurement
from mfpo.experiments.tuned import Tuned
from mfpo.records import Scope
from mfpo.scenes.config import DifficultySettings
from mfpo.training.config import TrainConfig

PROBED: tuple[tuple[Scope, ...], tuple[int, ...]] = (("region", "black"), (500, 700, 900))
NAMED: tuple[tuple[Scope, ...], tuple[int, ...]] = (
    ("region", "global", "erase", "black"),
    (300, 500, 600, 700, 800, 900, 999),
)
"""Distortions of the distortion probe and of the forced choice, and their noise steps."""


@dataclass(frozen=True)
class SceneWorld:
    """Everything is made here: a LLaVA for each SFT seed, rows from its own mistakes, unseen scenes.

    Attributes:
        experiment: The experiment.
        budget: How much data and work.
        tuned: Learning rates.
    """

    experiment: Experiment
    budget: Budget
    tuned: Tuned

    name = "scenes"

    rows_at_once = 32

    @property
    def semantic_samples(self) -> int:
        """As the budget has it."""
        return self.budget.semantic_samples

    def difficulty(self, arm: Arm) -> DifficultySettings:
        """The arm's world, without what only rows depend on."""
        return replace(self.experiment.worlds[arm.world], faulty_corrections=0.0)

    def model(self, arm: Arm, sft_seed: int) -> SceneLlava:
        """The small LLaVA of the arm's world."""
        return SceneLlava(self.difficulty(arm), sft_seed, self.budget.short)

    def rows(self, arm: Arm, model: Model, sft_seed: int) -> Rows:
        """The model's own mistakes, or captions made from templates."""
        faulty = max(self.experiment.worlds[arm.world].faulty_corrections, arm.data.faulty_corrections)
        return SceneRows(
            difficulty=replace(self.difficulty(arm), faulty_corrections=faulty),
            model=model if arm.data.source == "sampled" and not self.budget.short else None,
            seed=sft_seed,
            num_rows=arm.data.num_rows or self.budget.num_rows,
            noise_step=self.budget.noise_step,
            noise_schedule=self.budget.noise_schedule,
        )

    def training(self, arm: Arm, rows: Rows, seed: int) -> TrainConfig:
        """The budget's settings with the arm's over them; the rows' own noise step is not named again."""
        settings = base_settings(self.budget, self.tuned, arm)
        if settings.get("noise_step") == self.budget.noise_step and "noise_step_max" not in settings:
            del settings["noise_step"]
        return TrainConfig(**settings, seed=seed)

    def measurement(self, arm: Arm, measure: str, model: Model, rows: Rows | None) -> Measurement | None:
        """On unseen scenes of the arm's world, or on rows about validation scenes."""
        budget, split = self.budget, self.experiment.split
        sizes = {
            "scenes": budget.num_test if split == "test" else budget.num_validation,
            "questions": budget.num_test if split == "test" else budget.num_validation,
            "grounding": budget.num_edited,
            "matched": budget.num_matched,
            "naming": budget.num_edited,
            "distortion": budget.num_probe,
            "attention": budget.num_probe,
            "rewards": None,
        }
        if measure not in sizes:
            return None
        probe = None
        if measure in ("distortion", "attention"):
            probe = probe_rows(self.difficulty(arm), budget)
        scopes, steps = {"distortion": PROBED, "naming": NAMED}.get(measure, ((), ()))
        plain = self.difficulty(arm) == DifficultySettings()
        # Seeds of one world show the same scenes: any of its models tells which world it is.
        world = None if plain or measure == "rewards" else self.model(arm, 0)
        return Measurement(
            model,
            Measuring(
                measure,
                sizes[measure],
                split,
                decoding=arm.decoding,
                decoding_options=arm.decoding_options,
                samples=budget.samples if measure == "matched" else 0,
                noise_scopes=scopes,
                noise_steps=steps,
            ),
            stage=arm.stage,
            rows=probe,
            world=world,
        )


def probe_rows(difficulty: DifficultySettings, budget: Budget, seed: int = 0) -> SceneRows:
    """Rows about validation scenes, from templates, for the probes of distortion and attention."""
    return SceneRows(
        difficulty=difficulty,
        seed=seed,
        num_rows=budget.num_probe,
        split="validation",
        swap_images=False,
        noise_step=budget.noise_step,
        noise_schedule=budget.noise_schedule,
    )


@dataclass(frozen=True)
class RealWorld:
    """A checkpoint, its preference rows and benchmarks on disk.

    Attributes:
        given: The checkpoint.
        datasets: Dataset folders; the second one is that of arms whose rows come from templates.
        probed: Dataset folder of the probes; the first of ``datasets`` when None.
        settings: Settings of every training, under those of the arms.
        tuned: Learning rates of the arms; that of the settings for all of them when None.
        benchmarks: Data of each benchmark that can be asked.
        judge: Who judges.
        variants: Part of a benchmark that is asked, where that is not all of it.
        num_items: Images of a benchmark and rows of a probe; all when None.
        batch_size: Sequences run at once in evaluation.
    """

    given: GivenModel
    datasets: tuple[GivenRows, ...]
    probed: GivenRows | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    tuned: Tuned | None = None
    benchmarks: Mapping[str, GivenData] = field(default_factory=dict)
    judge: JudgeSettings | None = None
    variants: Mapping[str, str] = field(default_factory=dict)
    num_items: int | None = None
    batch_size: int = 16

    name = "llava"
    semantic_samples = 10

    @property
    def rows_at_once(self) -> int:
        """As many as answers are generated at once."""
        return self.batch_size

    def model(self, arm: Arm, sft_seed: int) -> Model:
        """The checkpoint."""
        return self.given

    def rows(self, arm: Arm, model: Model, sft_seed: int) -> Rows | None:
        """The first dataset; the second for another kind of rows. None if it lacks what the arm takes."""
        kinds = (Data(), Data(source="templates"))
        found = next(
            (rows for kind, rows in zip(kinds, self.datasets, strict=False) if kind == arm.data), None
        )
        scope = {**self.settings, **(arm.train or {})}.get("noise_scope")
        lacks = found is not None and scope == "swap" and not found.has_rejected_images
        return None if lacks else found

    def training(self, arm: Arm, rows: Rows, seed: int) -> TrainConfig:
        """The user's settings with the arm's over them."""
        rate = {} if self.tuned is None else {"learning_rate": self.tuned.rate(arm)}
        return TrainConfig(**{"stages": "none", **self.settings, **rate, **(arm.train or {})}, seed=seed)

    def measurement(self, arm: Arm, measure: str, model: Model, rows: Rows | None) -> Measurement | None:
        """A benchmark whose data are there, or a probe on the preference rows."""
        scopes: tuple[Scope, ...] = ()
        steps: tuple[int, ...] = ()
        probe = None
        data = self.benchmarks.get(measure)
        if measure in ("distortion", "attention"):
            scopes, steps = PROBED if measure == "distortion" else ((), ())
            probe = self.probed or self.datasets[0]
        elif measure != "rewards" and data is None:
            return None
        return Measurement(
            model,
            Measuring(
                measure,
                self.num_items,
                decoding=arm.decoding,
                decoding_options=arm.decoding_options,
                noise_scopes=scopes,
                noise_steps=steps,
                batch_size=self.batch_size,
                data=data,
                variant=self.variants.get(measure),
                judge=self.judge if data is not None and benchmark_class(measure).judge else None,
                resume=True,
            ),
            stage=arm.stage,
            rows=probe,
        )


def given_model(name: str) -> GivenModel:
    """A checkpoint by its folder or name."""
    return GivenModel(name, f"{model_fingerprint(name)} {processor_fingerprint(name)}")


def narrowest_variant(benchmark: str, metrics: Sequence[str]) -> str | None:
    """The part of a benchmark whose questions give the metrics, where that is less than all of it.

    Of AMBER's 15,220 questions 1,004 ask for descriptions.

    Args:
        benchmark: Its name.
        metrics: Metrics that are shown; all of them when empty.
    """
    found = benchmark_class(benchmark)
    kinds = {kind for name in metrics if name in found.metrics for kind in found.metrics[name].kinds}
    if "generative" not in found.variants or not kinds:
        return None
    if kinds == {"generative"}:
        return "generative"
    return None if "generative" in kinds else "discriminative"


def given_data(folder: Path) -> GivenData:
    """A benchmark's data: pictures are told apart by name and size, all other files by what they hold."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()}:{file.stat().st_size}\0".encode())
        if file.suffix.lower() not in ENDINGS:
            digest.update(sha256_of(file).encode())
    return GivenData(str(folder), digest.hexdigest()[:16])


def given_rows(folder: str) -> GivenRows:
    """A dataset by its folder.

    Raises:
        UserError: It is no dataset folder.
    """
    manifest = Path(folder) / "manifest.json"
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise UserError(
            "no dataset folder", where=f"--dataset {folder}", fix="`mfpo build` writes one"
        ) from None
    return GivenRows(folder, json.dumps(content, sort_keys=True), "rejected_images" in stored_columns(folder))
