"""``mfpo experiment NAME``: a table or figure of the paper, or an experiment of one's own."""

from __future__ import annotations

import math
import os
import platform
import shlex
import sys
import time
from dataclasses import fields, replace
from datetime import date
from pathlib import Path
from typing import Any

from rich.console import Console

from mfpo.data.files import save_config, write_atomic, write_json
from mfpo.errors import UserError, counted, nearest
from mfpo.evaluation.benchmarks import BENCHMARKS, benchmark_class
from mfpo.evaluation.config import JudgeSettings
from mfpo.evaluation.judged import check_judge
from mfpo.experiments.budget import QUICK, QUICK_NOTE, Budget
from mfpo.experiments.catalog import find, names, packaged
from mfpo.experiments.config import ExperimentConfig
from mfpo.experiments.plan import Plan, World, make_plan
from mfpo.experiments.results import Results, collect
from mfpo.experiments.scheduler import missing_steps, run_steps, usable_cores
from mfpo.experiments.schema import NOT_OURS, Experiment
from mfpo.experiments.store import Store
from mfpo.experiments.sweep import choose, write_choice
from mfpo.experiments.tuned import load_tuned
from mfpo.experiments.worlds import (
    RealWorld,
    SceneWorld,
    given_data,
    given_model,
    given_rows,
    narrowest_variant,
)
from mfpo.scenes.config import DifficultySettings
from mfpo.training.config import TrainConfig
from mfpo.version import __version__


def run(config: ExperimentConfig) -> None:
    """Run an experiment; what an earlier run finished, of this or another experiment, is not done again.

    Raises:
        UserError: There is no such experiment, its file or a setting is wrong, or a step failed.
    """
    console = Console()
    if config.name is None or config.list:
        show_list(console)
        return
    experiment = find(config.name)
    if config.quick:
        experiment = shortened(experiment)
    started = time.perf_counter()
    plan = plan_of(config, experiment)
    store = Store(Path(config.output_dir) / "store", config.cache_dir)
    console.print(f"{experiment.title}: {describe(plan, store, config)}", highlight=False)
    if config.dry_run:
        return
    workers, labels = config.num_workers, plan.labels
    failures = run_steps(plan.steps, store, num_workers=workers, devices=gpus(), labels=labels)
    folder = folder_of(config, experiment)
    notes = notes_of(config, plan, list(failures.values()))
    results = collect(plan, store, notes, verdicts=not config.quick)
    made = provenance(config, time.perf_counter() - started, store.seconds(plan.steps))
    save_config(config, folder / "config.yaml")
    write_results(results, plan, store, made, folder)
    show(results, made, folder, console)
    if failures:
        raise UserError(
            f"{len(failures)} steps failed, the first: {next(iter(failures.values()))}",
            where=f"mfpo experiment {config.name}",
            fix="the table above lacks what needs them; run the command again, it goes on where it was",
        )


def show_list(console: Console) -> None:
    """Name and title of every packaged experiment."""
    for name in names():
        console.print(f"{name:<14}  {packaged(name).title}", highlight=False)
    console.print("\nmfpo experiment NAME runs one; a file of your own ends in .yaml.", highlight=False)


def shortened(experiment: Experiment) -> Experiment:
    """A sweep over its two outer rates only."""
    return replace(experiment, sweep=tuple(dict.fromkeys((*experiment.sweep[:1], *experiment.sweep[-1:]))))


def plan_of(config: ExperimentConfig, experiment: Experiment) -> Plan:
    """The steps of an experiment in the world of the settings.

    Raises:
        UserError: A setting is missing or wrong.
    """
    world: World
    if config.world == "scenes":
        budget = QUICK if config.quick else Budget()
        world = SceneWorld(experiment, budget, load_tuned(config.tuned))
    else:
        world = real_world(config, experiment)
    sft_seeds, seeds = seeds_of(config)
    plan = make_plan(experiment, world, sft_seeds, seeds)
    if not plan.steps:
        raise UserError(
            "nothing that this experiment measures could be measured",
            where=f"mfpo experiment {experiment.name}",
            fix=f"it measures {', '.join(experiment.metrics)}; benchmarks of a checkpoint need --data_dir",
        )
    return plan


