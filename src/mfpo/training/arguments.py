"""Our settings as ``transformers.TrainingArguments``."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from mfpo.difficulty.config import Precision
from mfpo.errors import UserError, nearest
from mfpo.training.checkpoints import can_go_on, last_whole_checkpoint
from mfpo.training.config import TrainConfig

_PACKAGES = {"azure_ml": "azureml-mlflow", "comet_ml": "comet-ml"}
FULL_LEARNING_RATE, LORA_LEARNING_RATE = 5e-7, 1e-5
"""Defaults, for models of about 7 billion parameters."""
WHOLE = "FULL_STATE_DICT"
"""FSDP's state of which ``from_pretrained`` opens a folder."""


def training_arguments(config: TrainConfig, precision: Precision, device: torch.device) -> TrainingArguments:
    """The arguments of a training whose order of rows is one epoch, on one GPU a process.

    Args:
        config: The settings; what ``trainer`` holds comes last and wins.
        precision: What the model computes in.
        device: Where the model is.

    Raises:
        UserError: An unknown name, one of our own or a bad value under ``trainer``, or a bad value of ours.
    """
    known = {item.name for item in fields(TrainingArguments) if item.init}
    ours = {item.name for item in fields(config)}
    for name in config.trainer:
        if name in ("bf16", "fp16"):
            raise UserError(
                "the precision is set for the reference pass too",
                where=f"trainer: {name}",
                fix="set --bf16 true or false; float16 is not supported, since its small gradients become 0",
            )
        if name in ours:
            raise UserError("that is a setting of mfpo train", where=f"trainer: {name}", fix=f"set --{name}")
        if name not in known:
            raise UserError(f"unknown training argument {name!r}", where="trainer", fix=nearest(name, known))
    learning_rate = config.learning_rate
    if learning_rate is None:
        learning_rate = LORA_LEARNING_RATE if config.use_lora else FULL_LEARNING_RATE
    # The name that transformers 6 keeps, where there is one.
    checkpointing = "activation" if "activation_checkpointing" in known else "gradient"
    settings: dict[str, Any] = {
        "output_dir": config.output_dir,
        "learning_rate": learning_rate,
        "lr_scheduler_type": config.lr_scheduler_type,
        "warmup_steps": config.warmup_ratio,
        "num_train_epochs": 1,
        "per_device_train_batch_size": config.per_device_train_batch_size,
        "gradient_accumulation_steps": config.gradient_accumulation_steps,
        f"{checkpointing}_checkpointing": config.gradient_checkpointing,
        f"{checkpointing}_checkpointing_kwargs": {"use_reentrant": False},
        # Also where the frozen weights are bfloat16: an adapter's are float32, and so would its products be.
        "bf16": precision != "float32",
        "use_cpu": device.type == "cpu",
        "report_to": reporters(config.report_to),
        "logging_steps": config.logging_steps,
        "logging_first_step": True,
        "save_strategy": "steps" if config.save_steps > 0 else "no",
        "save_steps": max(config.save_steps, 1),
        "seed": config.seed,
        "dataloader_num_workers": config.dataloader_num_workers,
        "dataloader_pin_memory": device.type == "cuda",
        "remove_unused_columns": False,
        "push_to_hub": config.push_to_hub,
    }
    save_whole_models()
    try:
        args = TrainingArguments(**{**settings, **config.trainer})
    except (ValueError, TypeError) as error:
        raise UserError(f"training arguments are not valid: {error}", where="--config or flags") from None
    if args.fsdp_plugin_args is not None:
        args.fsdp_plugin_args["state_dict_type"] = WHOLE
    # Without a launcher the parent would put the model on every GPU by DataParallel, which cannot divide our
    # batches. It has counted them when it looked for the device, and does not count again.
    args._n_gpu = min(args.n_gpu, 1)
    return args


