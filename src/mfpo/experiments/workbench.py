"""Steps that experiments on the scene world are made of; each is skipped when its result is there.

Every step goes through the function behind the verb of the same name, so what runs here is what a user runs.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, field, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rich.console import Console
from tqdm.auto import tqdm

from mfpo import __version__
from mfpo.data.files import save_config, write_json
from mfpo.data.folder import read_manifest
from mfpo.errors import UserError
from mfpo.experiments.methods import BASE, Budget, Method
from mfpo.preferences.config import BuildConfig
from mfpo.training.config import TrainConfig

BATCH_SIZE = 128


@dataclass(frozen=True, slots=True)
class Workbench:
    """Where an experiment's files are, and how much work it is.

    Attributes:
        folder: Everything is under it, except the cached model.
        seed: Seed of scenes, rows and the model before preference training.
        budget: How much data and work.
        cache_dir: Where trained scene models are kept; the user's cache when None.
        quick: Train hardly at all and make rejected answers from templates, to see that everything runs.
        console: Where progress is told.
    """

    folder: Path
    seed: int = 0
    budget: Budget = field(default_factory=Budget)
    cache_dir: str | None = None
    quick: bool = False
    console: Console = field(default_factory=Console)

    @property
    def rows(self) -> Path:
        """Text preferences about scenes."""
        return self.folder / "scenes"

    @property
    def dataset(self) -> Path:
        """The same with image preferences."""
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
            recipe = replace(recipe, num_scenes=256, tower_steps=4, steps=4)
        self._claim(recipe.fingerprint())
        folder = cached_llava(recipe, self.cache_dir)
        self.console.print(f"checkpoint: {folder}")
        return folder

    def _claim(self, recipe: str) -> None:
        """Mark the folder with what its results depend on, so that results of two settings never mix."""
        mark = {"mfpo": __version__, "scene_llava": recipe, "seed": self.seed, **asdict(self.budget)}
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
        from mfpo.preferences.build import run as build
        from mfpo.scenes.command import ANNOTATIONS
        from mfpo.scenes.command import run as scenes
        from mfpo.scenes.config import ScenesConfig

        self.console.rule("[bold]2  preference rows: keywords, regions, noise")
        if read_manifest(self.rows) is None or not (self.rows / ANNOTATIONS).is_file():
            scenes(
                ScenesConfig(
                    num_samples=self.budget.num_rows,
                    output_dir=str(self.rows),
                    model_name_or_path=None if self.quick else str(model),
                    seed=self.seed,
                    swap_images=True,
                    overwrite=True,
                )
            )
        build(
            BuildConfig(
                dataset=str(self.rows),
                annotations=str(self.rows / ANNOTATIONS),
                output_dir=str(self.dataset),
                noise_step=self.budget.noise_step,
                noise_schedule=self.budget.noise_schedule,
                seed=self.seed,
            )
        )
        return self.dataset

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


@dataclass(frozen=True, slots=True)
class Job:
    """One training with its evaluation, or the evaluation of a model that is there.

    Attributes:
        name: Name in messages.
        output_dir: Its run folder.
        training: Settings of the training; None to evaluate ``model`` as it is.
        model: Checkpoint to evaluate when nothing is trained.
        split: Scenes that are scored.
        num_scenes: How many.
        distortion_rows: Dataset on which the distortion probe runs; None for no probe.
        num_threads: Threads of the process.
    """

    name: str
    output_dir: Path
    training: TrainConfig | None = None
    model: Path | None = None
    split: str = "test"
    num_scenes: int = 1000
    distortion_rows: Path | None = None
    num_threads: int = 1


def run_jobs(jobs: Sequence[Job], *, num_workers: int | None = None) -> None:
    """Run jobs side by side, one thread each: small models gain nothing from a second thread.

    A job whose results are all there costs nothing, so an interrupted experiment goes on where it was.

    Args:
        jobs: What to do.
        num_workers: Processes; one for each core when None.
    """
    waiting = [job for job in jobs if not _finished(job)]
    if not waiting:
        return
    workers = min(num_workers or os.cpu_count() or 1, len(waiting))
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_quiet) as pool:
        futures = {pool.submit(run_job, job): job for job in waiting}
        for done in tqdm(
            as_completed(futures), total=len(futures), desc="training and evaluating", unit="run"
        ):
            done.result()


def _quiet() -> None:
    """Let a worker process leave the terminal to the one that started it."""
    os.environ["TQDM_DISABLE"] = "1"
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it stays open for the life of the process


def run_job(job: Job) -> None:
    """Train, answer, score and probe."""
    import torch
    from transformers.utils import logging

    from mfpo.evaluation.config import EvalConfig, ProbeConfig
    from mfpo.evaluation.probes import run as probe
    from mfpo.evaluation.score import evaluate
    from mfpo.training.train import run as train

    torch.set_num_threads(job.num_threads)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    model = str(job.model)
    if job.training is not None:
        model = job.training.output_dir
        if not (job.output_dir / "model.safetensors").is_file():
            train(replace(job.training, trainer={"disable_tqdm": True, **job.training.trainer}))
    else:
        job.output_dir.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {
        "model_name_or_path": model,
        "output_dir": str(job.output_dir),
        "batch_size": BATCH_SIZE,
    }
    samples: dict[str, Any] = {"split": job.split, "num_samples": job.num_scenes}
    todo: Iterable[tuple[str, Callable[[], object]]] = (
        ("scenes", lambda: evaluate(EvalConfig(benchmark="scenes", **common, **samples))),
        ("grounding", lambda: probe(ProbeConfig(probe="grounding", **common, **samples))),
        (
            "distortion",
            lambda: probe(
                ProbeConfig(
                    probe="distortion",
                    dataset=str(job.distortion_rows),
                    num_samples=200,
                    noise_scopes=("region", "black"),
                    noise_steps=(500, 700, 900),
                    **common,
                )
            ),
        ),
    )
    for name, work in todo:
        if name in _scores(job) and not (job.output_dir / "scores" / f"{name}.json").is_file():
            work()


def base_job(model: Path, output_dir: Path, **settings: Any) -> Job:
    """Evaluation of the model that every method starts from."""
    return Job(BASE, output_dir, model=model, **settings)


def _scores(job: Job) -> tuple[str, ...]:
    return ("scenes", "grounding") if job.distortion_rows is None else ("scenes", "grounding", "distortion")


def _finished(job: Job) -> bool:
    trained = job.training is None or (job.output_dir / "model.safetensors").is_file()
    return trained and all((job.output_dir / "scores" / f"{name}.json").is_file() for name in _scores(job))


def record_settings(folder: Path, settings: object) -> None:
    """Save the settings of an experiment beside its results."""
    save_config(settings, folder / "config.yaml")
