from __future__ import annotations

from pathlib import Path

import pytest

from mfpo.data.files import write_jsonl
from mfpo.evaluation.results import score_result
from mfpo.evaluation.statistics import Metric
from mfpo.experiments.balance import last_margins, plan
from mfpo.experiments.balance import run as balance
from mfpo.experiments.config import ExperimentConfig
from mfpo.experiments.jobs import Job
from mfpo.experiments.tables import METRICS
from mfpo.experiments.workbench import Workbench


def test_arms_differ_in_the_balance_alone(tmp_path: Path) -> None:
    jobs, runs = plan(Workbench(tmp_path), tmp_path / "model", (0, 1))
    assert list(runs) == ["sft", "mfpo-at-once", "mfpo-at-once, balanced", "mfpo", "mfpo, balanced"]
    trainings = {job.output_dir: job.training for job in jobs}
    for name in ("mfpo-at-once", "mfpo"):
        for fixed, balanced in zip(runs[name], runs[f"{name}, balanced"], strict=True):
            one, other = vars(trainings[fixed]), vars(trainings[balanced])
            assert {key for key in one if one[key] != other[key]} == {"output_dir", "balance_modalities"}
    assert len({job.output_dir for job in jobs}) == len(jobs) == 9


def test_margins_of_the_last_quarter(tmp_path: Path) -> None:
    lines = [{"rewards/margins": float(i), "rewards/image_margins": -float(i)} for i in range(8)]
    write_jsonl(tmp_path / "metrics.jsonl", [*lines, {"train_loss": 1.0}])
    assert last_margins(tmp_path) == {"rewards/margins": 6.5, "rewards/image_margins": -6.5}


def test_tables_of_the_arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With trainings and evaluations that are made up: text margin 0.4, image margin by arm."""

    def fake(jobs: list[Job]) -> None:
        for job in jobs:
            balanced = job.training is not None and job.training.balance_modalities
            line = {"rewards/margins": 0.4, "rewards/image_margins": 0.3 if balanced else 0.1}
            write_jsonl(job.output_dir / "metrics.jsonl", [line])
            for name, metrics in METRICS.items():
                records = [{"id": str(i), "right": i % 2, "all": 1} for i in range(6)]
                found = score_result(name, records, dict.fromkeys(metrics, Metric("right", "all")), {})
                found.save(job.output_dir / "scores" / f"{name}.json")

    monkeypatch.setattr("mfpo.experiments.balance.run_jobs", fake)
    for step in ("llava", "build", "rank"):
        monkeypatch.setattr(Workbench, step, lambda self, *args: tmp_path / "model")
    balance(ExperimentConfig("balance", output_dir=str(tmp_path)))
    text = (tmp_path / "balance" / "balance.md").read_text()
    assert "| mfpo | 0.400 | 0.100 | 0.25 |" in text and "| mfpo, balanced | 0.400 | 0.300 | 0.75 |" in text
    assert "Mean over 3 training seeds" in text and text.count("| mfpo-at-once, balanced |") == 2
