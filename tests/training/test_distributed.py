"""Several processes equal one. On a CPU, with gloo: DDP through the command, FSDP2 on the model itself."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import DeepSpeedPlugin, FullyShardedDataParallelPlugin
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils import DistributedType
from accelerate.utils.launch import prepare_multi_gpu_env
from safetensors.torch import load_file
from torch.distributed.fsdp import FullStateDictConfig
from transformers import TrainingArguments
from transformers.training_args import ParallelMode

from mfpo.data.files import save_config
from mfpo.data.writer import DatasetWriter
from mfpo.difficulty.config import RankConfig
from mfpo.difficulty.rank import run as rank
from mfpo.errors import UserError
from mfpo.models.load import load_vlm
from mfpo.records import assistant_message
from mfpo.training.arguments import is_sharded, layers_to_shard, name_layers_to_shard, training_arguments
from mfpo.training.config import TrainConfig
from mfpo.training.train import run
from preference_rows import make_pair, make_pairs
from training.test_resume import equal, metrics

TESTS = Path(__file__).parents[1]
CONFIGS = TESTS.parent / "configs" / "accelerate"
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path]),
    "OMP_NUM_THREADS": "1",
}


def launched(name: str) -> SimpleNamespace:
    """What `accelerate launch` understands of a configuration."""
    parser = launch_command_parser()
    args = parser.parse_args(["--config_file", str(CONFIGS / f"{name}.yaml"), "-m", "mfpo.cli"])
    return _validate_launch_command(args)[0]


def test_all_configurations_are_known():
    names = {path.stem: load_config_from_file(str(path)).distributed_type for path in CONFIGS.iterdir()}
    assert names == {
        "ddp": DistributedType.MULTI_GPU,
        "fsdp2": DistributedType.FSDP,
        "zero3": DistributedType.DEEPSPEED,
    }


def test_ddp_configuration():
    args = launched("ddp")
    assert args.multi_gpu and not args.use_fsdp and not args.use_deepspeed and args.mixed_precision == "bf16"


def test_fsdp2_configuration(monkeypatch, tiny_llava, tmp_path):
    args = launched("fsdp2")
    assert args.use_fsdp
    for name, value in prepare_multi_gpu_env(args).items():
        if name.startswith(("FSDP", "ACCELERATE_USE_FSDP")):
            monkeypatch.setenv(name, value)
    monkeypatch.setenv("FSDP_TRANSFORMER_CLS_TO_WRAP", "unset")
    monkeypatch.delenv("FSDP_TRANSFORMER_CLS_TO_WRAP")
    model = load_vlm(str(tiny_llava), device="cpu").model
    name_layers_to_shard(model, TrainingArguments(output_dir=str(tmp_path), use_cpu=True))
    plugin = FullyShardedDataParallelPlugin()
    assert plugin.fsdp_version == 2 and plugin.reshard_after_forward is True
    plugin.set_auto_wrap_policy(model)  # raises for layers that the model names and does not have
    wrapped = {cls.__name__ for cls in plugin.auto_wrap_policy.keywords["transformer_layer_cls"]}
    assert {"LlamaDecoderLayer", "CLIPEncoderLayer"} <= wrapped
    # Only then is what is saved a folder that from_pretrained opens.
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type)
    assert is_sharded(TrainingArguments(output_dir=str(tmp_path), use_cpu=True))


@pytest.mark.parametrize("chosen", [None, "SHARDED_STATE_DICT"])
def test_fsdp_saves_whole_models_whatever_the_launcher_says(monkeypatch, tmp_path, chosen):
    """Of sharded state the parent writes no model at the end; sharded is what accelerate does by itself."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_VERSION", "2")
    monkeypatch.setenv("FSDP_STATE_DICT_TYPE", chosen or "unset")
    if chosen is None:
        monkeypatch.delenv("FSDP_STATE_DICT_TYPE")
    assert "SHARDED" in str(FullyShardedDataParallelPlugin().state_dict_type)
    training_arguments(TrainConfig(output_dir=str(tmp_path)), "float32", torch.device("cpu"))
    plugin = FullyShardedDataParallelPlugin()
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type)
    assert isinstance(plugin.state_dict_config, FullStateDictConfig)


def test_fsdp_of_the_training_arguments_saves_whole_models(tmp_path):
    trainer = {"fsdp": True, "fsdp_config": {"state_dict_type": "SHARDED_STATE_DICT"}}
    config = TrainConfig(output_dir=str(tmp_path), trainer=trainer)
    args = training_arguments(config, "float32", torch.device("cpu"))
    plugin = FullyShardedDataParallelPlugin(**args.fsdp_plugin_args)
    assert "FULL_STATE_DICT" in str(plugin.state_dict_type)


