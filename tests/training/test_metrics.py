from __future__ import annotations

import importlib.util

import pytest
import torch

from mfpo.errors import UserError
from mfpo.training.arguments import reporters
from mfpo.training.config import TrainConfig
from mfpo.training.metrics import SMALLEST_MARGIN, batch_metrics, modality_balance, summary_line
from mfpo.training.objectives import BySequence, ObjectiveOutput, SequenceLogps
from mfpo.training.train import run as train_command


def test_metrics_of_a_batch():
    rewards = BySequence(torch.tensor([0.3, -0.2]), torch.tensor([0.1, 0.1]), torch.tensor([0.4, -0.4]))
    policy = SequenceLogps(torch.tensor([-1.0, -2.0]), torch.tensor([-3.0, -4.0]), torch.tensor([-5.0, -6.0]))
    loss = torch.ones(2)
    metrics = batch_metrics(ObjectiveOutput(loss, {"text": loss}, rewards), policy)
    assert metrics["rewards/margins"].tolist() == pytest.approx([0.2, -0.3])
    assert metrics["rewards/accuracies"].tolist() == [1.0, 0.0]
    assert metrics["rewards/image_margins"].tolist() == pytest.approx([-0.1, 0.2])
    assert metrics["rewards/image_accuracies"].tolist() == [0.0, 1.0]
    assert metrics["logps/image_rejected"].tolist() == [-5.0, -6.0]


@pytest.mark.parametrize(
    ("text", "image", "expected"),
    [
        (0.4, 0.1, 0.25),
        (-0.4, 0.1, -0.25),
        (0.0, 0.0, 0.0),
        (1e-9, 0.01, 0.01 / SMALLEST_MARGIN),
        (-1e-9, 0.01, -0.01 / SMALLEST_MARGIN),
    ],
)
def test_modality_balance_by_hand(text, image, expected):
    logs = {"rewards/margins": text, "rewards/image_margins": image}
    assert modality_balance(logs)["rewards/modality_balance"] == pytest.approx(expected)


def test_no_balance_without_both_modalities():
    assert modality_balance({"rewards/margins": 0.1}) == {}


def test_line_for_people():
    logs = {
        "loss": 1.93214,
        "stage": 2.0,
        "rewards/margins": 0.123,
        "rewards/accuracies": 0.61,
        "rewards/image_margins": -0.05,
        "rewards/image_accuracies": 0.5,
        "rewards/modality_balance": -0.41,
        "learning_rate": 1e-5,
        "grad_norm": 3.25,
        "logps/chosen": -50.0,
    }
    assert summary_line(logs, step=10, steps=750) == (
        "step 10/750  stage 2  loss 1.9321  text margin +0.123 (61% right)  image margin -0.050 (50% right)"
        "  image/text -0.41  grad 3.25  lr 1e-05"
    )
    assert summary_line({"loss": 0.5}, step=1, steps=2) == "step 1/2  loss 0.5000"


def test_tensorboard_gets_what_the_file_gets(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = run(max_steps=3, report_to="tensorboard")
    (events,) = result.output_dir.rglob("events.out.tfevents.*")
    reader = EventAccumulator(str(events))
    reader.Reload()
    for name in ("rewards/image_margins", "rewards/modality_balance", "loss/text"):
        found = [event.value for event in reader.Scalars(f"train/{name}")]
        assert found == pytest.approx([line[name] for line in result.history if name in line], abs=1e-6)
        assert len(found) == 3


class TestReporters:
    def test_told_before_anything_is_loaded(self):
        config = TrainConfig(dataset="d", model_name_or_path="m", output_dir="o", report_to="wandbb")
        with pytest.raises(UserError, match="did you mean 'wandb'"):
            train_command(config)

    def test_none(self):
        assert reporters("none") == "none" == reporters("")

    def test_unknown_name(self):
        with pytest.raises(UserError, match="did you mean 'wandb'"):
            reporters("wandbb")

    def test_missing_package(self, monkeypatch):
        find = importlib.util.find_spec
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *a: None if name == "trackio" else find(name, *a)
        )
        with pytest.raises(UserError, match="trackio is not installed") as error:
            reporters("trackio")
        assert error.value.fix == "pip install trackio"

    def test_several(self, monkeypatch):
        monkeypatch.setattr(
            "mfpo.training.arguments.get_available_reporting_integrations", lambda: ["tensorboard", "wandb"]
        )
        assert reporters("tensorboard, wandb") == ["tensorboard", "wandb"]