def seeds_of(config: ExperimentConfig) -> tuple[int, int]:
    """Numbers of SFT seeds and of training seeds."""
    scenes = config.world == "scenes"
    return (config.sft_seeds or (1 if config.quick else 6)) if scenes else 1, config.seeds or 1


def real_world(config: ExperimentConfig, experiment: Experiment) -> RealWorld:
    """A checkpoint with data and benchmarks.

    Raises:
        UserError: A setting is missing or wrong.
    """
    if config.model_name_or_path is None or not config.dataset:
        raise UserError(
            "a checkpoint and preference rows are needed",
            where="--world llava",
            fix="give --model_name_or_path and --dataset (a folder of `mfpo build`)",
        )
    if any(world != DifficultySettings() for world in experiment.worlds.values()):
        raise UserError(
            "the experiment compares worlds of scenes, and a checkpoint has one world only",
            where=f"{experiment.name}: worlds",
            fix="give --world scenes, or write a file with its arms and without `worlds`",
        )
    known = [item.name for item in fields(TrainConfig) if item.name not in NOT_OURS]
    for name in config.train:
        if name not in known:
            raise UserError(
                "unknown setting of `mfpo train`", where=f"--train {name}", fix=nearest(name, known)
            )
    for name, fix in _OF_A_CHECKPOINT.items():
        if config.train.get(name):
            raise UserError("it is not the training's alone", where=f"--train {name}", fix=fix)
    judge = JudgeSettings(**{item.name: getattr(config, item.name) for item in fields(JudgeSettings)})
    left_out = unjudged(config)
    benchmarks = {
        name: given_data(Path(str(config.data_dir)) / name)
        for name in benchmarks_of(config)
        if name in experiment.metrics and name not in left_out
    }
    for name in benchmarks:
        if judge.judge_model and benchmark_class(name).judge:
            check_judge(benchmark_class(name)(), judge)
    return RealWorld(
        given_model(config.model_name_or_path),
        tuple(given_rows(folder) for folder in config.dataset),
        None if config.probe_dataset is None else given_rows(config.probe_dataset),
        settings=config.train,
        tuned=None if config.tuned is None else load_tuned(config.tuned),
        benchmarks=benchmarks,
        judge=judge,
        variants={
            name: variant
            for name, wanted in experiment.metrics.items()
            if name in benchmarks and (variant := narrowest_variant(name, wanted))
        },
        num_items=8 if config.quick and config.num_samples is None else config.num_samples,
        batch_size=config.batch_size,
    )


_OF_A_CHECKPOINT = {
    "revision": "download that revision and give its folder as --model_name_or_path",
    "trust_remote_code": "models that bring their own code are not supported here",
}
"""Settings of a training that measurements would have to share."""


def benchmarks_of(config: ExperimentConfig) -> list[str]:
    """Benchmarks whose data are there.

    Raises:
        UserError: There is a folder of data, and none in it.
    """
    if config.data_dir is None:
        return []
    found = [name for name in BENCHMARKS if (Path(config.data_dir) / name).is_dir()]
    if not found:
        raise UserError(
            "no folder in it has the name of a benchmark",
            where=f"--data_dir {config.data_dir}",
            fix=f"name them {', '.join(BENCHMARKS)}",
        )
    return found


def unjudged(config: ExperimentConfig) -> list[str]:
    """Benchmarks whose data are there, but not the judge that they cannot do without."""
    if config.judge_model:
        return []
    judges = {name: benchmark_class(name).judge for name in benchmarks_of(config)}
    return [name for name, judge in judges.items() if judge is not None and judge.required]


def folder_of(config: ExperimentConfig, experiment: Experiment) -> Path:
    """Where the experiment's tables go: a folder of its own for each checkpoint, and for quick runs."""
    model = "" if config.model_name_or_path is None else f"-{Path(config.model_name_or_path).resolve().name}"
    return Path(config.output_dir) / f"{experiment.name}{model}{'-quick' if config.quick else ''}"


