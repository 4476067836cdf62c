from __future__ import annotations

import pytest
import torch

from mfpo.errors import UserError
from mfpo.models.load import adapter_base, load_processor, load_vlm


def test_checkpoint_folder(tiny_llava):
    vlm = load_vlm(str(tiny_llava), device="cpu")
    assert vlm.name == str(tiny_llava)
    assert not vlm.model.training
    assert vlm.device == torch.device("cpu") and vlm.model.dtype == torch.float32
    assert vlm.tokenizer.eos_token == "</s>"
    assert vlm.image_processor is vlm.processor.image_processor


def test_dtype_by_name(tiny_llava):
    assert load_vlm(str(tiny_llava), device="cpu", dtype="bfloat16").model.dtype == torch.bfloat16


def test_adapter_folder_opens_on_top_of_its_base(tiny_llava, tmp_path):
    from peft import LoraConfig, get_peft_model

    vlm = load_vlm(str(tiny_llava), device="cpu")
    model = get_peft_model(vlm.model, LoraConfig(r=2, target_modules=["q_proj"]))
    model.save_pretrained(tmp_path)
    assert adapter_base(str(tmp_path)) == str(tiny_llava)
    again = load_vlm(str(tmp_path), device="cpu")
    assert type(again.model).__name__.startswith("Peft")
    assert load_processor(str(tmp_path)).tokenizer.get_vocab() == vlm.tokenizer.get_vocab()


def test_unknown_model(tmp_path):
    with pytest.raises(UserError, match="no vision-language model can be loaded") as error:
        load_vlm(str(tmp_path / "nothing"))
    assert "mfpo scenes --train_model" in str(error.value)
    with pytest.raises(UserError):
        load_processor(str(tmp_path / "nothing"))


def test_an_attention_kernel_that_is_not_there_is_told_as_that(tiny_llava):
    with pytest.raises(UserError, match="the model cannot attend by it") as error:
        load_vlm(str(tiny_llava), device="cpu", attn_implementation="sdpaa")
    assert error.value.where == "--attn_implementation sdpaa"


@pytest.mark.parametrize("name", ["./nothing", "/nowhere/model", "runs/a/nothing", "~/model"])
def test_what_can_only_be_a_folder_is_not_asked_for_on_the_hub(name: str) -> None:
    for load in (load_vlm, load_processor):
        with pytest.raises(UserError, match="no such folder"):
            load(name)
