"""``mfpo demo``: the whole method on the scene world, from nothing to a report, in minutes on two cores."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rich.console import Console

from mfpo.data.files import save_config, write_atomic, write_json
from mfpo.errors import UserError
from mfpo.experiments.budget import QUICK, QUICK_NOTE, Budget
from mfpo.experiments.catalog import packaged
from mfpo.experiments.config import DemoConfig
from mfpo.experiments.plan import base_settings
from mfpo.experiments.scene_steps import SceneLlava, SceneRows
from mfpo.experiments.scheduler import run_steps
from mfpo.experiments.schema import Arm
from mfpo.experiments.step import Model
from mfpo.experiments.steps import Measurement, Ranking, Training
from mfpo.experiments.store import Store
from mfpo.experiments.tables import method_table
from mfpo.experiments.tuned import load_tuned
from mfpo.experiments.worlds import SceneWorld, probe_rows
from mfpo.models.threads import one_thread
from mfpo.report.report import write_report
from mfpo.scenes.config import DifficultySettings
from mfpo.training.config import TrainConfig
from mfpo.version import __version__

METHODS = ("dpo", "dpo+margin", "mdpo", "mfpo-at-once", "mfpo")
"""Arms of table 1 that the demo trains."""
MEASURES = ("scenes", "grounding", "distortion")
BASE = "sft"
"""Name of the model before preference training, which every method starts from."""


def run(config: DemoConfig) -> None:
    """Train the small LLaVA, build rows from its own mistakes, train with every method, compare, and report.

    What an earlier run into the same folder finished is not done again.
    """
    console = Console()
    started = time.perf_counter()
    folder = Path(config.output_dir)
    plan = plan_demo(config)
    store = Store(folder / "steps", config.cache_dir, plan.folders)
    claim(folder, plan)
    for heading, step in (
        ("1  the small LLaVA", plan.llava),
        ("2  preference rows: keywords, regions, noise", plan.rows),
        ("3  reference pass: log-probabilities, entropy, difficulty", plan.ranking),
    ):
        console.rule(f"[bold]{heading}")
        if not store.done(step):
            # As the workers that train: the numbers are those of any number of cores.
            with one_thread():
                store.make(step)
        if step is plan.llava:
            console.print(f"checkpoint: {store(step)}")
    console.rule("[bold]4  training with each method, answers to unseen scenes, probes")
    failures = run_steps(plan.measurements, store)
    if failures:
        raise UserError(next(iter(failures.values())), where="mfpo demo")
    save_config(config, folder / "config.yaml")
    console.rule("[bold]5  what changed")
    table = method_table(plan.runs)
    quick = [QUICK_NOTE] if config.quick else []
    table.notes.extend(quick)
    console.print(table.to_rich("the scene world, unseen scenes", width=console.width))
    write_atomic(folder / "table.md", table.to_markdown())
    report = write_report(
        folder / "report.html",
        [folders[0] for folders in plan.runs.values()],
        title="MFPO on the scene world",
        dataset=plan.rows.dataset(store(plan.rows)),
        model_name_or_path=str(store(plan.llava)),
        notes=[*quick, *(f"{arm.name}: {arm.text}." for arm in methods())],
        reproduce=[
            f"mfpo demo --output_dir {config.output_dir} --seed {config.seed} --seeds {config.seeds}"
            + (" --quick" if config.quick else "")
        ],
    )
    minutes = (time.perf_counter() - started) / 60
    console.print(f"\nreport: [bold]{report}[/bold]   table: {folder / 'table.md'}   ({minutes:.1f} minutes)")


def methods() -> list[Arm]:
    """The arms of the demo."""
    return [packaged("table1").arm(name) for name in METHODS]


@dataclass(frozen=True)
class DemoPlan:
    """The demo's steps.

    Attributes:
        llava: The model that every method starts from.
        rows: The preference rows.
        ranking: The reference pass over them.
        measurements: What is measured of the model and of every training.
        runs: Run folders of each method, one for each seed.
        folders: Folder of each step that has a name of its own, by digest.
    """

    llava: SceneLlava
    rows: SceneRows
    ranking: Ranking
    measurements: list[Measurement]
    runs: Mapping[str, list[Path]]
    folders: Mapping[str, Path]


def plan_demo(config: DemoConfig) -> DemoPlan:
    """All steps of the demo, and the run folders of each method."""
    folder, budget = Path(config.output_dir), QUICK if config.quick else Budget()
    world = SceneWorld(packaged("table1"), budget, load_tuned())
    base = packaged("table1").arm(BASE)
    llava = SceneLlava(DifficultySettings(), config.seed, budget.short)
    rows = world.rows(base, llava, config.seed)
    assert isinstance(rows, SceneRows)
    ranking = Ranking(rows, llava)
    probe = probe_rows(DifficultySettings(), budget, config.seed)
    folders: dict[str, Path] = {rows.digest: folder, probe.digest: folder / "probe"}
    measurements: list[Measurement] = []
    runs: dict[str, list[Path]] = {}

    def measure(name: str, method: str, arm: Arm, model: Model) -> None:
        target = folder / "runs" / name
        runs.setdefault(method, []).append(target)
        if isinstance(model, Training):
            folders[model.digest] = target
        for one in MEASURES:
            step = world.measurement(arm, one, model, rows)
            assert step is not None
            step = replace(step, rows=probe if one == "distortion" else None)
            folders[step.digest] = target
            measurements.append(step)

    measure(BASE, BASE, base, llava)
    for arm in methods():
        for index in range(config.seeds):
            settings = base_settings(budget, world.tuned, arm)
            training = Training(rows, llava, TrainConfig(**settings, seed=config.seed + index), ranking)
            measure(arm.name if index == 0 else f"{arm.name}-seed{index}", arm.name, arm, training)
    return DemoPlan(llava, rows, ranking, measurements, runs, folders)


def claim(folder: Path, plan: DemoPlan) -> None:
    """Mark the folder with what its results depend on, so that results of two settings never mix.

    Raises:
        UserError: It holds results of other settings or of another version.
    """
    steps = (plan.llava, plan.rows, plan.ranking, *plan.measurements)
    mark = {"mfpo": __version__, "steps": sorted({step.digest for step in steps})}
    path = folder / "experiment.json"
    if path.is_file() and json.loads(path.read_text()) != mark:
        raise UserError(
            "the folder holds results of other settings or of another version",
            where=str(folder),
            fix="choose another --output_dir, or remove the folder",
        )
    write_json(path, mark)