def gpus() -> list[str]:
    """The GPUs that this process sees, as ``CUDA_VISIBLE_DEVICES`` names them; each worker gets one."""
    import torch

    count = torch.cuda.device_count()
    given = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return given[:count] if given else [str(index) for index in range(count)]


def describe(plan: Plan, store: Store, config: ExperimentConfig) -> str:
    """How much there is to do, and on scenes about how long that takes."""
    trainings = {step.digest: step for cells in plan.trainings.values() for step in cells.values()}
    missing = [step for step in trainings.values() if not store.done(step)]
    steps = missing_steps(plan.steps, store).values()
    parts = [
        counted(len(plan.experiment.arms), "arm"),
        f"{counted(len(trainings), 'training')} ({len(missing)} to do)",
        counted(len({step.digest for step in plan.steps}), "measurement"),
    ]
    if config.world == "scenes" and not config.quick and steps:
        workers = config.num_workers or usable_cores()
        minutes = sum(step.cost for step in steps) / workers / 60
        parts.append(f"about {counted(math.ceil(minutes), 'minute')} on {counted(workers, 'core')}")
    return ", ".join(parts)


def notes_of(config: ExperimentConfig, plan: Plan, failures: list[str]) -> list[str]:
    """What a reader must know of this run."""
    notes = list(plan.notes)
    if config.world == "llava":
        left_out = [name for name in unjudged(config) if name in plan.experiment.metrics]
        notes += [f"{name} is left out: it needs a judge (--judge_model)." for name in left_out]
        if config.probe_dataset is None and {"distortion", "attention"} & plan.experiment.metrics.keys():
            notes.append(
                "Distortion and attention are probed on the training's rows (--probe_dataset: others)."
            )
    if config.quick:
        notes.append(QUICK_NOTE)
    if (config.world == "scenes" or config.tuned is not None) and not plan.experiment.sweep:
        untuned = load_tuned(config.tuned).untuned(plan.experiment.arms)
        if untuned:
            notes.append(
                f"No sweep has chosen a learning rate for {', '.join(untuned)}: the fallback is used."
            )
    return [*notes, *(f"FAILED: {failure}" for failure in failures)]


def provenance(config: ExperimentConfig, seconds: float, of_steps: float) -> dict[str, Any]:
    """When, where and how.

    Args:
        config: The settings.
        seconds: What this run took.
        of_steps: What all steps took, each on one core or GPU, whichever run made them.
    """
    import torch

    sft_seeds, seeds = seeds_of(config)
    return {
        "date": date.today().isoformat(),
        "machine": f"{usable_cores()} cores ({_processor()}), {len(gpus())} GPUs",
        "minutes": seconds / 60,
        "minutes_of_steps": of_steps / 60,
        "command": shlex.join(["mfpo", *sys.argv[1:]])
        if "experiment" in sys.argv
        else f"mfpo experiment {config.name}",
        "world": config.world,
        "sft_seeds": sft_seeds,
        "seeds": seeds,
        "version": __version__,
        "torch": torch.__version__,
    }


def _processor() -> str:
    """The processor's name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def write_results(results: Results, plan: Plan, store: Store, made: dict[str, Any], folder: Path) -> None:
    """Write numbers and tables into the experiment's folder, then what is made of them."""
    from mfpo.experiments.figures import draw_figure
    from mfpo.experiments.render import to_html, to_latex, to_markdown

    content = results.to_dict() | {"made": made}
    write_json(folder / "results.json", content)
    write_atomic(folder / "table.md", to_markdown(results, made))
    write_atomic(folder / "table.tex", to_latex(results, made))
    write_atomic(folder / "table.html", to_html(results, made))
    if plan.experiment.sweep:
        chosen = choose(results)
        write_choice(chosen, results, made, folder / "tuned.yaml")
        write_json(folder / "results.json", content | {"chosen": chosen})
    figure = draw_figure(results, plan, store, folder)
    write_atomic(folder / "table.html", to_html(results, made, str(figure or "")))


def show(results: Results, made: dict[str, Any], folder: Path, console: Console) -> None:
    """Print the table and where everything is."""
    from mfpo.experiments.render import print_results

    print_results(results, made, console)
    files = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file()))
    console.print(f"\n{folder}: {files}", highlight=False)
