"""``mfpo demo``: the whole method on the scene world, from nothing to a report, in minutes on two cores."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rich.console import Console

from mfpo.data.files import save_config, write_atomic
from mfpo.experiments.config import DemoConfig
from mfpo.experiments.jobs import Job, base_job, run_jobs
from mfpo.experiments.methods import BASE, METHODS, Budget, learning_rate, tuned
from mfpo.experiments.tables import method_table
from mfpo.experiments.workbench import Workbench
from mfpo.report.report import write_report

QUICK = Budget(num_rows=96, num_epochs=1, num_test=32, num_validation=32, num_edited=32)


def run(config: DemoConfig) -> None:
    """Train the small LLaVA, build rows from its own mistakes, train with every method, compare, and report.

    What an earlier run into the same folder finished is not done again.
    """
    console = Console()
    started = time.perf_counter()
    folder = Path(config.output_dir)
    bench = Workbench(
        folder,
        seed=config.seed,
        budget=QUICK if config.quick else Budget(),
        quick=config.quick,
        cache_dir=config.cache_dir,
        settings={"tuned": tuned()},
        console=console,
    )
    model = bench.llava()
    bench.build(model)
    bench.rank(model)
    console.rule("[bold]4  training with each method, answers to unseen scenes, probes")
    jobs, runs = plan(bench, model, bench.probe_rows(), config.seeds)
    run_jobs(jobs)
    save_config(config, folder / "config.yaml")
    console.rule("[bold]5  what changed")
    table = method_table(runs)
    console.print(table.to_rich("the scene world, unseen scenes", width=console.width))
    write_atomic(folder / "table.md", table.to_markdown())
    report = write_report(
        folder / "report.html",
        [folders[0] for folders in runs.values()],
        title="MFPO on the scene world",
        dataset=bench.dataset,
        model_name_or_path=str(model),
        notes=[f"{method.name}: {method.text}." for method in METHODS],
        reproduce=[
            f"mfpo demo --output_dir {config.output_dir} --seed {config.seed} --seeds {config.seeds}"
            + (" --quick" if config.quick else "")
        ],
    )
    minutes = (time.perf_counter() - started) / 60
    console.print(f"\nreport: [bold]{report}[/bold]   table: {folder / 'table.md'}   ({minutes:.1f} minutes)")


def plan(
    bench: Workbench, model: Path, probe_rows: Path, num_seeds: int
) -> tuple[list[Job], dict[str, list[Path]]]:
    """All jobs of the demo, and the run folders of each method."""
    shared: dict[str, Any] = {
        "num_scenes": bench.budget.num_test,
        "num_edited": bench.budget.num_edited,
        "distortion_rows": probe_rows,
    }
    jobs = [base_job(model, bench.folder / "runs" / BASE, **shared)]
    runs = {BASE: [jobs[0].output_dir]}
    for method in METHODS:
        runs[method.name] = []
        for index in range(num_seeds):
            name = method.name if index == 0 else f"{method.name}-seed{index}"
            output_dir = bench.folder / "runs" / name
            training = bench.training(
                method, model, learning_rate(method), output_dir, seed=bench.seed + index
            )
            jobs.append(Job(name, output_dir, training, **shared))
            runs[method.name].append(output_dir)
    return jobs, runs
