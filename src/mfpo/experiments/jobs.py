"""Trainings and evaluations that run side by side; each is skipped when its result is there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from mfpo.experiments.methods import BASE
from mfpo.training.config import SKIPPED_FILE, TrainConfig

BATCH_SIZE = 128


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
        num_edited: Drawings of the grounding probe, 0 for no probe.
        distortion_rows: Dataset on which the distortion probe runs; None for no probe.
        num_threads: Threads of the process.
    """

    name: str
    output_dir: Path
    training: TrainConfig | None = None
    model: Path | None = None
    split: str = "test"
    num_scenes: int = 1000
    num_edited: int = 500
    distortion_rows: Path | None = None
    num_threads: int = 1


def run_jobs(jobs: Sequence[Job], *, num_workers: int | None = None) -> None:
    """Run jobs side by side, one thread each: small models gain nothing from a second thread.

    A job whose results are all there costs nothing, so an interrupted experiment goes on where it was.

    Args:
        jobs: What to do.
        num_workers: Processes; one for each core when None.
    """
    waiting = [job for job in jobs if not finished(job)]
    if not waiting:
        return
    workers = min(num_workers or usable_cores(), len(waiting))
    progress = tqdm(total=len(waiting), desc="training and evaluating", unit="run")
    # tqdm reads this when it is imported, so the workers must start with it; this process has imported it.
    before = os.environ.get("TQDM_DISABLE")
    os.environ["TQDM_DISABLE"] = "1"
    try:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_silence) as pool:
            for done in as_completed([pool.submit(run_job, job) for job in sorted(waiting, key=effort)]):
                done.result()
                progress.update()
    finally:
        if before is None:
            del os.environ["TQDM_DISABLE"]
        else:
            os.environ["TQDM_DISABLE"] = before
        progress.close()


def usable_cores() -> int:
    """Cores that this process may use, which are fewer than the machine's in many containers."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _silence() -> None:
    """Let a worker process leave the terminal to the one that started it."""
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
        if not _trained(job):
            train(replace(job.training, trainer={"disable_tqdm": True, **job.training.trainer}))
    else:
        job.output_dir.mkdir(parents=True, exist_ok=True)
    common: dict[str, Any] = {
        "model_name_or_path": model,
        "output_dir": str(job.output_dir),
        "batch_size": BATCH_SIZE,
    }
    split: dict[str, Any] = {"split": job.split}
    todo: Iterable[tuple[str, Callable[[], object]]] = (
        (
            "scenes",
            lambda: evaluate(EvalConfig(benchmark="scenes", num_samples=job.num_scenes, **common, **split)),
        ),
        (
            "grounding",
            lambda: probe(ProbeConfig(probe="grounding", num_samples=job.num_edited, **common, **split)),
        ),
        (
            "distortion",
            lambda: probe(
                ProbeConfig(
                    probe="distortion",
                    dataset=str(job.distortion_rows),
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


def effort(job: Job) -> tuple[bool, ...]:
    """Sorts long jobs first, so that no core is idle while the last one runs."""
    training = job.training
    if training is None:
        return (True,)
    return False, training.objective.startswith("dpo"), training.stages == "none"


def _scores(job: Job) -> tuple[str, ...]:
    probes = ["grounding"] if job.num_edited else []
    probes += ["distortion"] if job.distortion_rows is not None else []
    return ("scenes", *probes)


def _trained(job: Job) -> bool:
    """Whether the job's model is complete: the list of skipped rows is written after the weights."""
    return job.training is None or (job.output_dir / SKIPPED_FILE).is_file()


def finished(job: Job) -> bool:
    """Whether the job's model and all its scores are there."""
    return _trained(job) and all(
        (job.output_dir / "scores" / f"{name}.json").is_file() for name in _scores(job)
    )
