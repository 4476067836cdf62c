"""A training that was stopped or killed ends with the bits of one that was not."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from killed import same_threads
from mfpo.data.files import save_config
from mfpo.data.writer import DatasetWriter
from mfpo.errors import Stopped, UserError
from mfpo.models.load import load_vlm
from mfpo.models.vision import ImageEncoder
from mfpo.training import batching
from mfpo.training import setup as preparation
from mfpo.training import trainer as trainer_module
from mfpo.training.batching import ScheduledRow
from mfpo.training.checkpoints import SavedOrder, can_go_on, last_whole_checkpoint, step_of
from mfpo.training.config import TrainConfig
from mfpo.training.recorded import keeps_checkpoints
from mfpo.training.train import run, train
from mfpo.training.trainer import PreferenceTrainer
from mfpo.training.watch import StepWatch
from preference_rows import make_pairs

SETTINGS = {"num_train_epochs": 3, "gradient_accumulation_steps": 2, "lora_dropout": 0.1, "lora_r": 4}
TIMING = {"train_runtime", "train_samples_per_second", "train_steps_per_second", "train_loss"}


@pytest.fixture(params=[True, False], ids=["lora", "full"], scope="module")
def use_lora(request):
    return request.param


@pytest.fixture
def load(tiny_llava):
    return lambda: load_vlm(str(tiny_llava), device="cpu", dtype="float32")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    (path,) = folder.glob("*.safetensors")
    return load_file(path)


def equal(one: Path, other: Path) -> bool:
    a, b = weights(one), weights(other)
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def metrics(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in TIMING} for line in lines]


def at_call(monkeypatch, number, act):
    """Do something in the n-th forward pass of a training."""
    calls = 0
    compute_loss = PreferenceTrainer.compute_loss

    def spy(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == number:
            act()
        return compute_loss(self, *args, **kwargs)

    monkeypatch.setattr(PreferenceTrainer, "compute_loss", spy)


@pytest.mark.parametrize("reference", ["precomputed", "copy"])
@pytest.mark.parametrize("kept", [True, False])
def test_features_of_all_pictures_are_kept_or_none(load, config_in, tmp_path, monkeypatch, reference, kept):
    """Either way a training that is resumed in the middle of a pass goes on bit for bit."""
    need = 6 * 2 * 16 * 32 * 4
    monkeypatch.setattr(preparation, "CACHE_BYTES", need if kept else need - 1)
    encoded: list[int] = []
    encode, step = ImageEncoder._encode, PreferenceTrainer.training_step

    def spy(self, images):
        encoded.append(len(images))
        return encode(self, images)

    def counted(self, *args, **kwargs):
        encoded.append(0)
        return step(self, *args, **kwargs)

    monkeypatch.setattr(ImageEncoder, "_encode", spy)
    monkeypatch.setattr(PreferenceTrainer, "training_step", counted)
    settings = {"num_train_epochs": 2, "save_steps": 100, "reference": reference}
    train(load(), make_pairs(6), config_in(output_dir=str(tmp_path / "whole"), **settings))
    in_steps = encoded[encoded.index(0) :]
    models = 2 if reference == "copy" else 1
    if kept:
        assert set(in_steps) <= {0, 1} and sum(in_steps) <= 12 * models
    else:
        assert in_steps == [0, *[4] * models] * 6, "two rows with two pictures each"
    config = config_in(output_dir=str(tmp_path / "cut"), resume_from_checkpoint="auto", **settings)
    with monkeypatch.context() as patch:
        at_call(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped):
            train(load(), make_pairs(6), config)
    train(load(), make_pairs(6), config)
    assert equal(tmp_path / "cut", tmp_path / "whole")
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


def test_stopped_by_a_signal_after_any_step(load, config_in, tmp_path, monkeypatch, use_lora):
    settings = {**SETTINGS, "use_lora": use_lora, "save_steps": 100, "logging_steps": 3}
    whole = train(load(), make_pairs(6), config_in(output_dir=str(tmp_path / "whole"), **settings))
    assert whole.steps == 5
    for step, number in ((1, signal.SIGTERM), (4, signal.SIGINT)):
        folder = tmp_path / f"cut-{step}"
        config = config_in(output_dir=str(folder), resume_from_checkpoint="auto", **settings)
        with monkeypatch.context() as patch:
            at_call(patch, 2 * step - 1, lambda number=number: os.kill(os.getpid(), number))
            with pytest.raises(Stopped, match=f"after step {step} of 5; saved .*checkpoint-{step}") as stop:
                train(load(), make_pairs(6), config)
        assert stop.value.exit_code == 128 + number and not list(folder.glob("*.safetensors"))
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        resumed = train(load(), make_pairs(6), config)
        assert resumed.steps == 5 and equal(folder, tmp_path / "whole")
        assert metrics(folder) == metrics(tmp_path / "whole"), "no gap, no repetition, no half means"


def test_without_checkpoints_a_signal_saves_nothing(load, config_in, tmp_path, monkeypatch):
    at_call(monkeypatch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(Stopped, match="after step 2 of 6; nothing was saved"):
        train(load(), make_pairs(6), config_in(max_steps=6))
    assert not list((tmp_path / "run").glob("checkpoint-*"))


KILLED_TRAINING = """
import os, signal, sys
import torch
import mfpo.training.checkpoints as checkpoints
from mfpo.cli.main import main

