"""Does it help to balance the modalities by their running margins? The ablation of ``--balance_modalities``.

The objective ``mfpo``, with all rows at once and from easy to hard, with fixed and with balanced weights,
each with several training seeds on the same small LLaVA and the same rows.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console

from mfpo.data.files import read_jsonl, write_atomic, write_json
from mfpo.experiments.config import ExperimentConfig
from mfpo.experiments.demo import QUICK
from mfpo.experiments.jobs import Job, base_job, run_jobs
from mfpo.experiments.methods import BASE, METHODS, Budget, Method, learning_rate
from mfpo.experiments.tables import method_table
from mfpo.experiments.workbench import Workbench
from mfpo.training.metrics import METRICS_FILE, modality_balance

ARMS: tuple[Method, ...] = tuple(method for method in METHODS if method.objective == "mfpo")
SEEDS = (0, 1, 2)
MARGINS = ("rewards/margins", "rewards/image_margins")


def run(config: ExperimentConfig) -> None:
    """Train and evaluate every arm; write ``balance.json`` and ``balance.md``."""
    folder = Path(config.output_dir) / "balance"
    bench = Workbench(
        folder, budget=QUICK if config.quick else Budget(), cache_dir=config.cache_dir, quick=config.quick
    )
    model = bench.llava()
    bench.build(model)
    bench.rank(model)
    jobs, runs = plan(bench, model, SEEDS[:1] if config.quick else SEEDS)
    run_jobs(jobs)
    table = method_table(runs)
    margins = {
        name: {key: mean(last_margins(path)[key] for path in folders) for key in MARGINS}
        for name, folders in runs.items()
        if name != BASE
    }
    lines = [
        "| | text margin | image margin | image / text |",
        "| --- | --- | --- | --- |",
    ]
    for name, found in margins.items():
        ratio = modality_balance(found)["rewards/modality_balance"]
        lines.append(f"| {name} | {found[MARGINS[0]]:.3f} | {found[MARGINS[1]]:.3f} | {ratio:.2f} |")
    lines.append("\nMeans over the last quarter of the training, and over seeds.\n")
    write_json(folder / "balance.json", {"margins": margins, "seeds": len(runs[ARMS[0].name])})
    write_atomic(folder / "balance.md", table.to_markdown() + "\n" + "\n".join(lines))
    console = Console()
    console.print(table.to_rich("fixed and balanced weights, unseen scenes", width=console.width))
    console.print("\n".join(lines))


def plan(bench: Workbench, model: Path, seeds: tuple[int, ...]) -> tuple[list[Job], dict[str, list[Path]]]:
    """All jobs, and the run folders of each arm, one for each seed."""
    shared: dict[str, Any] = {"num_scenes": bench.budget.num_test, "num_edited": bench.budget.num_edited}
    jobs = [base_job(model, bench.folder / "runs" / BASE, **shared)]
    runs = {BASE: [jobs[0].output_dir]}
    for method in ARMS:
        for balanced in (False, True):
            name = f"{method.name}, balanced" if balanced else method.name
            runs[name] = []
            for seed in seeds:
                output_dir = bench.folder / "runs" / f"{name.replace(', ', '-')}-seed{seed}"
                training = bench.training(method, model, learning_rate(method), output_dir, seed=seed)
                training = replace(training, balance_modalities=balanced)
                jobs.append(Job(output_dir.name, output_dir, training, **shared))
                runs[name].append(output_dir)
    return jobs, runs


def last_margins(folder: Path) -> dict[str, float]:
    """Mean text and image margin over the last quarter of a training's lines.

    Args:
        folder: Its run folder.
    """
    lines = [line for line in read_jsonl(folder / METRICS_FILE) if MARGINS[0] in line]
    last = lines[-max(1, len(lines) // 4) :]
    return {key: mean(line[key] for line in last) for key in MARGINS}