def reporters(names: str) -> list[str] | str:
    """Where metrics go, as the parent wants it.

    Args:
        names: ``none``, or names of transformers' integrations with commas between them.

    Raises:
        UserError: A name that transformers does not know, or a package that is not installed.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    if wanted in ([], ["none"]):
        return "none"
    where = f"--report_to {names}"
    for name in wanted:
        if name not in INTEGRATION_TO_CALLBACK:
            raise UserError(
                f"no place {name!r} to report to",
                where=where,
                fix=nearest(name, ["none", *INTEGRATION_TO_CALLBACK]),
            )
        if name not in get_available_reporting_integrations():
            package = _PACKAGES.get(name, name)
            raise UserError(f"{package} is not installed", where=where, fix=f"pip install {package}")
    return wanted


def is_all_warmup(args: TrainingArguments, steps: int) -> bool:
    """Whether a warm-up that is given as a share would be all of a training.

    Its first learning rate is 0, so that a training of one step would change nothing.
    """
    return args.warmup_steps < 1 and args.get_warmup_steps(steps) >= steps


def is_sharded(args: TrainingArguments) -> bool:
    """Whether FSDP or DeepSpeed will spread the parameters, by our settings or by `accelerate launch`."""
    return bool(args.fsdp or args.deepspeed or args.deepspeed_plugin or _launched_with_fsdp())


def _launched_with_fsdp() -> bool:
    return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() in ("1", "true")


def save_whole_models() -> None:
    """Have FSDP write whole models and optimizers, where accelerate was launched with it.

    The parent writes no model at all where state is sharded, which is accelerate's default. The process group
    that accelerate makes follows from this setting too, so it is called before the first device is asked for.
    """
    if _launched_with_fsdp():
        os.environ["FSDP_STATE_DICT_TYPE"] = WHOLE


def layers_to_shard(model: nn.Module) -> list[str]:
    """Names of the classes of layers that FSDP shards one by one, as the model names them.

    A model may name classes that are not in it, such as the text part of a CLIP whose vision tower it uses;
    accelerate refuses these.
    """
    present = {type(module).__name__ for module in model.modules()}
    return sorted(present & set(getattr(model, "_no_split_modules", None) or ()))


def name_layers_to_shard(model: nn.Module, args: TrainingArguments) -> None:
    """Tell accelerate which layers FSDP shards, where the user did not.

    Args:
        model: The model.
        args: Training arguments; FSDP is asked for in them, or was when accelerate was launched.
    """
    names = ",".join(layers_to_shard(model))
    if names and (_launched_with_fsdp() or args.fsdp_plugin_args is not None):
        # What the arguments name comes before what the environment does.
        os.environ.setdefault("FSDP_TRANSFORMER_CLS_TO_WRAP", names)


def checkpoint_to_resume(config: TrainConfig) -> str | None:
    """The checkpoint folder that training goes on from, None to start at the beginning.

    Raises:
        UserError: The folder does not exist or holds weights alone, or `last` finds none, or a new training
            would leave its checkpoints among those of another.
    """
    if config.resume_from_checkpoint is None:
        left = last_whole_checkpoint(config.output_dir)
        if left is not None and not config.dry_run:
            raise UserError(
                f"checkpoints of an earlier training are here, the last one {Path(left).name}",
                where=f"--output_dir {config.output_dir}",
                fix="--resume_from_checkpoint last goes on; or name another folder, or remove this one",
            )
        return None
    found: str | None = config.resume_from_checkpoint
    if found in ("last", "auto"):
        found = last_whole_checkpoint(config.output_dir)
        if found is None and config.resume_from_checkpoint == "auto":
            return None
    if found is None or not Path(found).is_dir():
        raise UserError(
            "there is no checkpoint to resume from",
            where=f"--resume_from_checkpoint {config.resume_from_checkpoint}",
            fix="checkpoints are written every --save_steps steps as output_dir/checkpoint-STEP",
        )
    if not can_go_on(found):
        raise UserError(
            "the checkpoint holds no state of optimizer and schedule, which would start again in the middle",
            where=f"--resume_from_checkpoint {found}",
            fix="start anew with --model_name_or_path set to the checkpoint and another --output_dir;"
            " checkpoints of a training with --trainer save_only_model=true cannot be resumed",
        )
    return found
