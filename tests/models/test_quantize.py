from __future__ import annotations

import importlib.util

import pytest
import torch
from torch import nn
from transformers.quantizers.quantizers_utils import should_convert_module

from mfpo.errors import UserError
from mfpo.models.load import load_vlm
from mfpo.models.quantize import four_bit
from mfpo.models.vision import parameter_parts


def test_without_a_gpu_it_says_what_to_do_instead(tiny_llava):
    with pytest.raises(UserError, match="need a CUDA GPU") as error:
        load_vlm(str(tiny_llava), device="cpu", load_in_4bit=True)
    assert "--use_lora" in error.value.fix


def test_without_bitsandbytes_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="not installed") as error:
        four_bit(torch.device("cuda"))
    assert "pip install bitsandbytes" in error.value.fix


def test_only_the_language_model_is_quantised(tiny_llava, monkeypatch):
    """The layers that transformers would replace are those of the decoder, none of tower, projector and
    head."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    skip = four_bit(torch.device("cuda")).llm_int8_skip_modules
    model = load_vlm(str(tiny_llava), device="cpu", dtype="float32").model
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    replaced = {name for name in linear if should_convert_module(name, skip)}
    parts = {name.removesuffix(".weight"): part for name, _, part in parameter_parts(model)}
    assert replaced == {name for name in linear if parts[name] == "language" and "lm_head" not in name}
    assert replaced
