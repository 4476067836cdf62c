from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from mfpo.errors import UserError
from mfpo.evaluation.results import ScoreResult
from mfpo.experiments.budget import QUICK_NOTE
from mfpo.experiments.config import DemoConfig
from mfpo.experiments.demo import BASE, METHODS, claim, plan_demo
from mfpo.experiments.demo import run as demo
from mfpo.experiments.scene_steps import SceneLlava, SceneRows
from mfpo.experiments.steps import Ranking, Training
from mfpo.experiments.tables import MethodTable, method_table


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
    for name in (BASE, *METHODS):
        assert f"| {name} |" in table
        scores = ScoreResult.load(folder / "runs" / name / "scores" / "scenes.json")
        assert sum(item.get("descriptions", 0) for item in scores.items) == 32
    page = (folder / "report.html").read_text()
    assert "nan" not in table and QUICK_NOTE in table and QUICK_NOTE in page
    assert "mfpo-at-once" in page and "<script src=" not in page


def test_every_step_of_the_demo_computes_in_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of this process; workers have one thread each."""
    threads = []
    for kind in (SceneLlava, SceneRows, Ranking):
        monkeypatch.setattr(kind, "make", lambda *_: threads.append(torch.get_num_threads()))
    monkeypatch.setattr("mfpo.experiments.demo.run_steps", lambda *_: {"all": "enough"})
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(UserError, match="enough"):
            demo(DemoConfig(output_dir=str(tmp_path / "run"), cache_dir=str(tmp_path / "cache"), quick=True))
        assert threads == [1, 1, 1] and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


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


def test_a_plan_for_two_seeds(tmp_path: Path) -> None:
    """Evaluations of the model that all start from, and of every training; each in a folder of its name."""
    plan = plan_demo(DemoConfig(output_dir=str(tmp_path), seeds=2))
    trainings = {step.model.digest for step in plan.measurements if isinstance(step.model, Training)}
    assert len(trainings) == 2 * len(METHODS)
    assert [path.name for path in plan.runs["mfpo"]] == ["mfpo", "mfpo-seed1"]
    assert len(plan.measurements) == 3 * (1 + 2 * len(METHODS))


def test_a_changed_setting_is_another_demo(tmp_path: Path) -> None:
    claim(tmp_path, plan_demo(DemoConfig(output_dir=str(tmp_path))))
    claim(tmp_path, plan_demo(DemoConfig(output_dir=str(tmp_path))))
    with pytest.raises(UserError, match="other settings"):
        claim(tmp_path, plan_demo(DemoConfig(output_dir=str(tmp_path), quick=True)))


@pytest.mark.parametrize("width", [80, 100, 140])
def test_table_fits_the_terminal(width: int) -> None:
    rows = [[name, "43.8***<br>[40.1, 45.2]", "72.1***<br>[70.0, 75.0]"] for name in ("sft", *METHODS)]
    table = MethodTable(["", "CHAIR_s ↓", "swap_accuracy ↑"], rows, ["A note."])
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(table.to_rich("title", width=width))
    text = console.export_text()
    assert text.count("43.8***") == text.count("72.1***") == len(rows)
    assert "swap_accuracy ↑" in text and "…" not in text
    assert ("[40.1, 45.2]" in text) == (width == 140)
