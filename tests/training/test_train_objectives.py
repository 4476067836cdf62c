"""Objectives in a whole training of the tiny LLaVA."""

from __future__ import annotations

import json
import math
import re
import sys
import types
from dataclasses import fields
from pathlib import Path

import own_objectives
import pytest
import torch
from accelerate import Accelerator

from mfpo.difficulty.ragged import Ragged
from mfpo.difficulty.scores import ReferenceScores
from mfpo.errors import UserError
from mfpo.models.load import load_vlm
from mfpo.training.balance import DECAY, FLOOR, LIMIT, ModalityBalance
from mfpo.training.loss import make_loss
from mfpo.training.objectives import OBJECTIVES, Options, Weights
from mfpo.training.train import train
from mfpo.training.trainer import PreferenceTrainer
from preference_rows import make_pairs

LOG2 = math.log(2)
NEEDS_MODEL = {"chip", "halva", "povid"}


def steps(result):
    return [line for line in result.history if "loss" in line]


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_trains(run, name):
    result = run(
        objective=name,
        use_lora=True,
        lora_r=4,
        learning_rate=1e-2,
        max_steps=8,
        num_train_epochs=1,
        stages="none",
        reference="adapter" if name in NEEDS_MODEL else "precomputed",
    )
    lines = steps(result)
    assert len(lines) == 8 and all(math.isfinite(line["loss"]) for line in lines)
    assert sum(line["loss"] for line in lines[-3:]) < sum(line["loss"] for line in lines[:3])
    first = lines[0]
    for term in ("text", "preference"):
        if f"loss/{term}" in first and name != "simpo":
            assert first[f"loss/{term}"] == pytest.approx(LOG2, abs=1e-4)
    if name == "halva":
        assert first["loss/kl"] == pytest.approx(0, abs=1e-5)
        assert lines[-1]["loss/kl"] > 1e-4
    if name == "selective-eos":
        assert "logps/rejected" not in first and "rewards/chosen" not in first


@pytest.mark.parametrize("name", sorted(NEEDS_MODEL))
def test_whole_distributions_cannot_be_stored(config_in, vlm, name):
    with pytest.raises(UserError, match="--reference adapter"):
        train(vlm, make_pairs(3), config_in(objective=name))


def test_stored_tokens_equal_a_copys(tiny_llava, config_in, tmp_path):
    """Dense DPO from stored log-probabilities and from a copy of the model: the same losses."""
    histories = []
    for kind in ("precomputed", "copy"):
        vlm = load_vlm(str(tiny_llava), device="cpu", dtype="float32")
        config = config_in(
            output_dir=str(tmp_path / kind), reference=kind, objective="ddpo", max_steps=5, stages="none"
        )
        histories.append([line["loss"] for line in steps(train(vlm, make_pairs(6), config))])
    assert histories[0] == pytest.approx(histories[1], abs=1e-4)
    assert abs(histories[0][-1] - LOG2) > 1e-3, "a loss that never moved would prove little"
    (table,) = (tmp_path / "precomputed" / "reference").glob("*.parquet")
    stored = ReferenceScores.load(table.parent, table.stem)
    for row, identifier in enumerate(stored.ids):
        tokens = stored.tokens_of(identifier, ("chosen", "rejected"))
        for kind, values in tokens.items():
            assert values.sum().item() == pytest.approx(stored.logps[kind][row].item(), abs=1e-4)


def test_scores_without_tokens_are_made_again_with_them(tiny_llava, config_in, tmp_path):
    def go(objective, folder):
        vlm = load_vlm(str(tiny_llava), device="cpu", dtype="float32")
        config = config_in(output_dir=str(tmp_path / folder), objective=objective, max_steps=1)
        return train(vlm, make_pairs(4), config, stored_scores=tmp_path / "first" / "reference")

    go("dpo", "first")
    go("ddpo", "second")
    (table,) = (tmp_path / "second" / "reference").glob("*.parquet")
    assert ReferenceScores.load(table.parent, table.stem).tokens.keys() == {"chosen", "rejected"}


def test_ragged_rows():
    rows = [torch.tensor([1.0, 2.0]), torch.tensor([]), torch.tensor([3.0])]
    ragged = Ragged.of(rows)
    assert [ragged[row].tolist() for row in range(len(ragged))] == [[1, 2], [], [3]]
    assert len(Ragged.of([])) == 0


