from __future__ import annotations

import json
import math
from collections.abc import Mapping

import pytest
import torch
import yaml
from transformers import TrainerCallback

from mfpo.data.writer import DatasetWriter
from mfpo.difficulty import scores, store
from mfpo.difficulty.config import RankConfig
from mfpo.difficulty.rank import run as rank
from mfpo.difficulty.scores import ReferenceScores, autocast_context
from mfpo.errors import UserError
from mfpo.models.load import load_vlm
from mfpo.records import ImageSource
from mfpo.training.arguments import training_arguments
from mfpo.training.config import TrainConfig
from mfpo.training.train import run as train_command
from mfpo.training.train import train
from mfpo.training.trainer import PreferenceTrainer
from preference_rows import make_pair, make_pairs

SEQUENCES = ("chosen", "rejected", "image_rejected")
METRICS = {"loss", "loss/text", "loss/image", "loss/margin", "stage"}
METRICS |= {f"{group}/{name}" for group in ("rewards", "logps") for name in SEQUENCES}
METRICS |= {f"rewards/{name}" for name in ("margins", "accuracies", "image_margins", "image_accuracies")}


def state(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def lines(result) -> list[dict[str, float]]:
    return [json.loads(line) for line in (result.output_dir / "metrics.jsonl").read_text().splitlines()]


def same(a: Mapping[str, torch.Tensor], b: Mapping[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_full_training(run, vlm, tiny_llava, capsys):
    before = state(vlm.model)
    result = run(max_steps=4)
    after = result.vlm.model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any("vision_tower" in name or "projector" in name for name in changed)
    assert same(
        state(load_vlm(str(result.output_dir), device="cpu", dtype="float32").model), state(result.vlm.model)
    )
    assert (result.steps, result.rows, result.skipped) == (4, 6, [])
    assert capsys.readouterr().out.endswith(f"written to {result.output_dir}\n")
    settings = yaml.safe_load((result.output_dir / "config.yaml").read_text())
    assert settings["objective"] == "mfpo" and settings["max_steps"] == 4

    logged = lines(result)
    steps = [line for line in logged if "loss" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4] and steps[0].keys() >= METRICS
    assert steps[0]["loss"] == pytest.approx(3 * math.log(2), abs=1e-4)
    assert steps[0]["rewards/chosen"] == pytest.approx(0, abs=1e-4)
    for line in steps:
        terms = sum(line[f"loss/{term}"] for term in ("text", "image", "margin"))
        assert line["loss"] == pytest.approx(terms, abs=1e-4)
        assert line["rewards/margins"] == pytest.approx(
            line["rewards/chosen"] - line["rewards/rejected"], abs=1e-5
        )
    assert steps[-1]["loss"] < steps[0]["loss"]


@pytest.mark.parametrize(
    ("objective", "start"),
    [
        ("dpo", math.log(2)),
        ("dpo+margin", 2 * math.log(2)),
        ("mdpo", 3 * math.log(2)),
        ("mfpo", 3 * math.log(2)),
    ],
)
def test_first_loss_of_each_objective(run, objective, start):
    result = run(objective=objective, max_steps=1)
    assert result.history[0]["loss"] == pytest.approx(start, abs=1e-4)
    assert ("logps/image_rejected" in result.history[0]) == (objective in ("mdpo", "mfpo"))


def test_lora_adapter_opens_on_its_base(run, tiny_llava, vlm):
    before = state(vlm.model)
    result = run(use_lora=True, lora_r=4, lora_alpha=8, max_steps=2, train_projector=True)
    assert (result.output_dir / "adapter_config.json").is_file()
    again = load_vlm(str(result.output_dir), device="cpu", dtype="float32")
    assert same(state(again.model), state(result.vlm.model))
    again.model = again.model.unload()
    tower = {name: tensor for name, tensor in state(again.model).items() if "vision_tower" in name}
    assert tower and same(tower, {name: before[name] for name in tower})


@pytest.mark.parametrize("kind", ["use_dora", "use_rslora"])
def test_kinds_of_adapter_open_on_their_base(run, kind):
    """The loss starts where it must, and what is saved is what was trained."""
    result = run(use_lora=True, lora_r=4, lora_alpha=8, max_steps=3, learning_rate=1e-2, **{kind: True})
    losses = [line["loss"] for line in result.history if "loss" in line]
    assert losses[0] == pytest.approx(3 * math.log(2), abs=1e-4) and losses[-1] < losses[0]
    again = load_vlm(str(result.output_dir), device="cpu", dtype="float32")
    assert same(state(again.model), state(result.vlm.model))


def test_adapter_is_merged_before_it_is_trained_on(run, config_in, tmp_path):
    run(use_lora=True, lora_r=4, max_steps=2)
    first = load_vlm(str(tmp_path / "run"), device="cpu", dtype="float32")
    result = train(first, make_pairs(4), config_in(output_dir=str(tmp_path / "second"), max_steps=1))
    assert result.history[0]["loss"] == pytest.approx(3 * math.log(2), abs=1e-4)
    assert not (result.output_dir / "adapter_config.json").exists()


def test_an_adapter_trained_on_an_adapter_opens_on_both(run, config_in, tmp_path):
    run(use_lora=True, lora_r=4, max_steps=3, learning_rate=3e-2)
    first = load_vlm(str(tmp_path / "run"), device="cpu", dtype="float32")
    settings = {"output_dir": str(tmp_path / "second"), "learning_rate": 3e-2, "max_steps": 3}
    result = train(first, make_pairs(4), config_in(use_lora=True, lora_r=4, **settings))
    again = load_vlm(str(tmp_path / "second"), device="cpu", dtype="float32")
    assert same(state(again.model), state(result.vlm.model))
    assert again.tokenizer.chat_template == first.tokenizer.chat_template

    (tmp_path / "second" / "adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(tmp_path / "second")})
    )
    with pytest.raises(UserError, match="the adapter stands on itself"):
        load_vlm(str(tmp_path / "second"))


def test_scores_of_an_adapter_are_found_by_a_training_on_it(run, config_in, tmp_path, monkeypatch):
    run(use_lora=True, lora_r=4, max_steps=2, learning_rate=3e-2)
    with DatasetWriter(tmp_path / "data") as writer:
        for pair in make_pairs(6):
            writer.write(pair)
    names = {"dataset": str(tmp_path / "data"), "model_name_or_path": str(tmp_path / "run")}
    rank(RankConfig(**names, precision="float32"))
    monkeypatch.setattr(scores, "_score_rows", None)
    settings = {"use_lora": True, "max_steps": 1, "stages": "easy_to_hard"}
    assert train_command(config_in(**names, **settings, output_dir=str(tmp_path / "second"))).steps == 1


@pytest.mark.parametrize("objective", ["dpo", "mfpo"])
def test_kinds_of_reference_agree(tiny_llava, config_in, tmp_path, objective):
    """The same LoRA training three times; log-ratios after a step depend on the reference."""
    histories = {}
    for kind in ("precomputed", "adapter", "copy"):
        vlm = load_vlm(str(tiny_llava), device="cpu", dtype="float32")
        changes = {
            "output_dir": str(tmp_path / kind),
            "reference": kind,
            "objective": objective,
            "max_steps": 4,
        }
        result = train(vlm, make_pairs(6), config_in(use_lora=True, lora_r=4, stages="none", **changes))
        histories[kind] = [
            {name: value for name, value in line.items() if name.startswith(("loss", "logps", "rewards"))}
            for line in result.history
            if "loss" in line
        ]
    assert len(histories["copy"]) == 4
    for kind in ("adapter", "copy"):
        for line, expected in zip(histories[kind], histories["precomputed"], strict=True):
            accuracies = {name for name in line if "accuracies" in name}
            for name in line.keys() - accuracies:
                assert line[name] == pytest.approx(expected[name], abs=2e-4), (kind, name)


def test_stages_are_trained_in_order(run, monkeypatch):
    seen: list[tuple[str, float]] = []
    compute_loss = PreferenceTrainer.compute_loss

    def spy(self, model, inputs, *args, **kwargs):
        batch = inputs["batch"]
        seen.extend(zip(batch.ids, batch.stages.tolist(), strict=True))
        return compute_loss(self, model, inputs, *args, **kwargs)

    monkeypatch.setattr(PreferenceTrainer, "compute_loss", spy)
    result = run(num_train_epochs=2, difficulty="token-mean")
    (table,) = (result.output_dir / "reference").glob("*.parquet")
    scores = ReferenceScores.load(table.parent, table.stem)
    entropy = dict(zip(scores.ids, scores.entropies["token-mean"].tolist(), strict=True))
    by_entropy = sorted(entropy, key=entropy.__getitem__)
    assert [stage for _, stage in seen] == [1] * 4 + [2] * 4 + [3] * 4
    for number in range(3):
        rows = [identifier for identifier, _ in seen[4 * number : 4 * number + 4]]
        assert sorted(rows[:2]) == sorted(rows[2:]) == sorted(by_entropy[2 * number : 2 * number + 2])


def test_accumulated_batches_equal_one_large_batch(tiny_llava, config_in, tmp_path):
    results = []
    for size, accumulation in ((4, 1), (2, 2)):
        vlm = load_vlm(str(tiny_llava), device="cpu", dtype="float32")
        changes = {
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": accumulation,
            "max_steps": 3,
        }
        results.append(train(vlm, make_pairs(8), config_in(output_dir=str(tmp_path / str(size)), **changes)))
    for one, other in zip(results[0].history[:3], results[1].history[:3], strict=True):
        for name in METRICS | {"grad_norm"}:
            assert one[name] == pytest.approx(other[name], abs=2e-4), name


def test_unreadable_rows_are_skipped_and_counted(run):
    rows = make_pairs(6)
    rows[2] = make_pair(2, images=(ImageSource(data=b"\x89PNG\r\n\x1a\n"),))
    result = run(rows, max_steps=3)
    assert result.rows == 5
    (skip,) = [json.loads(line) for line in (result.output_dir / "skipped.jsonl").read_text().splitlines()]
    assert skip["where"].endswith(rows[2].id) and "image" in skip["reason"]


def test_stored_scores_are_used_only_for_the_same_model(run, config_in, tiny_llava, tmp_path, monkeypatch):
    first = run(max_steps=1)
    monkeypatch.setattr(store, "compute_scores", lambda *a, **k: pytest.fail("scored again"))
    vlm = load_vlm(str(tiny_llava), device="cpu", dtype="float32")
    config = config_in(output_dir=str(tmp_path / "second"), max_steps=1)
    again = train(vlm, make_pairs(6), config, stored_scores=first.output_dir / "reference")
    assert again.history[0] == first.history[0]
    with pytest.raises(pytest.fail.Exception, match="scored again"):
        train(first.vlm, make_pairs(6), config, stored_scores=first.output_dir / "reference")


def test_wrong_reference_is_noticed_before_training(config_in, vlm, monkeypatch):
    load = ReferenceScores.logps_of
    monkeypatch.setattr(
        ReferenceScores, "logps_of", lambda self, i, s: {k: v - 3.0 for k, v in load(self, i, s).items()}
    )
    with pytest.raises(UserError, match="not the same function"):
        train(vlm, make_pairs(4), config_in(max_steps=1))


def test_dry_run_prints_the_checks(config_in, vlm, capsys):
    before = state(vlm.model)
    assert (
        train(vlm, make_pairs(6), config_in(dry_run=True, use_lora=True, lora_target_modules=["q_proj"]))
        is None
    )
    out = capsys.readouterr().out
    assert "6 examples from 6 rows, 3 steps of 2 rows" in out and "q_proj" in out
    assert "step-0 loss must be 2.07944 and is 2.0794" in out
    assert "lengths of all 6 rows, by their text: at most" in out
    assert "longest batch (rows 0000" in out and "training takes about" in out
    assert "the reference pass before it takes about" in out
    assert "16 image tokens" in out and "</s>" in out
    assert same(
        before, {k.replace(".base_layer", ""): v for k, v in state(vlm.model).items() if "lora_" not in k}
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "mfpoo"}, "did you mean"),
        ({"beta": 0.0}, "beta"),
        ({"trainer": {"max_grad_nrm": 1.0}}, "did you mean 'max_grad_norm'"),
        ({"trainer": {"num_train_epochs": 3}}, "set --num_train_epochs"),
        ({"lr_scheduler_type": "cosinus"}, "not valid"),
        ({"resume_from_checkpoint": "last"}, "no checkpoint"),
        ({"reference": "adapter"}, "no adapter"),
        ({"max_length": 20}, "no row can be used"),
    ],
)
def test_user_mistakes(config_in, vlm, changes, message):
    with pytest.raises(UserError, match=message):
        train(vlm, make_pairs(3), config_in(**changes))


