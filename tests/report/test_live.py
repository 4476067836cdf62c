"""Curves and model card in the folder of a training."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from PIL import Image

import mfpo.report.live as live
from mfpo.data.files import save_config, write_jsonl
from mfpo.data.writer import DatasetWriter
from mfpo.evaluation.results import score_result
from mfpo.evaluation.statistics import Metric
from mfpo.report.config import ReportConfig
from mfpo.report.live import LiveFolder, draw_curves
from mfpo.report.model_card import model_card, write_model_card
from mfpo.report.plots import RunLog
from mfpo.report.report import run as report
from mfpo.report.runs import load_runs
from mfpo.report.training import run as train
from mfpo.training.config import TrainConfig
from preference_rows import make_pairs

LINE = {
    "loss": 1.9,
    "loss/text": 0.6,
    "loss/image": 0.6,
    "rewards/chosen": 0.2,
    "rewards/rejected": -0.1,
    "rewards/image_rejected": 0.1,
    "rewards/margins": 0.3,
    "rewards/image_margins": 0.1,
    "rewards/accuracies": 1.0,
    "rewards/modality_balance": 1 / 3,
    "stage": 1.0,
}


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    with DatasetWriter(tmp_path / "data") as writer:
        for pair in make_pairs(6):
            writer.write(pair)
    return tmp_path / "data"


def settings(tiny_llava: Path, dataset: Path, folder: Path, **changes) -> TrainConfig:
    values = {
        "dataset": str(dataset),
        "model_name_or_path": str(tiny_llava),
        "output_dir": str(folder),
        "learning_rate": 1e-3,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 1,
        "logging_steps": 1,
        "plot_every": 2,
        "max_steps": 4,
        "trainer": {"disable_tqdm": True},
    }
    return TrainConfig(**{**values, **changes})


@pytest.mark.parametrize("use_lora", [False, True])
def test_a_training_leaves_curves_and_a_card(tiny_llava, dataset, tmp_path, use_lora):
    folder = tmp_path / "run"
    train(settings(tiny_llava, dataset, folder, use_lora=use_lora, lora_r=4, plot_every=100))
    names = {path.name for path in (folder / "plots").iterdir()}
    assert names == {"margins.png", "rewards.png", "losses.png", "modality_balance.png"}
    for path in (folder / "plots").iterdir():
        with Image.open(path) as picture:
            assert picture.size[0] > 400
    card = ModelCard.load(folder / "README.md")
    card.validate = None
    assert card.data.library_name == ("peft" if use_lora else "transformers")
    assert card.data.pipeline_tag == "image-text-to-text" and "mfpo" in card.data.tags
    assert "| learning_rate | 0.001 |" in card.text and "`data`" in card.text
    assert str(tmp_path) not in card.content, "folders of this machine are not told"


def test_curves_are_drawn_while_it_runs(tiny_llava, dataset, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(live, "draw_curves", lambda log: drawn.append(len(log.records)) or {})
    train(settings(tiny_llava, dataset, tmp_path / "run"))
    assert drawn == [2, 4, 5], "after two and four lines, and at the end"


def test_a_failed_drawing_does_not_end_the_training(tiny_llava, dataset, tmp_path, monkeypatch):
    def fail(log):
        raise OSError("disk full")

    monkeypatch.setattr(live, "draw_curves", fail)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = train(settings(tiny_llava, dataset, tmp_path / "run"))
    assert result.steps == 4
    assert sum("disk full" in str(warning.message) for warning in told) == 1, "told once"


def test_no_curves_when_not_wanted(tiny_llava, dataset, tmp_path):
    train(settings(tiny_llava, dataset, tmp_path / "run", plot_every=0))
    assert not (tmp_path / "run" / "plots").exists()


def test_curves_of_a_text_only_training_have_no_balance():
    records = [{"step": 1, "loss": 0.6, "loss/text": 0.6, "rewards/margins": 0.1}]
    assert set(draw_curves(RunLog("dpo", records))) == {"losses", "margins"}
    assert draw_curves(RunLog("nothing", [])) == {}


def run_folder(folder: Path, **changes) -> Path:
    values = {"model_name_or_path": "llava-hf/llava-1.5-7b-hf", "dataset": "org/pairs", **changes}
    config = TrainConfig(output_dir=str(folder), beta=0.5, **values)
    save_config(config, folder / "config.yaml")
    write_jsonl(folder / "metrics.jsonl", [{**LINE, "step": step} for step in (10, 20)])
    return folder


def scored(folder: Path) -> None:
    records = [{"id": str(i), "wrong": i % 2, "all": 1} for i in range(10)]
    metric = Metric("wrong", "all")
    score_result("pope", records, {"error": metric}, {}).save(folder / "scores" / "pope.json")


def test_card_without_scores(tmp_path):
    card = ModelCard(model_card(load_runs([run_folder(tmp_path / "mine")])[0]))
    assert card.data.base_model == "llava-hf/llava-1.5-7b-hf" and card.data.datasets == ["org/pairs"]
    assert card.data.eval_results is None and "## Evaluation" not in card.text
    assert "| text margin | 0.3000 |" in card.text and "| beta | 0.5 |" in card.text


def test_card_with_scores(tmp_path):
    folder = run_folder(tmp_path / "mine")
    scored(folder)
    write_model_card(folder)
    card = ModelCard.load(folder / "README.md")
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_type, result.metric_value) == ("pope", "error", 50.0)
    assert "| pope | error | 50.00 |" in card.text


def test_card_of_local_files_names_no_folders(tmp_path):
    model = tmp_path / "secret" / "base"
    model.mkdir(parents=True)
    folder = run_folder(tmp_path / "mine", model_name_or_path=str(model), dataset=str(tmp_path / "rows"))
    card = ModelCard(model_card(load_runs([folder])[0]))
    assert card.data.base_model is None and "secret" not in card.content
    assert "`base`" in card.text and "`rows`" in card.text


def test_card_written_elsewhere_takes_no_folder_for_a_name_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "runs" / "sft").mkdir(parents=True)
    folder = run_folder(tmp_path / "runs" / "mine", model_name_or_path="runs/sft", dataset="org/pairs")
    monkeypatch.chdir(tmp_path / "runs")
    card = ModelCard(model_card(load_runs([folder])[0]))
    assert card.data.base_model is None and "`sft`" in card.text
    assert card.data.datasets == ["org/pairs"]


def test_report_writes_cards_again(tmp_path):
    folder = run_folder(tmp_path / "mine")
    scored(folder)
    untrained = tmp_path / "base"
    untrained.mkdir()
    scored(untrained)
    report(
        ReportConfig([str(folder), str(untrained)], output_file=str(tmp_path / "r.html"), model_cards=True)
    )
    assert "## Evaluation" in (folder / "README.md").read_text() and not (untrained / "README.md").exists()
    header = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    assert header["model-index"][0]["results"][0]["metrics"][0]["value"] == 50.0


def test_live_folder_counts_lines():
    folder = LiveFolder(every=0)
    folder.on_log(None, None, None)
    folder.on_train_end(None, None, None)
