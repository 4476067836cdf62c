"""Choose each method's learning rate on validation scenes, with equal effort for each.

The criterion is F1 over objects, which counts what is wrongly mentioned and what is left out alike: CHAIR
alone would reward saying less. Neither the test scenes nor the probes are looked at.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from rich.console import Console

from mfpo.data.files import write_atomic, write_json
from mfpo.evaluation.results import ScoreResult
from mfpo.experiments.config import ExperimentConfig
from mfpo.experiments.demo import QUICK
from mfpo.experiments.jobs import Job, base_job, run_jobs
from mfpo.experiments.methods import BASE, METHODS, Budget
from mfpo.experiments.workbench import Workbench

GRID = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3)
CRITERION = "F1"
SHOWN = ("CHAIR_s", "CHAIR_i", "Cover", "F1", "colour", "yes_no", "words")


def run(config: ExperimentConfig) -> None:
    """Train every method at every rate of the grid; write ``learning_rates.json`` and ``.md``."""
    folder = Path(config.output_dir) / "learning_rates"
    budget = QUICK if config.quick else Budget()
    bench = Workbench(folder, budget=budget, cache_dir=config.cache_dir, quick=config.quick)
    model = bench.llava()
    bench.build(model)
    bench.rank(model)
    shared: dict[str, Any] = {
        "split": "validation",
        "num_scenes": bench.budget.num_validation,
        "num_edited": 0,
    }
    jobs = [base_job(model, folder / "runs" / BASE, **shared)]
    for method in METHODS:
        for rate in GRID:
            output_dir = folder / "runs" / f"{method.name}@{rate:g}"
            training = bench.training(method, model, rate, output_dir)
            jobs.append(Job(output_dir.name, output_dir, training, **shared))
    run_jobs(jobs)
    chosen, lines = {}, [_header(), _line(BASE, "", folder / "runs" / BASE)]
    for method in METHODS:
        scores = {rate: _f1(folder / "runs" / f"{method.name}@{rate:g}") for rate in GRID}
        chosen[method.name] = max(scores, key=lambda rate: scores[rate])
        lines += [
            _line(
                method.name,
                f"{rate:g}",
                folder / "runs" / f"{method.name}@{rate:g}",
                rate == chosen[method.name],
            )
            for rate in GRID
        ]
    write_json(folder / "learning_rates.json", {"criterion": CRITERION, "learning_rates": chosen})
    write_atomic(folder / "learning_rates.md", "\n".join(lines) + "\n")
    Console().print("\n".join(lines))


def _f1(run_folder: Path) -> float:
    value = ScoreResult.load(run_folder / "scores" / "scenes.json").metrics[CRITERION]
    return -1.0 if math.isnan(value) else value


def _header() -> str:
    columns = ["method", "learning rate", *SHOWN]
    return "| " + " | ".join(columns) + " |\n" + "| --- " * len(columns) + "|"


def _line(name: str, rate: str, run_folder: Path, chosen: bool = False) -> str:
    scores = ScoreResult.load(run_folder / "scores" / "scenes.json").metrics
    values = [f"{scores[metric]:.1f}" for metric in SHOWN]
    cells = [name, f"**{rate}**" if chosen else rate, *values]
    return "| " + " | ".join(cells) + " |"
