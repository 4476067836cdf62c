"""What a checkpoint records of model, adapter and schedule: only the same training goes on from it."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from torch import nn
from transformers.trainer_utils import SaveStrategy

from mfpo.difficulty.config import Precision
from mfpo.difficulty.fingerprint import weights_digest
from mfpo.training.config import LoraSettings, TrainConfig

_NAMES = ("max_length", "lr_scheduler_type", "warmup_ratio", "train_projector", "train_vision_tower")


def keeps_checkpoints(config: TrainConfig, *, at_start: bool) -> bool:
    """Whether a training writes checkpoints, or goes on from one.

    Args:
        config: The settings.
        at_start: Whether it starts with the initial model.
    """
    asked = config.trainer.get("save_strategy", SaveStrategy.NO) != SaveStrategy.NO
    return bool(config.save_steps or config.rescore_between_stages or asked or not at_start)


def unmerged_weights(model: nn.Module) -> str:
    """Digest of a base model and the adapter on it, before they are merged; empty for any other model.

    The last bits of a merged adapter are a matter of the machine, those of its parts are not.
    """
    return weights_digest(model).hex() if hasattr(model, "merge_and_unload") else ""


def recorded_settings(config: TrainConfig, precision: Precision, initial_weights: str) -> dict[str, Any]:
    """Settings by name, as JSON values.

    Args:
        config: The settings of the training.
        precision: What the model computes in.
        initial_weights: Digest of the weights that training starts from; empty where no checkpoint is kept.
    """
    adapter = tuple(field.name for field in fields(LoraSettings)) if config.use_lora else ("use_lora",)
    found = {name: getattr(config, name) for name in (*_NAMES, *adapter)} | {"precision": precision}
    return found | ({"initial weights": initial_weights[:16]} if initial_weights else {})