def test_sequences_longer_than_the_models_positions(config_in, vlm):
    vlm.model.config.text_config.max_position_embeddings = 30
    with pytest.raises(UserError, match="positions for 30"):
        train(vlm, make_pairs(3), config_in())


def test_no_rows(config_in, vlm):
    with pytest.raises(UserError, match="no rows"):
        train(vlm, [], config_in())


@pytest.mark.parametrize("use_lora", [True, False])
def test_bfloat16(run, vlm, use_lora):
    if use_lora:
        vlm.model.to(torch.bfloat16)
    result = run(bf16=True, use_lora=use_lora, lora_r=4, max_steps=2)
    assert result.history[0]["loss"] == pytest.approx(3 * math.log(2), abs=2e-2)
    trained = {p.dtype for p in result.vlm.model.parameters() if p.requires_grad}
    assert trained == {torch.float32}, "what is trained is kept in float32"
    assert result.vlm.model.dtype == (torch.bfloat16 if use_lora else torch.float32)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "mixed"])
def test_the_reference_pass_computes_as_training_does(config_in, precision):
    """Under autocast in all but float32: norms of a tower in bfloat16 are float32 there, and only there."""
    device = torch.device("cpu")
    with autocast_context(precision, device):
        assert torch.is_autocast_enabled("cpu") == training_arguments(config_in(), precision, device).bf16