when, *arguments = sys.argv[1:]
calls = 0

def dying(function):
    def call(*args, **kwargs):
        global calls
        calls += 1
        if calls == 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    return call

if when == "weights written":
    from transformers import Trainer
    Trainer._save_optimizer_and_scheduler = dying(Trainer._save_optimizer_and_scheduler)
if when == "all but the name written":
    checkpoints.publish_folder = dying(checkpoints.publish_folder)
sys.exit(main(arguments))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("use_lora", "when"),
    [(True, "weights written"), (False, "all but the name written")],
    indirect=["use_lora"],
)
def test_killed_while_a_checkpoint_is_written(tiny_llava, tmp_path, use_lora, when):
    with DatasetWriter(tmp_path / "data") as writer:
        for pair in make_pairs(6):
            writer.write(pair)
    config = TrainConfig(
        dataset=str(tmp_path / "data"),
        model_name_or_path=str(tiny_llava),
        output_dir=str(tmp_path / "whole"),
        use_lora=use_lora,
        learning_rate=1e-3,
        per_device_train_batch_size=2,
        save_steps=2,
        resume_from_checkpoint="auto",
        **SETTINGS,
    )
    cut = replace(config, output_dir=str(tmp_path / "cut"))
    save_config(cut, tmp_path / "cut.yaml")
    command = [sys.executable, "-c", KILLED_TRAINING, when, "train", "--config", str(tmp_path / "cut.yaml")]
    killed = subprocess.run(command, capture_output=True, timeout=300, env=same_threads())
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()
    folder = tmp_path / "cut"
    assert [path.name for path in folder.glob("checkpoint-*")] == ["checkpoint-2"]
    assert (folder / ".checkpoint-4.tmp").is_dir(), "it was killed in the middle"
    run(cut)
    run(config)
    assert equal(folder, tmp_path / "whole")
    left = {path.name for path in folder.iterdir() if "checkpoint" in path.name}
    assert left == {"checkpoint-2", "checkpoint-4", "checkpoint-5"}


def test_a_loss_that_is_not_a_number_names_the_row(load, config_in, tmp_path, monkeypatch):
    score, calls = trainer_module.score_responses, 0

    def broken(*args, **kwargs):
        nonlocal calls
        calls += 1
        scores = score(*args, **kwargs)
        if calls == 4:
            scores.token_logps[1, 0] = math.nan
        return scores

    vlm = load()
    config = config_in(max_steps=5, save_steps=1, stages="none")
    seen = []
    saw = trainer_module.StepWatch.saw
    monkeypatch.setattr(
        trainer_module.StepWatch, "saw", lambda self, ids, x: (seen.append(ids), saw(self, ids, x))[1]
    )

    def start():
        monkeypatch.setattr(trainer_module, "score_responses", broken)

    at_call(monkeypatch, 1, start)
    with pytest.raises(UserError) as error:
        train(vlm, make_pairs(6), config)
    assert f"at step 4, rows {seen[3][1]}; the step was not taken" in error.value.what
    assert "checkpoint-3 goes on" in error.value.fix
    assert "lower --learning_rate, or" in error.value.fix, "with another beta it would not go on"
    kept = load_vlm(str(tmp_path / "run" / "checkpoint-3"), device="cpu", dtype="float32").model.state_dict()
    now = vlm.model.state_dict()
    assert all(torch.equal(kept[name], now[name]) for name in kept)
    assert last_whole_checkpoint(tmp_path / "run").endswith("checkpoint-3")


