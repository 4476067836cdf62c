"""Experiments from end to end, on sizes at which the numbers mean nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mfpo.data.images import open_image
from mfpo.errors import UserError
from mfpo.experiments.config import ExperimentConfig
from mfpo.experiments.run import run as experiment
from mfpo.experiments.scene_measures import naming_pair
from mfpo.records import text_of
from mfpo.scenes.captions import parse
from mfpo.scenes.world import World, sample_scene

MINE = """
title: two arms
arms:
  - {name: sft}
  - {name: dpo, train: {objective: dpo}}
  - {name: mfpo, train: {objective: mfpo, stages: easy_to_hard}}
metrics:
  scenes: [CHAIR_s, Cover, F1]
  questions: [all_questions]
  matched: [CHAIR_i@75]
  rewards: [text_margin, image_margin, balance]
claims:
  - {text: it helps, better: mfpo, than: [sft, dpo], metrics: [F1], source: table 1}
relations:
  - {text: does one rise with the other, x: Cover, y: F1}
paper:
  columns: [CHAIR_s]
  rows: {sft: [53.6], mfpo: [13.4], another: [1.5]}
figure: {kind: bars, metrics: [F1, text_margin]}
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "mine.yaml"
    path.write_text(MINE)
    return path


@pytest.fixture(scope="module")
def done(mine: Path, cache: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("done")
    experiment(config(mine, folder, cache))
    return folder


def config(mine: Path, folder: Path, cache: str, **more: object) -> ExperimentConfig:
    return ExperimentConfig(name=str(mine), quick=True, output_dir=str(folder), cache_dir=cache, **more)


def numbers(folder: Path) -> str:
    """All of the results but when and how they were made."""
    content = json.loads((folder / "mine-quick" / "results.json").read_text())
    del content["made"]
    return json.dumps(content, sort_keys=True)


def tables(folder: Path) -> list[str]:
    """Lines of the written tables but those that say when and how they were made."""
    written = [(folder / "mine-quick" / f"table.{kind}").read_text() for kind in ("md", "tex")]
    return [line for text in written for line in text.splitlines() if "Made by" not in line]


@pytest.mark.slow
def test_an_experiment_ends_with_tables_figure_and_verdicts(done: Path) -> None:
    folder = done / "mine-quick"
    table = (folder / "table.md").read_text()
    assert "| mfpo |" in table and "| another |" in table and "paper: CHAIR_s" in table
    assert "mfpo − dpo" in table and "Made by" in table and "--quick: the numbers mean nothing" in table
    assert "| does one rise with the other | Cover, F1 | 3 |" in table
    assert "\\toprule" in (folder / "table.tex").read_text()
    page = (folder / "table.html").read_text()
    assert "does one rise with the other" in page
    assert "<svg" in page and "src=" not in page
    assert (folder / "figure.png").read_bytes()[:4] == b"\x89PNG"
    content = json.loads((folder / "results.json").read_text())
    assert {claim["verdict"] for claim in content["claims"]} == {"unknown"}, "of numbers that mean nothing"
    assert content["arms"][1]["metrics"]["scenes/F1"]["cells"]
    assert content["items"]["scenes"] == 32
    assert content["relations"][0]["arms"] == ["sft", "dpo", "mfpo"]
    assert content["made"]["minutes_of_steps"] == pytest.approx(
        sum(json.loads(path.read_text())["seconds"] for path in done.glob("store/*/*/step.json")) / 60
    )
    assert {"date", "machine", "minutes", "command", "seeds"} <= content["made"].keys()


@pytest.mark.slow
def test_nothing_is_done_twice(done: Path, mine: Path, cache: str) -> None:
    weights = sorted(done.glob("store/trainings/*/model.safetensors"))
    before = [path.stat().st_mtime_ns for path in weights]
    experiment(config(mine, done, cache))
    assert [path.stat().st_mtime_ns for path in weights] == before and len(weights) == 2


@pytest.mark.slow
def test_killed_and_resumed_ends_as_uninterrupted(done: Path, mine: Path, cache: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mfpo.cli", "experiment", str(mine), "--quick"]
    command += ["--output_dir", str(tmp_path), "--cache_dir", cache]
    paths = os.pathsep.join(filter(None, sys.path))
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": paths}, stderr=subprocess.DEVNULL)
    while process.poll() is None and not list(tmp_path.glob("store/trainings/*/skipped.jsonl")):
        time.sleep(0.1)
    process.kill()
    process.wait()
    assert not (tmp_path / "mine-quick").exists(), "it was over before it was killed"
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.glob("store/trainings/*/skipped.jsonl")}
    experiment(config(mine, tmp_path, cache))
    assert numbers(tmp_path) == numbers(done)
    assert tables(tmp_path) == tables(done)
    assert kept == {path: path.stat().st_mtime_ns for path in kept}


@pytest.mark.slow
def test_a_step_that_fails_leaves_the_rest_of_the_table(mine: Path, cache: str, tmp_path: Path) -> None:
    broken = tmp_path / "broken.yaml"
    broken.write_text(MINE.replace("objective: dpo}", "objective: dpo, lr_scheduler_type: nonsense}"))
    with pytest.raises(UserError, match=r"steps failed.*nonsense"):
        experiment(config(broken, tmp_path, cache))
    table = (tmp_path / "broken-quick" / "table.md").read_text()
    assert "FAILED: training dpo" in table and "| mfpo |" in table


@pytest.mark.slow
def test_a_packaged_file_runs_to_its_end(done: Path, cache: str) -> None:
    """The one whose measures the file above has not; its trainings are there but one."""
    experiment(ExperimentConfig(name="figure1", quick=True, seeds=1, output_dir=str(done), cache_dir=cache))
    folder = done / "figure1-quick"
    content = json.loads((folder / "results.json").read_text())
    measured = {name.partition("/")[0] for arm in content["arms"] for name in arm["metrics"]}
    assert measured == {"distortion", "attention", "grounding", "rewards"}
    assert len(list(done.glob("store/trainings/*/model.safetensors"))) == 3
    assert (folder / "figure.svg").is_file() and "attends more" in (folder / "table.md").read_text()


def test_listing_and_dry_run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    experiment(ExperimentConfig())
    assert "table8" in capsys.readouterr().out
    experiment(
        ExperimentConfig(
            name="table5", dry_run=True, output_dir=str(tmp_path), cache_dir=str(tmp_path), num_workers=3
        )
    )
    out = " ".join(capsys.readouterr().out.split())
    assert "4 arms, 18 trainings (18 to do), 48 measurements, about" in out and "minutes on 3 cores" in out


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            ("[CHAIR_s, Cover, F1]", "[CHAIRs, Cover, F1]"),
            r"metrics.scenes: scenes has no metric 'CHAIRs'.*CHAIR_s",
        ),
        (("{objective: dpo}", "{objective: dppo}"), r"arm 'dpo': .*'dppo'.*did you mean 'dpo'"),
        (("{objective: dpo}", "{objective: dpo, beta: -1}"), r"arm 'dpo': --beta -1: beta must be above 0"),
    ],
)
def test_a_dry_run_finds_what_would_end_the_run(change: tuple[str, str], says: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(
        MINE.replace("claims:", "claims: []\nnotes:\n  - none\nfigure: {kind: none}\n#").replace(*change)
    )
    path.write_text(path.read_text().split("\n#")[0])
    with pytest.raises(UserError, match=re.compile(says, re.DOTALL)):
        experiment(ExperimentConfig(name=str(path), dry_run=True, output_dir=str(tmp_path)))


def test_the_real_world_needs_a_checkpoint_and_rows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="a checkpoint and preference rows are needed"):
        experiment(ExperimentConfig(name="table1", world="llava"))
    with pytest.raises(UserError, match="no dataset folder"):
        experiment(
            ExperimentConfig(
                name="table1", world="llava", model_name_or_path=str(tmp_path), dataset=(str(tmp_path),)
            )
        )


def test_naming_pairs_differ_in_the_name_of_one_object() -> None:
    for index in range(10):
        scene, pair = sample_scene("validation", index), naming_pair(index)
        (right,), (wrong,) = parse(text_of(pair.chosen)), parse(text_of(pair.rejected))
        assert right.kind in scene.kinds and wrong.kind not in scene.kinds
        assert right.colour == wrong.colour
        assert pair.regions[0].keyword == right.kind


def test_naming_pairs_are_of_the_world_that_is_measured() -> None:
    world = World(min_objects=4, max_objects=8, image_size=96)
    for index in range(5):
        scene, pair = sample_scene("validation", index, world=world), naming_pair(index, world=world)
        assert len(scene.objects) >= 4
        assert open_image(pair.images[0]).size == (96, 96) and pair.regions[0].keyword in scene.kinds
