"""Which parameters are trained: the language model, or a LoRA adapter of it, and what else is asked for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from torch import nn

from mfpo.errors import UserError, nearest
from mfpo.models.adapters import quiet_peft, trained_in_float32
from mfpo.models.vision import PROJECTOR_NAMES, Part, parameter_parts, unwrap
from mfpo.training.config import TrainConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def prepare_model(model: PreTrainedModel, config: TrainConfig, *, name: str) -> PreTrainedModel:
    """Freeze what is not trained, switch the model's own dropout off, add the LoRA adapter if wanted.

    With an adapter, all that is trained is float32, whatever the model's own weights are.

    Args:
        model: The initial model, changed in place.
        config: The settings.
        name: What the base model is called; an adapter folder refers to it.

    Returns:
        The model, or the PEFT model around it.

    Raises:
        UserError: LoRA targets that the language model does not have, or a vision tower trained through LoRA.
    """
    if config.use_lora and config.train_vision_tower:
        raise UserError(
            "LoRA trains the language model only",
            where="--use_lora --train_vision_tower",
            fix="leave one of them out",
        )
    disable_dropout(model)
    trained: set[Part] = {"language"} if not config.use_lora else set()
    trained |= {"projector"} if config.train_projector else set()
    trained |= {"vision"} if config.train_vision_tower else set()
    for _, parameter, part in parameter_parts(model):
        parameter.requires_grad_(part in trained)
    return _add_adapter(model, config, name) if config.use_lora else model


def disable_dropout(model: nn.Module) -> None:
    """Set every dropout probability to 0, so that policy and reference are the same function at step 0."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        # Attention modules pass a plain number to the kernel.
        for attribute in ("dropout", "attention_dropout", "attn_dropout", "activation_dropout", "dropout_p"):
            if isinstance(getattr(module, attribute, None), float):
                setattr(module, attribute, 0.0)


def lora_targets(model: nn.Module, names: list[str] | None) -> list[str]:
    """Full names of the linear layers that get an adapter, all inside the language model.

    Args:
        model: The model without an adapter.
        names: Last parts of the names to take (``q_proj``); all linear layers when None.

    Raises:
        UserError: A name that no linear layer of the language model has.
    """
    base = unwrap(model)
    decoder = base.get_decoder()
    linear = {module for module in decoder.modules() if isinstance(module, nn.Linear)}
    layers = {name: module for name, module in base.named_modules() if module in linear}
    known = {name.rpartition(".")[2] for name in layers}
    for name in names or ():
        if name not in known:
            raise UserError(
                f"the language model has no linear layer {name!r}",
                where="--lora_target_modules",
                fix=nearest(name, known),
            )
    return [name for name in layers if names is None or name.rpartition(".")[2] in names]


def _add_adapter(model: PreTrainedModel, config: TrainConfig, name: str) -> PreTrainedModel:
    from peft import LoraConfig, get_peft_model

    projector = []
    for path, module in model.named_modules():
        if path.rpartition(".")[2] in PROJECTOR_NAMES:
            # peft keeps no copy of a list of modules, only of each of them.
            inner = isinstance(module, nn.ModuleList)
            projector += [f"{path}.{at}" for at in range(len(module))] if inner else [path]
    lora = LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        use_dora=config.use_dora,
        use_rslora=config.use_rslora,
        target_modules=_pattern(lora_targets(model, config.lora_target_modules)),
        modules_to_save=projector if config.train_projector else None,
        task_type="CAUSAL_LM",
    )
    with quiet_peft():
        peft_model: Any = get_peft_model(model, lora)
    trained_in_float32(peft_model)
    peft_model.active_peft_config.base_model_name_or_path = name
    peft_model.active_peft_config.revision = config.revision
    return peft_model


def _pattern(names: list[str]) -> str:
    """A regular expression that matches exactly these layers, with the layers' numbers left open."""
    shapes = {re.sub(r"\.\d+\.", ".#.", name) for name in names}
    return "|".join(sorted(re.escape(shape).replace(r"\#", r"\d+") for shape in shapes))


def parameter_counts(model: nn.Module) -> dict[str, tuple[int, int]]:
    """Trained and all parameters of each part of the model; an adapter counts where it sits."""
    counts: dict[str, tuple[int, int]] = {}
    for _, parameter, part in parameter_parts(model):
        trained, total = counts.get(part, (0, 0))
        counts[part] = (trained + parameter.numel() * parameter.requires_grad, total + parameter.numel())
    return counts
