"""What is found out before the first step, and that finding it out changes nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from mfpo.errors import UserError
from mfpo.models.load import load_vlm
from mfpo.preferences.encoding import RowEncoder
from mfpo.records import assistant_message
from mfpo.training import setup as module
from mfpo.training.preflight import check_template
from mfpo.training.probe import Probe
from mfpo.training.train import train
from mfpo.training.trainer import PreferenceTrainer
from preference_rows import make_pair, make_pairs


def test_the_probe_leaves_no_trace(tiny_llava, config_in, tmp_path, monkeypatch):
    """With dropout, which draws random numbers, and image features, which are kept."""
    states = []
    for probed in (True, False):
        if not probed:
            monkeypatch.setattr(module, "probe", lambda *a: Probe([], 0, 0.0, None, 0, 0, 0))
        vlm = load_vlm(str(tiny_llava), device="cpu", dtype="float32")
        config = config_in(output_dir=str(tmp_path / str(probed)), use_lora=True, lora_r=4, lora_dropout=0.2)
        result = train(vlm, make_pairs(6), config)
        states.append((result.vlm.model.state_dict(), [line.get("loss") for line in result.history]))
    assert all(torch.equal(states[0][0][name], states[1][0][name]) for name in states[0][0])
    assert states[0][1] == states[1][1]


def test_the_longest_rows_are_run_and_named(vlm, config_in, capsys, monkeypatch):
    rows = make_pairs(8)
    rows[5] = replace(rows[5], chosen=assistant_message("a red mug and " * 20))
    rows[2] = replace(rows[2], rejected=assistant_message("a blue plate and " * 15))
    ran = []
    evaluate = PreferenceTrainer.evaluate_batch

    def spy(self, model, batch):
        ran.append((batch.ids, torch.is_grad_enabled()))
        return evaluate(self, model, batch)

    monkeypatch.setattr(PreferenceTrainer, "evaluate_batch", spy)
    train(vlm, rows, config_in())
    out = capsys.readouterr().out
    assert ([rows[5].id, rows[2].id], True) in ran
    assert f"longest batch (rows {rows[5].id}, {rows[2].id};" in out
    assert "GiB at its peak" in out or "does not tell" in out


def test_memory_counts_what_is_there_while_training(vlm, config_in, monkeypatch):
    """Gradients of an earlier batch, moments of AdamW, features of all pictures up to the budget."""
    gradients = []
    evaluate = PreferenceTrainer.evaluate_batch

    def spy(self, model, batch):
        if torch.is_grad_enabled():
            gradients.append(sum(p.grad.nbytes for p in model.parameters() if p.grad is not None))
        return evaluate(self, model, batch)

    monkeypatch.setattr(PreferenceTrainer, "evaluate_batch", spy)
    found = []
    probe = module.probe
    monkeypatch.setattr(module, "probe", lambda *a: (found.append(probe(*a)), found[-1])[1])
    for accumulated, runs in ((1, 1), (4, 2)):
        gradients.clear()
        train(vlm, make_pairs(8), config_in(dry_run=True, gradient_accumulation_steps=accumulated))
        trained = sum(p.nbytes for p in vlm.model.parameters() if p.requires_grad)
        assert gradients == [0, trained][:runs] * 2, "of the longest batch, and of a typical one"
    assert found[0].optimizer == 2 * trained
    # Two pictures a row, the rejected one too, of 16 tokens of width 32 each.
    assert found[0].features == 8 * 2 * 16 * 32 * 4


def test_a_batch_that_does_not_fit_names_its_rows(vlm, config_in, monkeypatch):
    evaluate = PreferenceTrainer.evaluate_batch

    def full(self, model, batch):
        if torch.is_grad_enabled():
            raise torch.OutOfMemoryError
        return evaluate(self, model, batch)

    monkeypatch.setattr(PreferenceTrainer, "evaluate_batch", full)
    with pytest.raises(UserError, match=r"does not fit into the GPU's .* rows 0{15}\d, 0{15}\d") as error:
        train(vlm, make_pairs(5), config_in())
    assert "per_device_train_batch_size 2" in error.value.where


def test_a_dry_run_scores_a_few_rows_only(vlm, config_in, tmp_path, capsys, monkeypatch):
    encoded = []
    encode = RowEncoder.encode
    monkeypatch.setattr(
        RowEncoder, "encode", lambda self, pair: (encoded.append(pair.id), encode(self, pair))[1]
    )
    config = config_in(dry_run=True, gradient_accumulation_steps=2, num_train_epochs=2)
    assert train(vlm, make_pairs(60), config) is None
    out = capsys.readouterr().out
    assert "120 examples from 60 rows, 30 steps of 4 rows" in out
    assert len(set(encoded)) < 16, "eight to compare lengths, and two batches"
    assert not list((tmp_path / "run").rglob("*.safetensors"))
    assert "USER:" in out and "the reference pass before it takes about" in out


def test_cut_answers_and_rows_without_room_are_counted(vlm, config_in, capsys):
    rows = make_pairs(6)
    rows[3] = replace(rows[3], chosen=assistant_message("a red mug and " * 20))
    train(vlm, rows, config_in(dry_run=True, max_length=60, objective="dpo"))
    out = capsys.readouterr().out
    assert "1 responses cut to fit" in out and f"at most 60 tokens (row {rows[3].id})" in out


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({}, "2 of 6 rows without a region: their whole picture gets noise"),
        ({"noise_scope": "crop"}, ""),
        ({"objective": "dpo+margin"}, ""),
    ],
)
def test_rows_without_a_region_are_counted_where_regions_count(vlm, config_in, capsys, settings, told):
    rows = [replace(pair, regions=()) if at < 2 else pair for at, pair in enumerate(make_pairs(6))]
    train(vlm, rows, config_in(dry_run=True, **settings))
    out = capsys.readouterr().out
    assert told in out and ("without a region" in out) == bool(told)


def test_answers_that_do_not_end_are_refused(vlm, config_in, monkeypatch):
    from mfpo.preferences import encoding

    monkeypatch.setattr(encoding, "render_response", lambda processor, prompt, answer: "a mug")
    with pytest.raises(UserError, match="do not end with the end-of-sequence token"):
        train(vlm, make_pairs(3), config_in())


def test_templates(vlm):
    pair, processor = make_pair(1), vlm.processor
    encoder = RowEncoder(processor)
    good = processor.chat_template
    assert check_template(encoder, pair) == []

    processor.chat_template = good.replace("<image>", "")
    with pytest.raises(UserError, match="0 image placeholders for 1 images"):
        check_template(encoder, pair)
    processor.chat_template = "{% for m in messages if m.role == 'user' %}<image>{% endfor %}"
    with pytest.raises(UserError, match="where the row says"):
        check_template(encoder, pair)
    processor.chat_template = good
    bos = processor.tokenizer.bos_token
    processor.chat_template = bos + bos + good
    assert any("two BOS" in note for note in check_template(encoder, pair))
    processor.chat_template = "{% if not add_generation_prompt %}!{% endif %}" + good
    assert any("plain text" in note for note in check_template(encoder, pair))


def test_a_kernel_that_cannot_be_trained_is_refused_before_a_row_is_scored(tiny_llava, config_in, tmp_path):
    vlm = load_vlm(str(tiny_llava), device="cpu", dtype="float32", attn_implementation="flex_attention")
    with pytest.raises(UserError, match="no backward pass on a CPU") as error:
        train(vlm, make_pairs(3), config_in())
    assert error.value.where == "--attn_implementation flex_attention"
    assert not (tmp_path / "run" / "reference").exists()