@pytest.mark.parametrize("named", [None, "arguments", "environment"])
def test_fsdp_of_the_training_arguments_shards_layers_that_are_there(
    tiny_llava, tmp_path, monkeypatch, named
):
    """LLaVA names layers of CLIP's text model, which it does not have."""
    monkeypatch.setenv("FSDP_TRANSFORMER_CLS_TO_WRAP", "LlamaDecoderLayer")
    if named != "environment":
        monkeypatch.delenv("FSDP_TRANSFORMER_CLS_TO_WRAP")
    chosen = ["LlamaDecoderLayer"] if named == "arguments" else None
    trainer = {"fsdp": True, "fsdp_config": {"transformer_layer_cls_to_wrap": chosen} if chosen else {}}
    args = training_arguments(
        TrainConfig(output_dir=str(tmp_path), trainer=trainer), "float32", torch.device("cpu")
    )
    model = load_vlm(str(tiny_llava), device="cpu").model
    name_layers_to_shard(model, args)
    plugin = FullyShardedDataParallelPlugin(**args.fsdp_plugin_args)
    plugin.set_auto_wrap_policy(model)
    wrapped = {cls.__name__ for cls in plugin.auto_wrap_policy.keywords["transformer_layer_cls"]}
    assert wrapped == ({"LlamaDecoderLayer"} if named else set(layers_to_shard(model))) and wrapped


def test_without_fsdp_its_state_is_not_set(monkeypatch, tmp_path):
    monkeypatch.delenv("FSDP_STATE_DICT_TYPE", raising=False)
    args = training_arguments(TrainConfig(output_dir=str(tmp_path)), "float32", torch.device("cpu"))
    assert args.fsdp_plugin_args is None and "FSDP_STATE_DICT_TYPE" not in os.environ


def test_a_plain_command_takes_one_of_several_gpus(monkeypatch, tmp_path):
    """On two the parent would cut batches by DataParallel, and count twice the rows a step."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    config = TrainConfig(output_dir=str(tmp_path), per_device_train_batch_size=3)
    args = training_arguments(config, "float32", torch.device("cuda"))
    assert args.n_gpu == 1 and args.parallel_mode == ParallelMode.NOT_PARALLEL
    assert args.train_batch_size == 3


def connected(monkeypatch, **settings) -> dict[str, Any]:
    """What accelerate is told when a process of several asks for its device, and its environment then."""
    told: dict[str, Any] = {}

    class State:
        device = torch.device("cpu")

        def __init__(self, **kwargs):
            told.update(kwargs, state_dict=os.environ.get("FSDP_STATE_DICT_TYPE"))

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("accelerate.PartialState", State)
    monkeypatch.setattr("mfpo.training.train.open_dataset", lambda path: [])
    monkeypatch.setattr("mfpo.training.train.load_vlm", stop)
    with pytest.raises(KeyboardInterrupt):
        run(TrainConfig(dataset="d", model_name_or_path="m", **settings))
    return told


def test_processes_wait_for_each_other_as_long_as_is_set(monkeypatch, tmp_path):
    settings: dict[str, Any] = {"output_dir": str(tmp_path / "run")}
    assert connected(monkeypatch, **settings)["timeout"] == timedelta(minutes=30)
    settings["trainer"] = {"ddp_timeout": 7200}
    assert connected(monkeypatch, **settings)["timeout"] == timedelta(hours=2)
    settings["trainer"] = {"ddp_timeout": "soon"}
    with pytest.raises(UserError, match=r"ddp_timeout.*must be a number of seconds, not 'soon'"):
        run(TrainConfig(dataset="d", model_name_or_path="m", **settings))


def test_whole_models_are_wanted_before_processes_are_connected(monkeypatch, tmp_path):
    """The backend of the process group follows from it."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setenv("FSDP_STATE_DICT_TYPE", "SHARDED_STATE_DICT")
    assert connected(monkeypatch, output_dir=str(tmp_path / "run"))["state_dict"] == "FULL_STATE_DICT"


def test_zero3_configuration(monkeypatch):
    args = launched("zero3")
    assert args.use_deepspeed and args.zero3_save_16bit_model is True and args.zero3_init_flag is False
    fields = load_config_from_file(str(CONFIGS / "zero3.yaml")).deepspeed_config
    known = vars(launch_command_parser().parse_args(["script.py"]))
    assert set(fields) <= set(known), "every key is an option of accelerate launch"
    if not _has_deepspeed():
        return
    plugin = DeepSpeedPlugin(zero_stage=args.zero_stage, gradient_clipping=args.gradient_clipping)
    assert plugin.deepspeed_config["zero_optimization"]["stage"] == 3


def _has_deepspeed() -> bool:
    from accelerate.utils import is_deepspeed_available

    return bool(is_deepspeed_available())


def test_without_a_launcher_nothing_is_sharded(tmp_path):
    assert not is_sharded(TrainingArguments(output_dir=str(tmp_path), use_cpu=True))