@pytest.mark.parametrize("clipped", [True, False])
def test_a_gradient_that_is_not_a_number_stops_too(load, config_in, monkeypatch, clipped):
    parent = trainer_module.AtomicCheckpoints
    monkeypatch.setattr(parent, "_get_grad_norm", lambda self, model, grad_norm=None: torch.tensor(math.inf))
    config = config_in(max_steps=2, trainer={} if clipped else {"max_grad_norm": 0})
    with pytest.raises(UserError, match="the gradient is not a finite number at step 1, rows 0000") as error:
        train(load(), make_pairs(4), config)
    assert "--learning_rate or --beta" in error.value.fix and "--resume" not in error.value.fix


@pytest.mark.parametrize(("plugin", "says"), [(None, "was not taken"), ("zero3", "nothing was saved")])
def test_what_is_said_of_the_step(tmp_path, plugin, says):
    """DeepSpeed has taken it when it can be looked at."""
    watch = StepWatch()
    watch.saw(["row"], torch.tensor([math.nan]))
    args = {"device": "cpu", "world_size": 1, "output_dir": tmp_path, "deepspeed": None}
    state = SimpleNamespace(global_step=0)
    with pytest.raises(UserError, match=says):
        watch.on_pre_optimizer_step(SimpleNamespace(**args, deepspeed_plugin=plugin), state, None)


def test_a_checkpoint_knows_its_step_whatever_its_folder_is_called(tmp_path):
    (tmp_path / "trainer_state.json").write_text('{"global_step": 7}')
    assert step_of(tmp_path) == 7


def test_a_training_that_ranks_again_records_its_model_without_save_steps():
    """It writes a checkpoint at the end of the first stage all the same."""
    assert keeps_checkpoints(TrainConfig(rescore_between_stages=True), at_start=True)
    assert keeps_checkpoints(TrainConfig(trainer={"save_strategy": "epoch"}), at_start=True)
    assert keeps_checkpoints(TrainConfig(), at_start=False)
    assert not keeps_checkpoints(TrainConfig(), at_start=True)


def test_another_order_of_rows_is_refused(load, config_in):
    train(load(), make_pairs(6), config_in(max_steps=3, save_steps=2))
    with pytest.raises(UserError, match="another order of rows"):
        train(load(), make_pairs(6), config_in(max_steps=3, seed=1, resume_from_checkpoint="last"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"noise_feather": 0.1}, r"noise was .*'feather': None.* is .*'feather': 0.1"),
        ({"noise_step": 100}, "noise was"),
        ({"image_weight": 0.5}, "weights was"),
        ({"beta": 0.2}, "beta was 0.1, is 0.2"),
        ({"balance_modalities": True}, "balance_modalities was False, is True"),
        ({"objective": "dpo"}, "objective was mfpo, is dpo"),
        ({"per_device_train_batch_size": 1}, "per_device_train_batch_size was 2, is 1"),
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps was 1, is 2"),
        ({"lr_scheduler_type": "linear"}, "lr_scheduler_type was .*, is linear"),
        ({"max_length": 1024}, "max_length was .*, is 1024"),
        ({"train_projector": True}, "train_projector was False, is True"),
    ],
)
def test_another_noise_or_loss_or_batch_is_refused(load, config_in, change, says):
    # A number of epochs, so that the order of rows does not follow from the batch.
    train(load(), make_pairs(6), config_in(save_steps=2))
    again = config_in(resume_from_checkpoint="last", **change)
    with pytest.raises(UserError, match=says):
        train(load(), make_pairs(6), again)


def test_another_adapter_is_refused(load, config_in):
    lora = {"use_lora": True, "lora_r": 2, "max_steps": 3}
    train(load(), make_pairs(6), config_in(save_steps=2, lora_alpha=4, **lora))
    with pytest.raises(UserError, match="lora_alpha was 4, is 1"):
        train(load(), make_pairs(6), config_in(lora_alpha=1, resume_from_checkpoint="last", **lora))


def test_the_checkpoint_is_not_the_model_that_its_training_started_from(load, config_in, tmp_path):
    """Its adapter would be applied twice, and it would be its own reference."""
    lora = {"use_lora": True, "lora_r": 2, "max_steps": 3, "learning_rate": 0.1}
    train(load(), make_pairs(6), config_in(save_steps=2, **lora))
    half = load_vlm(str(tmp_path / "run" / "checkpoint-2"), device="cpu", dtype="float32")
    with pytest.raises(UserError, match="initial weights was"):
        train(half, make_pairs(6), config_in(resume_from_checkpoint="last", **lora))


