"""Four-bit weights of the language model, for QLoRA (Dettmers et al. 2023)."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import torch

from mfpo.errors import UserError
from mfpo.models.vision import PROJECTOR_NAMES, TOWER_NAMES

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig

WHOLE = (*(rf"(?:.*\.)?{name}" for name in (*TOWER_NAMES, *PROJECTOR_NAMES)), r"(?:.*\.)?lm_head")
"""Patterns of the modules that keep their precision: vision tower, projector, output layer."""


def four_bit(device: torch.device) -> BitsAndBytesConfig:
    """Settings of NF4 with double quantisation, computing in bfloat16, for the language model alone.

    Args:
        device: Where the model will be.

    Raises:
        UserError: The device is no GPU, or bitsandbytes is not installed.
    """
    where = "--load_in_4bit"
    if device.type != "cuda":
        raise UserError(
            f"4-bit weights need a CUDA GPU, the model would be on {device.type}",
            where=where,
            fix="leave it out: --use_lora alone trains the same adapter on unquantised weights",
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("bitsandbytes is not installed", where=where, fix="pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=list(WHOLE),
    )
