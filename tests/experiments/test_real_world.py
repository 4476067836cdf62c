"""``--world llava``: the same files on a checkpoint with rows and benchmarks on disk, all of them tiny."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from mfpo.data.writer import DatasetWriter
from mfpo.errors import UserError
from mfpo.experiments.config import ExperimentConfig
from mfpo.experiments.run import run as experiment
from preference_rows import make_pairs

MINE = """
title: a real checkpoint
arms:
  - {name: sft}
  - {name: mfpo, train: {objective: mfpo, stages: easy_to_hard}}
  - {name: after easy, train: {objective: mfpo, stages: easy_to_hard}, stage: 1}
  - {name: templates, train: {objective: mfpo}, data: {source: templates}}
metrics:
  scenes: [F1]
  pope: [Accuracy, Yes_ratio]
  distortion: [clean, drop black]
  rewards: [text_margin]
claims:
  - {text: it helps, better: mfpo, than: sft, metrics: [Accuracy, drop black]}
"""


@pytest.fixture
def settings(tiny_llava: Path, tmp_path: Path) -> ExperimentConfig:
    with DatasetWriter(tmp_path / "rows") as writer:
        for pair in make_pairs(9):
            writer.write(pair)
    pope = tmp_path / "benchmarks" / "pope"
    (pope / "val2014").mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (40, 40), (90 * number, 30, 60)).save(pope / "val2014" / f"{number}.jpg")
    for split in ("random", "popular", "adversarial"):
        rows = [
            {"question_id": at, "image": f"{at % 2}.jpg", "text": f"Is there a mug {at}?", "label": label}
            for at, label in enumerate(("yes", "no"), start=1)
        ]
        (pope / f"coco_pope_{split}.json").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "mine.yaml").write_text(MINE)
    return ExperimentConfig(
        name=str(tmp_path / "mine.yaml"),
        world="llava",
        model_name_or_path=str(tiny_llava),
        dataset=(str(tmp_path / "rows"),),
        data_dir=str(tmp_path / "benchmarks"),
        output_dir=str(tmp_path / "out"),
        train={"learning_rate": 1e-3, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 1},
    )


@pytest.mark.slow
def test_an_experiment_on_a_checkpoint(settings: ExperimentConfig) -> None:
    experiment(settings)
    folder = Path(settings.output_dir) / "mine"
    content = json.loads((folder / "results.json").read_text())
    arms = {arm["name"]: arm["metrics"] for arm in content["arms"]}
    assert set(arms) == {"sft", "mfpo", "after easy"}
    assert set(arms["mfpo"]) == {
        "pope/Accuracy", "pope/Yes_ratio", "distortion/clean", "distortion/drop black", "rewards/text_margin",
    }  # fmt: skip
    assert 0 <= arms["sft"]["pope/Accuracy"]["value"] <= 1
    assert {claim["metric"] for claim in content["claims"]} == {"Accuracy", "drop black"}
    assert any("templates is left out" in note for note in content["notes"])
    (training,) = Path(settings.output_dir).glob("store/trainings/*/config.yaml")
    assert "learning_rate: 0.001" in training.read_text()


def test_mistakes_are_told_before_anything_runs(settings: ExperimentConfig, tmp_path: Path) -> None:
    settings.train = {"learning_rat": 1.0}
    with pytest.raises(UserError, match="did you mean 'learning_rate'"):
        experiment(settings)
    settings.train, settings.data_dir = {}, str(tmp_path / "rows")
    with pytest.raises(UserError, match="no folder in it has the name of a benchmark"):
        experiment(settings)