def test_switches(run, config_in):
    result = run(length_normalization=True, max_steps=1)
    assert steps(result)[0]["loss"] == pytest.approx(3 * LOG2, abs=1e-4)
    assert make_loss(config_in(objective="simpo")).options.reference_free, "its own, though not given"
    assert make_loss(config_in(reference_free=True)).reference_detail == "none"
    with pytest.raises(UserError, match=r"--eta 0.5: objective 'dpo' has no margin term"):
        run(objective="dpo", eta=0.5)
    with pytest.raises(UserError, match="'ddpo' does not take it"):
        make_loss(config_in(objective="ddpo", length_normalization=True))


class TestOwnObjective:
    def test_function(self, run):
        result = run(objective="own_objectives:squared", max_steps=6, beta=1.0)
        lines = steps(result)
        assert lines[0]["loss"] == pytest.approx(1.0, abs=1e-4) and lines[-1]["loss"] < 1.0
        assert "rewards/image_margins" in lines[0], "all three sequences are there"
        assert len(set(own_objectives.SEEN.values())) == 1 and own_objectives.SEEN["tokens"][0] == 2

    def test_objective_that_declares_itself(self, run):
        result = run(objective="own_objectives:declared", max_steps=1)
        assert steps(result)[0]["loss"] == pytest.approx(2 * LOG2, abs=1e-4)

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("own_objectives:one_number", r"of shape \[\], where a tensor \[2\]"),
            ("own_objectives:constant", "no gradient"),
            ("own_objectives:too_few", r"function of \(policy, reference, answers, settings\)"),
            ("own_objectives:not_callable", "function of"),
            ("own_objectives:squard", "did you mean 'squared'"),
            ("no_such_module:f", "cannot be imported"),
        ],
    )
    def test_mistakes(self, config_in, vlm, name, message):
        with pytest.raises(UserError, match=message):
            train(vlm, make_pairs(3), config_in(objective=name, max_steps=1))

    def test_code_beside_the_data_is_not_run(self, config_in, vlm, tmp_path, monkeypatch):
        data = tmp_path / "data"
        data.mkdir()
        (data / "evil_objective.py").write_text("raise SystemExit('it was run')\n")
        monkeypatch.syspath_prepend(str(data))
        with pytest.raises(UserError, match="dataset's folder is not run"):
            train(vlm, make_pairs(3), config_in(objective="evil_objective:f", dataset=str(data)))
        assert "evil_objective" not in sys.modules


class TestPage:
    """``docs/objectives.md``."""

    text = (Path(__file__).parents[2] / "docs" / "objectives.md").read_text(encoding="utf-8")

    def test_lists_every_objective_and_option(self):
        rows = [line for line in self.text.splitlines() if line.startswith("| `")]
        for name in OBJECTIVES:
            assert sum(line.startswith(f"| `{name}` |") for line in rows) == 1
        assert all(f"`--{item.name}`" in self.text for item in fields(Options))

    def test_example_runs(self, run, monkeypatch):
        module = types.ModuleType("objective_of_the_page")
        exec(re.search(r"```python\n(.*?)```", self.text, re.DOTALL)[1], vars(module))
        monkeypatch.setitem(sys.modules, module.__name__, module)
        result = run(objective="objective_of_the_page:hinge_on_everything", max_steps=2)
        assert steps(result)[0]["loss"] == pytest.approx(2.0, abs=1e-4)