def two_processes(*arguments: str, fails: bool = False) -> str:
    """Run a script or a module in two processes of this machine; what it wrote for people."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    done = subprocess.run([*launch, *arguments], env=ENVIRONMENT, capture_output=True, timeout=500, text=True)
    assert (done.returncode != 0) == fails, done.stderr[-3000:]
    return done.stderr


@pytest.mark.slow
def test_ddp_equals_one_process(tiny_llava, tmp_path):
    """`mfpo train` in two processes, half the batch each: the same scores and weights."""
    with DatasetWriter(tmp_path / "data") as writer:
        for pair in make_pairs(130):  # three chunks of the reference pass, shared among the processes
            writer.write(pair)
    one = TrainConfig(
        dataset=str(tmp_path / "data"),
        model_name_or_path=str(tiny_llava),
        output_dir=str(tmp_path / "one"),
        learning_rate=1e-3,
        max_steps=3,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        trainer={"disable_tqdm": True},
    )
    settings = tmp_path / "two.yaml"
    two = {"output_dir": str(tmp_path / "two"), "per_device_train_batch_size": 2}
    save_config(TrainConfig(**{**vars(one), **two}), settings)
    two_processes("-m", "mfpo.cli", "train", "--config", str(settings))
    result = run(one)
    assert result is not None
    weights = load_file(tmp_path / "two" / "model.safetensors")
    expected = load_file(tmp_path / "one" / "model.safetensors")
    assert weights.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.allclose(weights[name], tensor, rtol=0, atol=1e-5), name
    # The reference pass has other batch sizes; its rows are all there, and in their order.
    folders = [tmp_path / name / "reference" for name in ("one", "two")]
    (mine,), (other,) = (list(folder.glob("*.safetensors")) for folder in folders)
    assert mine.name == other.name
    for name, tensor in load_file(mine).items():
        assert torch.allclose(load_file(other)[name], tensor, rtol=0, atol=1e-5)
    assert not list(folders[1].glob("*.parts"))


STOPPED = """
import os, signal, sys
from mfpo.cli.main import main
from mfpo.training.trainer import PreferenceTrainer

compute_loss, calls = PreferenceTrainer.compute_loss, 0

def spy(self, *args, **kwargs):
    global calls
    calls += 1
    if calls == 5 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGTERM)
    return compute_loss(self, *args, **kwargs)

PreferenceTrainer.compute_loss = spy
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_two_processes_resume_to_the_same_bits(tiny_llava, tmp_path):
    """One of them gets a signal in the third of five steps; dropout, balance and a new order of rows."""
    with DatasetWriter(tmp_path / "data") as writer:
        for pair in make_pairs(20):
            writer.write(pair)
    settings: dict[str, Any] = {
        "dataset": str(tmp_path / "data"),
        "model_name_or_path": str(tiny_llava),
        "use_lora": True,
        "lora_r": 4,
        "lora_dropout": 0.1,
        "learning_rate": 1e-2,
        "per_device_train_batch_size": 2,
        "gradient_accumulation_steps": 2,
        "num_train_epochs": 2,
        "logging_steps": 2,
        "save_steps": 100,
        "balance_modalities": True,
        "rescore_between_stages": True,
        "resume_from_checkpoint": "auto",
        "trainer": {"disable_tqdm": True},
    }
    for name in ("whole", "cut"):
        save_config(TrainConfig(**settings, output_dir=str(tmp_path / name)), tmp_path / f"{name}.yaml")
    script = tmp_path / "stopped.py"
    script.write_text(STOPPED)
    two_processes("-m", "mfpo.cli", "train", "--config", str(tmp_path / "whole.yaml"))
    said = two_processes(str(script), "train", "--config", str(tmp_path / "cut.yaml"), fails=True)
    assert "after step 3 of 5" in said
    assert [path.name for path in (tmp_path / "cut").glob("checkpoint-3")] == ["checkpoint-3"]
    two_processes("-m", "mfpo.cli", "train", "--config", str(tmp_path / "cut.yaml"))
    assert equal(tmp_path / "cut", tmp_path / "whole")
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")