def test_another_number_of_processes_is_refused(load, config_in, tmp_path):
    train(load(), make_pairs(6), config_in(save_steps=2))
    path = tmp_path / "run" / "checkpoint-2" / "order.json"
    order = json.loads(path.read_text())
    assert order["settings"]["processes"] == 1
    order["settings"]["processes"] = 4
    path.write_text(json.dumps(order))
    again = config_in(resume_from_checkpoint=str(path.parent))
    with pytest.raises(UserError, match="processes was 4, is 1"):
        train(load(), make_pairs(6), again)


def test_checkpoints_that_do_not_record_their_batches_are_resumed(load, config_in, tmp_path):
    train(load(), make_pairs(6), config_in(save_steps=2))
    path = tmp_path / "run" / "checkpoint-2" / "order.json"
    order = json.loads(path.read_text())
    for name in ("per_device_train_batch_size", "gradient_accumulation_steps", "processes"):
        del order["settings"][name]
    path.write_text(json.dumps(order))
    assert train(load(), make_pairs(6), config_in(resume_from_checkpoint=str(path.parent))).steps == 3


def test_another_learning_rate_is_used_from_the_checkpoint_on(load, config_in, tmp_path, capsys):
    """Its schedule is that of a training which had it from the start, and it is what changes the weights."""

    def go(folder, rate, **changes):
        settings = {"max_steps": 5, "warmup_ratio": 0.2, "output_dir": str(tmp_path / folder), **changes}
        result = train(load(), make_pairs(6), config_in(learning_rate=rate, **settings))
        return [line["learning_rate"] for line in result.history if "learning_rate" in line]

    old, new = go("run", 1e-3, save_steps=2), go("whole", 4e-4)
    first = str(tmp_path / "run" / "checkpoint-2")
    capsys.readouterr()
    changed = go("changed", 4e-4, save_steps=2, resume_from_checkpoint=first)
    assert changed == old[:2] + new[2:] and old[2:] != new[2:]
    assert "learning rate was 0.001, is 0.0004 from here on" in capsys.readouterr().out
    assert go("same", 1e-3, resume_from_checkpoint=first) == old
    assert "learning rate was" not in capsys.readouterr().out
    assert equal(tmp_path / "same", tmp_path / "run") and not equal(tmp_path / "changed", tmp_path / "run")
    # What is saved from then on has the new rate.
    second = str(tmp_path / "changed" / "checkpoint-4")
    assert go("again", 4e-4, resume_from_checkpoint=second) == changed
    assert "learning rate was" not in capsys.readouterr().out
    assert equal(tmp_path / "again", tmp_path / "changed")


def test_groups_of_parameters_get_rates_of_their_own():
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    groups = [{"params": [weight], "lr": rate} for weight, rate in zip(weights, (1.0, 10.0), strict=True)]
    optimizer = torch.optim.SGD(groups)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / 4)
    optimizer.step()
    schedule.step()
    trainer_module.change_rates(schedule, [2.0, 20.0])
    assert [group["lr"] for group in optimizer.param_groups] == schedule.get_last_lr() == [1.5, 15.0]
    optimizer.step()
    schedule.step()
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 10.0]
    assert [group["initial_lr"] for group in optimizer.param_groups] == [2.0, 20.0]


def test_weights_alone_are_not_resumed(load, config_in, tmp_path, monkeypatch):
    """Optimizer and schedule would silently start again in the middle."""
    settings = {"save_steps": 2, "trainer": {"save_only_model": True}}
    with monkeypatch.context() as patch:
        at_call(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped, match=r"saved \S*checkpoint-2$"):
            train(load(), make_pairs(6), config_in(**settings))
    for name in ("last", "auto", str(tmp_path / "run" / "checkpoint-2")):
        with pytest.raises(UserError, match="no state of optimizer and schedule") as error:
            train(load(), make_pairs(6), config_in(resume_from_checkpoint=name))
        assert "start anew with --model_name_or_path" in error.value.fix


@pytest.mark.parametrize(
    ("files", "whole"),
    [
        (["optimizer.pt", "scheduler.pt"], True),
        (["optimizer.bin", "scheduler.pt"], True),
        (["optimizer_0/shard", "scheduler.pt"], True),
        (["global_step2/states", "latest"], True),
        (["optimizer.pt"], False),
        (["scheduler.pt"], False),
        (["trainer_state.json"], False),
    ],
    ids=["plain", "fsdp", "fsdp sharded", "deepspeed", "no schedule", "no optimizer", "neither"],
)
def test_checkpoints_with_optimizer_and_schedule_can_be_resumed(tmp_path, files, whole):
    for name in ["model.safetensors", *files]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert can_go_on(tmp_path) == whole


