from __future__ import annotations

import socket
import warnings

import pytest
import torch
from huggingface_hub import constants
from transformers import AutoModelForImageTextToText

from mfpo.errors import UserError
from mfpo.evaluation.provenance import model_fingerprint, processor_fingerprint
from mfpo.models import hub
from mfpo.models.adapters import quiet_peft
from mfpo.models.hub import require_reachable
from mfpo.models.load import adapter_base, load_processor, load_vlm, plain_model
from mfpo.training.config import TrainConfig
from mfpo.training.parameters import prepare_model


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


def test_without_a_way_to_the_hub_a_name_is_refused_at_once(monkeypatch, tmp_path):
    def no_address(*_):
        raise socket.gaierror("Name or service not known")

    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr(socket, "getaddrinfo", no_address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(
        AutoModelForImageTextToText, "from_pretrained", lambda *_, **__: pytest.fail("the Hub was asked")
    )
    for load in (load_vlm, load_processor):
        with pytest.raises(UserError, match=r"no such folder, and huggingface\.co cannot be reached"):
            load("llava-hf/lava-1.5-7b-hf")
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "llava-hf/lava-1.5-7b-hf"}')
    with pytest.raises(UserError, match=r"lava-1\.5-7b.*cannot be reached"):
        load_vlm(str(tmp_path))
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: "/cache/config.json")
    require_reachable("llava-hf/llava-1.5-7b-hf")
    monkeypatch.setattr(hub, "try_to_load_from_cache", lambda *_, **__: None)
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    require_reachable("llava-hf/llava-1.5-7b-hf")


def test_an_adapter_opens_without_warnings_about_other_libraries(tiny_llava, tmp_path):
    from peft import LoraConfig, get_peft_model

    get_peft_model(
        load_vlm(str(tiny_llava), device="cpu").model, LoraConfig(r=2, target_modules=["q_proj"])
    ).save_pretrained(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_vlm(str(tmp_path), device="cpu")
    assert [str(one.message) for one in caught if issubclass(one.category, FutureWarning)] == []


def test_an_adapter_is_opened_on_the_revision_it_was_trained_on(tiny_llava, tmp_path):
    vlm = load_vlm(str(tiny_llava), device="cpu", dtype="float32")
    config = TrainConfig(use_lora=True, lora_r=2, revision="abc123")
    model = prepare_model(vlm.model, config, name="some/model")
    with quiet_peft():
        model.save_pretrained(tmp_path / "adapter")
    assert plain_model(str(tmp_path / "adapter")) == ("some/model", "abc123")
    assert plain_model(str(tmp_path / "adapter"), "other") == ("some/model", "other")
    assert processor_fingerprint(str(tmp_path / "adapter")) == "some/model@abc123"
    weights = model_fingerprint(str(tmp_path / "adapter"))
    model.active_peft_config.revision = None
    with quiet_peft():
        model.save_pretrained(tmp_path / "adapter")
    assert plain_model(str(tmp_path / "adapter")) == ("some/model", None)
    assert model_fingerprint(str(tmp_path / "adapter")) != weights
