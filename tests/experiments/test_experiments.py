from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from mfpo.errors import UserError
from mfpo.evaluation.results import ScoreResult
from mfpo.experiments.config import DemoConfig, ExperimentConfig
from mfpo.experiments.demo import plan
from mfpo.experiments.demo import run as demo
from mfpo.experiments.jobs import Job, effort, finished
from mfpo.experiments.methods import BASE, METHODS, learning_rate
from mfpo.experiments.noise_step import naming_pair
from mfpo.experiments.run import run as experiment
from mfpo.experiments.tables import MethodTable, method_table
from mfpo.experiments.workbench import Workbench
from mfpo.records import text_of
from mfpo.scenes.captions import parse
from mfpo.scenes.world import sample_scene


@pytest.fixture(scope="module")
def quick_demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DemoConfig]:
    folder = tmp_path_factory.mktemp("demo")
    config = DemoConfig(output_dir=str(folder / "run"), cache_dir=str(folder / "cache"), quick=True)
    demo(config)
    return folder / "run", config


@pytest.mark.slow
def test_demo_ends_with_a_table_and_a_report(quick_demo: tuple[Path, DemoConfig]) -> None:
    folder, _ = quick_demo
    table = (folder / "table.md").read_text()
    for name in (BASE, *(method.name for method in METHODS)):
        assert f"| {name} |" in table
        scores = ScoreResult.load(folder / "runs" / name / "scores" / "scenes.json")
        assert sum(item.get("descriptions", 0) for item in scores.items) == 32
    page = (folder / "report.html").read_text()
    assert "mfpo-at-once" in page and "<script src=" not in page


@pytest.mark.slow
def test_demo_does_nothing_twice(quick_demo: tuple[Path, DemoConfig]) -> None:
    folder, config = quick_demo
    weights = sorted(folder.glob("runs/*/model.safetensors"))
    before = [path.stat().st_mtime_ns for path in weights]
    table = (folder / "table.md").read_text()
    demo(config)
    assert [path.stat().st_mtime_ns for path in weights] == before and len(weights) == len(METHODS)
    assert (folder / "table.md").read_text() == table


@pytest.mark.slow
def test_results_of_other_settings_never_mix(quick_demo: tuple[Path, DemoConfig]) -> None:
    folder, config = quick_demo
    with pytest.raises(UserError, match="other settings"):
        demo(DemoConfig(output_dir=str(folder), cache_dir=config.cache_dir, quick=True, seed=1))


@pytest.mark.slow
def test_table_over_seeds_gives_mean_and_range(quick_demo: tuple[Path, DemoConfig], tmp_path: Path) -> None:
    folder, _ = quick_demo
    for name, value in (("a", 10), ("b", 30)):
        for source in (folder / "runs" / BASE / "scores").glob("*.json"):
            content = json.loads(source.read_text())
            for item in content["items"]:
                if "mentions" in item:
                    item |= {"mentions": 100, "absent_mentions": value}
            target = tmp_path / name / "scores" / source.name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(json.dumps(content))
    runs = {BASE: [folder / "runs" / BASE], "made up": [tmp_path / "a", tmp_path / "b"]}
    table = method_table(runs, {"scenes": ["CHAIR_i"]})
    assert table.cells[1] == ["made up", "20.0<br>[10.0, 30.0]"]


def test_every_method_has_a_learning_rate() -> None:
    assert all(1e-6 < learning_rate(method) < 1e-2 for method in METHODS)


def test_unknown_experiment_names_the_nearest() -> None:
    with pytest.raises(UserError, match="noise_step"):
        experiment(ExperimentConfig(name="noise_steps"))


def test_naming_pairs_differ_in_the_name_of_one_object() -> None:
    for index in range(10):
        scene, pair = sample_scene("validation", index), naming_pair(index)
        (right,), (wrong,) = parse(text_of(pair.chosen)), parse(text_of(pair.rejected))
        assert right.kind in scene.kinds and wrong.kind not in scene.kinds
        assert right.colour == wrong.colour
        assert pair.regions[0].keyword == right.kind


@pytest.mark.parametrize("width", [80, 100, 140])
def test_table_fits_the_terminal(width: int) -> None:
    rows = [
        [name, "43.8***<br>[40.1, 45.2]", "72.1***<br>[70.0, 75.0]"]
        for name in ("sft", *(method.name for method in METHODS))
    ]
    table = MethodTable(["", "CHAIR_s ↓", "swap_accuracy ↑"], rows, ["A note."])
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table.to_rich("title", width=width))
    text = console.export_text()
    assert text.count("43.8***") == text.count("72.1***") == len(rows)
    assert "swap_accuracy ↑" in text and "…" not in text
    assert ("[40.1, 45.2]" in text) == (width == 140)


def test_long_trainings_start_first(tmp_path: Path) -> None:
    bench = Workbench(tmp_path)
    jobs, _ = plan(bench, tmp_path / "model", tmp_path / "rows", 1)
    names = [job.name for job in sorted(jobs, key=effort)]
    assert names[0] == "mfpo" and names[-1] == "sft" and set(names[-3:-1]) == {"dpo", "dpo+margin"}


def test_a_job_without_drawings_or_rows_runs_no_probe(tmp_path: Path) -> None:
    scores = tmp_path / "scores"
    scores.mkdir()
    (scores / "scenes.json").write_text("{}")
    assert finished(Job("sft", tmp_path, num_edited=0))
    assert not finished(Job("sft", tmp_path, num_edited=10))
    assert not finished(Job("sft", tmp_path, num_edited=0, distortion_rows=tmp_path))


def test_a_method_of_the_same_name_that_means_something_else_is_another_setting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Workbench(tmp_path).claim("recipe")
    Workbench(tmp_path).claim("recipe")
    changed = tuple(replace(method, noise_scope="global") for method in METHODS)
    monkeypatch.setattr("mfpo.experiments.workbench.METHODS", changed)
    with pytest.raises(UserError, match="other settings"):
        Workbench(tmp_path).claim("recipe")