def test_settings_that_are_spelt_out_are_the_same_settings(load, config_in):
    train(load(), make_pairs(6), config_in(max_steps=3, save_steps=2))
    train(load(), make_pairs(6), config_in(max_steps=3, beta=0.1, resume_from_checkpoint="last"))


def test_old_checkpoints_are_removed(load, config_in, tmp_path):
    train(load(), make_pairs(6), config_in(max_steps=4, save_steps=1, trainer={"save_total_limit": 2}))
    names = {path.name for path in (tmp_path / "run").glob("*checkpoint*")}
    assert names == {"checkpoint-3", "checkpoint-4"}
    assert SavedOrder.load(tmp_path / "run" / "checkpoint-3") is not None


def test_checkpoint_that_was_cut_off_is_passed_over(tmp_path):
    for step, state in ((5, '{"global_step": 5}'), (10, '{"global_step": 10}'), (15, '{"glob'), (20, None)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if state is not None:
            (folder / "trainer_state.json").write_text(state)
    assert last_whole_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
    assert last_whole_checkpoint(tmp_path / "nowhere") is None


def test_stages_share_one_optimizer_and_one_schedule(load, config_in, tmp_path, monkeypatch):
    """The same rows in the same order, once in three stages and once in none, are the same training."""
    optimizers = []
    step = PreferenceTrainer.training_step

    def spy(self, *args, **kwargs):
        optimizers.append((self, id(self.optimizer), self.lr_scheduler.last_epoch))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(PreferenceTrainer, "training_step", spy)
    states, rates = [], []
    planned: list[ScheduledRow] = []
    for stages in ("easy_to_hard", "none"):
        optimizers.clear()
        if stages == "none":
            schedule = [ScheduledRow(scheduled.row, 1) for scheduled in planned]
            monkeypatch.setattr(batching.CurriculumPlan, "schedule", lambda self, schedule=schedule: schedule)
        config = config_in(
            output_dir=str(tmp_path / stages), stages=stages, num_train_epochs=2, warmup_ratio=0.2
        )
        result = train(load(), make_pairs(9), config)
        trainer = optimizers[0][0]
        planned = trainer.train_dataset.schedule
        assert len({identity for _, identity, _ in optimizers}) == 1
        assert [epoch for _, _, epoch in optimizers] == list(range(9))
        states.append(trainer.optimizer.state_dict()["state"])
        rates.append([line["learning_rate"] for line in result.history if "loss" in line])
    assert rates[0] == rates[1] and len(set(rates[0])) > 6
    assert rates[0].index(max(rates[0])) == 2 and sorted(rates[0][2:], reverse=True) == rates[0][2:]
    for index, state in states[0].items():
        assert state["step"] == 9
        for name in ("exp_avg", "exp_avg_sq"):
            assert torch.equal(state[name], states[1][index][name])
    assert equal(tmp_path / "easy_to_hard", tmp_path / "none")


def test_a_training_of_one_step_changes_the_model(load, config_in, capsys):
    """The step would be the warm-up, whose first learning rate is 0."""
    vlm = load()
    before = {name: p.detach().clone() for name, p in vlm.model.named_parameters()}
    config = config_in(per_device_train_batch_size=3, gradient_accumulation_steps=2, warmup_ratio=0.03)
    result = train(vlm, make_pairs(6), config)
    out = capsys.readouterr().out
    assert (
        "6 examples from 6 rows, 1 step of 6 rows" in out
        and "no warm-up: of 1 step nothing would be left" in out
    )
    assert "1 step for 3 stages" in out and "--gradient_accumulation_steps" in out
    after = dict(result.vlm.model.named_parameters())
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_warm_up_that_was_asked_for_in_steps_is_kept(load, config_in, capsys):
    config = config_in(gradient_accumulation_steps=2, max_steps=4, trainer={"warmup_steps": 20})
    rates = [line["learning_rate"] for line in train(load(), make_pairs(6), config).history if "loss" in line]
    assert rates[0] == 0.0 and rates == sorted(rates)
    assert "no warm-up" not in capsys.readouterr().out


def test_a_new_training_does_not_join_the_checkpoints_of_another(load, config_in):
    train(load(), make_pairs(6), config_in(max_steps=2, save_steps=1))
    with pytest.raises(UserError, match=r"checkpoints of an earlier training are here.*checkpoint-2"):
        train(load(), make_pairs(6), config_in(max_steps=2))
    train(load(), make_pairs(6), config_in(max_steps=2, dry_run=True))
