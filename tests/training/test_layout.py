"""Whatever the layout and the parts of a step, training gives the same weights."""

from __future__ import annotations

import pytest
import torch

from mfpo.errors import UserError
from mfpo.models.load import load_vlm
from mfpo.models.logprobs import Layout
from mfpo.preferences.collate import row_tokens
from mfpo.preferences.encoding import SEQUENCES, EncodedRows, RowEncoder
from mfpo.training.batching import CurriculumDataset, PreferenceCollator, ScheduledRow
from mfpo.training.train import run, train
from preference_rows import make_pairs

SHARED = Layout(shared=True, chunked=True)


@pytest.fixture
def trained(tiny_llava, config_in):
    """Weights after a few steps of plain gradient descent, and the log, for some settings."""

    def go(**changes):
        vlm = load_vlm(str(tiny_llava), device="cpu", dtype="float32")
        # Adam would blow up the rounding of gradients that are zero.
        trainer = {"optim": "sgd", "weight_decay": 0.0, **changes.pop("trainer", {})}
        config = config_in(learning_rate=1e-2, lr_scheduler_type="constant", trainer=trainer, **changes)
        result = train(vlm, make_pairs(6), config)
        return {n: p.detach() for n, p in result.vlm.model.named_parameters()}, result

    return go


def assert_same(found, expected):
    for name, weight in expected.items():
        assert torch.allclose(found[name], weight, atol=1e-6), name


@pytest.mark.parametrize("parts", [{"train_vision_tower": True, "train_projector": True}, {"use_lora": True}])
def test_shared_prompts_train_the_same_weights(trained, tmp_path, parts):
    plain, _ = trained(shared_prefix="off", output_dir=str(tmp_path / "plain"), **parts)
    shared, result = trained(shared_prefix="on", output_dir=str(tmp_path / "shared"), **parts)
    assert_same(shared, plain)
    assert all(line["padding"] == 0 for line in result.history if "padding" in line)


def test_a_limit_of_tokens_splits_the_step_and_not_its_gradient(trained, tmp_path):
    whole, one = trained(per_device_train_batch_size=6, output_dir=str(tmp_path / "one"))
    split, more = trained(per_device_train_batch_size=6, output_dir=str(tmp_path / "more"), max_tokens=260)
    assert_same(split, whole)
    assert one.steps == more.steps
    lines = zip(one.history, more.history, strict=True)
    assert all(a["loss"] == pytest.approx(b["loss"], abs=1e-4) for a, b in lines if "loss" in a)


def test_parts_keep_to_the_limit(vlm):
    rows = EncodedRows(make_pairs(6), RowEncoder(vlm.processor))
    dataset = CurriculumDataset(rows, [ScheduledRow(i, 1) for i in range(6)], None, SEQUENCES)
    batches = PreferenceCollator(SEQUENCES, 0, SHARED, max_tokens=260)([dataset[i] for i in range(6)])
    parts = [batches["batch"], *batches["more"]]
    assert sorted(identifier for part in parts for identifier in part.ids) == sorted(rows.ids)
    assert all(part.responses.tokens <= 260 or len(part.ids) == 1 for part in parts)
    assert 1 < len(parts) < 6
    expected = sum(row_tokens(rows[i], SEQUENCES, SHARED) for i in range(6))
    assert sum(part.responses.tokens for part in parts) == expected


def test_a_limit_of_no_tokens(config_in):
    with pytest.raises(UserError, match="at least 1"):
        run(config_in(dataset="d", model_name_or_path="m", max_tokens=0))


def test_a_limit_of_tokens_where_parameters_are_shared(vlm, config_in, tmp_path):
    with pytest.raises(UserError, match="same number of forward passes"):
        train(vlm, make_pairs(3), config_in(max_tokens=100, trainer={"fsdp": "full_shard"}))
    assert not list((tmp_path / "run").iterdir()), "it is told before the reference pass"


def test_the_report_names_the_layout(vlm, config_in, capsys):
    train(vlm, make_pairs(4), config_in(dry_run=True))
    assert "layout: prompts shared by their responses, without padding" in capsys.readouterr().out