class TestBalance:
    def test_by_hand(self):
        """Margins 0.5 and 0.1, once: means 0.05 * 0.5 = 0.025 and 0.005; rho = 0.125 / 0.105."""
        balance = ModalityBalance()
        assert balance.weights(Weights(1.0, 2.0, 1.0)) == Weights(1.0, 2.0, 1.0)
        balance.update(0.5, 0.1)
        assert (balance.text, balance.image) == pytest.approx(((1 - DECAY) * 0.5, (1 - DECAY) * 0.1))
        rho = (0.025 + FLOOR) / (0.005 + FLOOR)
        assert balance.factors() == pytest.approx((2 / (1 + rho), 2 * rho / (1 + rho)))
        weights = balance.weights(Weights(1.0, 2.0, 3.0, 4.0))
        assert weights.image > 2.0 > weights.text + 1 and (weights.margin, weights.sft) == (3.0, 4.0)

    def test_ratio_is_limited_and_defined_for_negative_margins(self):
        balance = ModalityBalance()
        balance.text, balance.image = 100.0, -5.0
        assert balance.factors() == pytest.approx((2 / (1 + LIMIT), 2 * LIMIT / (1 + LIMIT)))
        balance.text, balance.image = -5.0, -7.0
        assert balance.factors() == (1.0, 1.0)

    def test_weights_that_are_logged_are_those_used(self, run):
        result = run(balance_modalities=True, max_steps=6, learning_rate=1e-2)
        lines = steps(result)
        assert lines[0]["balance/text_weight"] == lines[0]["balance/image_weight"] == 1.0
        assert lines[-1]["balance/text_weight"] != pytest.approx(1.0, abs=1e-3)
        for line in lines:
            text, image = line["balance/text_weight"], line["balance/image_weight"]
            assert text + image == pytest.approx(2.0, abs=1e-5)
            expected = text * line["loss/text"] + image * line["loss/image"] + line["loss/margin"]
            assert line["loss"] == pytest.approx(expected, abs=1e-3)

    @pytest.mark.parametrize("trainer", [{}, {"restore_callback_states_from_checkpoint": True}])
    def test_resumed_equals_uninterrupted(self, tiny_llava, config_in, tmp_path, monkeypatch, trainer):
        def go(folder, **changes):
            vlm = load_vlm(str(tiny_llava), device="cpu", dtype="float32")
            settings = {"balance_modalities": True, "num_train_epochs": 3, "save_steps": 4, **changes}
            settings |= {"learning_rate": 1e-2, "trainer": trainer}
            return train(vlm, make_pairs(6), config_in(output_dir=str(tmp_path / folder), **settings))

        whole = go("whole")

        class KilledError(Exception):
            pass

        calls = 0
        compute_loss = PreferenceTrainer.compute_loss

        def die(self, *args, **kwargs):
            nonlocal calls
            calls += 1
            if calls == 7:
                raise KilledError
            return compute_loss(self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(PreferenceTrainer, "compute_loss", die)
            with pytest.raises(KilledError):
                go("cut")
        sums = tmp_path / "cut" / "checkpoint-4" / "metric_sums_0.json"
        saved = json.loads(sums.read_text())
        assert "balance" not in saved, "it is in trainer_state.json"
        # As checkpoints of earlier versions have it too.
        sums.write_text(json.dumps({**saved, "balance": [7.0, 7.0]}))
        resumed = go("cut", resume_from_checkpoint="last")
        ours, theirs = whole.vlm.model.state_dict(), resumed.vlm.model.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert steps(whole)[-1]["balance/image_weight"] == steps(resumed)[-1]["balance/image_weight"] != 1.0

    def test_parts_of_a_batch_count_as_one(self, tiny_llava, config_in, tmp_path, monkeypatch):
        """Processes may have other numbers of parts: each must exchange its margins once a batch."""
        updates = []
        update = ModalityBalance.update
        monkeypatch.setattr(
            ModalityBalance, "update", lambda self, *m: (updates.append(m), update(self, *m))[1]
        )
        calls = 0
        reduce = Accelerator.reduce

        def counting(self, *args, reduction="sum", **kwargs):
            nonlocal calls
            calls += reduction == "mean"
            return reduce(self, *args, reduction=reduction, **kwargs)

        monkeypatch.setattr(Accelerator, "reduce", counting)
        found = []
        for folder, limit in (("whole", None), ("parts", 260)):
            vlm = load_vlm(str(tiny_llava), device="cpu", dtype="float32")
            settings = {"per_device_train_batch_size": 6, "num_train_epochs": 3, "learning_rate": 1e-2}
            # Adam would blow up the rounding of gradients that are zero.
            settings |= {"trainer": {"optim": "sgd"}, "max_tokens": limit, "balance_modalities": True}
            updates.clear()
            calls = 0
            result = train(vlm, make_pairs(6), config_in(output_dir=str(tmp_path / folder), **settings))
            assert calls == len(updates) == result.steps == 3
            found.append([margin for margins in updates for margin in margins])
        assert found[1] == pytest.approx(found[0], abs=1e-5) and max(map(abs, found[0])) > 1e-3

    @pytest.mark.parametrize(
        "changes", [{"objective": "dpo"}, {"image_weight": 0.0}, {"objective": "chip", "reference": "copy"}]
    )
    def test_needs_both_terms(self, config_in, vlm, changes):
        with pytest.raises(UserError, match="no text and image term to balance"):
            train(vlm, make_pairs(3), config_in(balance_modalities=True, **changes))


def test_metrics_name_the_balance_of_modalities(run):
    result = run(max_steps=4, learning_rate=1e-2)
    for line in steps(result):
        assert math.isfinite(line["rewards/modality_balance"])
    last = steps(result)[-1]
    expected = last["rewards/image_margins"] / last["rewards/margins"]
    assert last["rewards/modality_balance"] == pytest.approx(expected, rel=1e-3)