def test_products_of_a_bfloat16_model_s_adapter_are_bfloat16(vlm, config_in):
    """Its weights are float32 and so is what comes out of a norm; in float32 it would take twice the time."""
    vlm.model.to(torch.bfloat16)
    seen = set()

    class Look(TrainerCallback):
        def on_train_begin(self, args, state, control, model=None, **kwargs):
            for name, module in model.named_modules():
                if name.endswith(("lora_A.default", "lora_B.default")):
                    module.register_forward_hook(lambda m, a, out: seen.add((m.weight.dtype, out.dtype)))

    train(vlm, make_pairs(3), config_in(use_lora=True, lora_r=4, max_steps=1), callbacks=[Look()])
    assert seen == {(torch.float32, torch.bfloat16)}


def test_float32_is_not_had_with_bfloat16_weights(vlm, config_in):
    vlm.model.to(torch.bfloat16)
    with pytest.raises(UserError, match=r"--bf16 false.*the weights are bfloat16"):
        train(vlm, make_pairs(3), config_in(bf16=False, use_lora=True))


@pytest.mark.parametrize("name", ["fp16", "bf16"])
def test_precision_is_not_set_behind_the_reference_pass(vlm, config_in, name):
    with pytest.raises(UserError, match=rf"trainer: {name}.*set for the reference pass too") as error:
        train(vlm, make_pairs(3), config_in(trainer={name: True}))
    assert "--bf16" in error.value.fix


def test_gradient_checkpointing_changes_nothing(tiny_llava, config_in, tmp_path):
    histories = []
    for flag in (False, True):
        vlm = load_vlm(str(tiny_llava), device="cpu", dtype="float32")
        config = config_in(output_dir=str(tmp_path / str(flag)), gradient_checkpointing=flag, max_steps=3)
        histories.append(
            [line["loss"] for line in train(vlm, make_pairs(6), config).history if "loss" in line]
        )
    assert histories[0] == pytest.approx(histories[1], abs=1e-5)


@pytest.mark.parametrize("setting", ["use_dora", "use_rslora", "load_in_4bit"])
def test_settings_of_the_adapter_need_one(setting):
    config = TrainConfig(dataset="d", model_name_or_path="m", output_dir="o", **{setting: True})
    with pytest.raises(UserError, match="add --use_lora"):
        train_command(config)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("num_train_epochs", 0), ("per_device_train_batch_size", 0), ("lora_r", 0), ("max_steps", 0)],
)
def test_numbers_out_of_range_are_told_before_anything_is_loaded(setting, value):
    config = TrainConfig(dataset="d", model_name_or_path="m", output_dir="o", **{setting: value})
    with pytest.raises(UserError, match=setting):
        train_command(config)