COUNTED = """
import os, sys
from mfpo.cli.main import main
from mfpo.training.trainer import PreferenceTrainer

training_step = PreferenceTrainer.training_step

def spy(self, model, inputs, *args, **kwargs):
    with open(sys.argv[1] + os.environ["RANK"], "a") as file:
        file.write(f"{1 + len(inputs.get('more', ()))}\\n")
    return training_step(self, model, inputs, *args, **kwargs)

PreferenceTrainer.training_step = spy
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_processes_balance_batches_of_unlike_numbers_of_parts(tiny_llava, tmp_path):
    """They exchange the margins as often as each other, or one would take gradients for margins."""
    with DatasetWriter(tmp_path / "data") as writer:
        for number in range(12):
            words = "a red mug and a blue plate " * (1 + 3 * (number % 3))
            writer.write(make_pair(number, chosen=assistant_message(words)))
    config = TrainConfig(
        dataset=str(tmp_path / "data"),
        model_name_or_path=str(tiny_llava),
        output_dir=str(tmp_path / "run"),
        learning_rate=1e-3,
        per_device_train_batch_size=3,
        max_tokens=260,
        num_train_epochs=2,
        balance_modalities=True,
        trainer={"disable_tqdm": True},
    )
    save_config(config, tmp_path / "config.yaml")
    script = tmp_path / "counted.py"
    script.write_text(COUNTED)
    parts = tmp_path / "parts-"
    two_processes(str(script), str(parts), "train", "--config", str(tmp_path / "config.yaml"))
    first, second = ((tmp_path / f"parts-{rank}").read_text().split() for rank in (0, 1))
    assert len(first) == len(second) == 4 and first != second
    lines = metrics(tmp_path / "run")
    assert any("balance/text_weight" in line for line in lines)


@pytest.fixture
def one_thread():
    """What `torchrun` gives each of its processes; sums over more threads differ in their last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.slow
def test_rank_is_shared_among_processes(tiny_llava, tmp_path, one_thread):
    """The same files, bit for bit, whatever the number of processes, with as many threads in each."""
    for name in ("one", "two"):
        with DatasetWriter(tmp_path / name) as writer:
            for pair in make_pairs(130):
                writer.write(pair)
    flags = ["--model_name_or_path", str(tiny_llava), "--precision", "float32"]
    two_processes("-m", "mfpo.cli", "rank", "--dataset", str(tmp_path / "two"), *flags)
    rank(RankConfig(dataset=str(tmp_path / "one"), model_name_or_path=str(tiny_llava), precision="float32"))
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name / "reference").iterdir()}
        for name in ("one", "two")
    ]
    assert files[0] == files[1] and len(files[0]) == 4


FSDP2 = """
import sys
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from mfpo.models.load import load_vlm
from mfpo.models.logprobs import PLAIN, Layout, score_responses
from mfpo.models.packing import set_tree_attention
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.encoding import EncodedRows
from mfpo.training.arguments import layers_to_shard
from mfpo.training.batching import Example, PreferenceCollator
from mfpo.training.config import TrainConfig
from mfpo.training.setup import make_encoder
from preference_rows import make_pairs

def shard(model):
    mesh = init_device_mesh("cpu", (2,))
    for module in reversed(list(model.modules())):
        if type(module).__name__ in layers_to_shard(model):
            fully_shard(module, mesh=mesh)
    fully_shard(model, mesh=mesh)
    assert isinstance(model, FSDPModule)
    parameter = next(model.parameters())
    assert parameter.to_local().numel() <= 0.6 * parameter.numel(), "each process holds its part"

def train(layout, rank, world):
    vlm = load_vlm(sys.argv[1], device="cpu", dtype="float32")
    model = vlm.model
    set_tree_attention(model, layout.shared)
    if world > 1:
        shard(model)
    loss, sequences, encoder = make_encoder(vlm, TrainConfig())
    rows = EncodedRows(make_pairs(8), encoder)
    collator = PreferenceCollator(sequences, encoder.pad_token_id, layout)
    images = ImageEncoder(model, share=world == 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-6)
    reference, losses = {}, []
    for step in range(3):
        numbers = [4 * (step % 2) + number for number in range(4)][rank::world]
        batch = collator([Example(rows[number], 1) for number in numbers])["batch"]
        scores = score_responses(model, batch.responses, images)
        policy = batch.split(scores)
        if step % 2 not in reference:
            with torch.no_grad():
                reference[step % 2] = batch.split(score_responses(model, batch.responses, images))
        value = loss(policy, reference[step % 2], batch.answers(scores.mask)).loss.mean()
        value.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(value.detach())
    total = torch.stack(losses)
    if world > 1:
        distributed.all_reduce(total)
    state = model.state_dict()
    whole = {n: (t.full_tensor() if hasattr(t, "full_tensor") else t).clone() for n, t in state.items()}
    return whole, total / world

distributed.init_process_group("gloo")
for layout in (PLAIN, Layout(shared=True, chunked=True)):
    found, losses = train(layout, distributed.get_rank(), 2)
    expected, expected_losses = train(layout, 0, 1)
    assert losses[2] < losses[0]
    torch.testing.assert_close(losses, expected_losses, rtol=0, atol=1e-5)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_fsdp2_equals_one_process(tiny_llava, tmp_path):
    """Our forward path and loss on a model spread over two processes, in both layouts of the sequences."""
    script = tmp_path / "script.py"
    script.write_text(FSDP2)
    two_processes(str(script), str(tiny_llava))
