from __future__ import annotations

import pytest
import torch
from PIL import Image

from mfpo.errors import UserError
from mfpo.models.adapters import as_loaded
from mfpo.models.generation import generate
from mfpo.records import user_message
from mfpo.training.config import TrainConfig
from mfpo.training.parameters import disable_dropout, lora_targets, parameter_counts, prepare_model
from tiny_models import tiny_model


def trained(model):
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def test_full_training_leaves_tower_and_projector_alone(vlm):
    names = trained(prepare_model(vlm.model, TrainConfig(), name="m"))
    assert names and all("language_model" in name or "lm_head" in name for name in names)


def test_projector_and_tower_by_choice(vlm):
    names = trained(prepare_model(vlm.model, TrainConfig(train_projector=True), name="m"))
    assert any("multi_modal_projector" in name for name in names)
    assert not any("vision_tower" in name for name in names)
    names = trained(prepare_model(vlm.model, TrainConfig(train_vision_tower=True), name="m"))
    assert any("vision_tower" in name for name in names)
    assert not any("multi_modal_projector" in name for name in names)


@pytest.mark.parametrize("targets", [None, ["q_proj", "v_proj"]])
def test_lora_touches_no_vision_parameter(vlm, targets):
    """The vision tower has layers named q_proj and v_proj too."""
    expected = lora_targets(vlm.model, targets)
    model = prepare_model(
        vlm.model, TrainConfig(use_lora=True, lora_r=2, lora_target_modules=targets), name="m"
    )
    names = trained(model)
    assert len(names) == 2 * len(expected)
    assert all("language_model" in name and "lora_" in name for name in names)
    assert not any("lora_" in name and "vision" in name for name, _ in model.named_parameters())
    assert {name.rpartition(".")[2] for name in expected} == set(targets or []) or targets is None
    counts = parameter_counts(model)
    assert counts["vision"][0] == counts["projector"][0] == 0 < counts["language"][0]


@pytest.mark.parametrize(
    ("changes", "scale"), [({}, 8 / 4), ({"use_rslora": True}, 8 / 2), ({"use_dora": True}, 8 / 4)]
)
def test_kinds_of_adapter(vlm, changes, scale):
    """rsLoRA divides alpha by the square root of the rank (4) and not by the rank; DoRA adds magnitudes."""
    config = TrainConfig(use_lora=True, lora_r=4, lora_alpha=8, lora_target_modules=["q_proj"], **changes)
    model = prepare_model(vlm.model, config, name="m")
    layer = model.get_base_model().model.language_model.layers[0].self_attn.q_proj
    assert layer.scaling["default"] == scale
    magnitudes = [name for name in trained(model) if "magnitude" in name]
    assert len(magnitudes) == (2 if "use_dora" in changes else 0)


def test_lora_with_the_projector(vlm):
    model = prepare_model(vlm.model, TrainConfig(use_lora=True, lora_r=2, train_projector=True), name="m")
    names = trained(model)
    assert any("multi_modal_projector.modules_to_save" in name for name in names)
    assert not any("vision_tower" in name for name in names)


@pytest.mark.parametrize("use_dora", [False, True])
def test_all_that_an_adapter_trains_is_float32(vlm, use_dora):
    """Steps of 1e-5 on weights of 0.02 are lost in bfloat16. Afterwards whole modules are as the tower."""
    vlm.model.to(torch.bfloat16)
    config = TrainConfig(use_lora=True, lora_r=2, train_projector=True, use_dora=use_dora)
    vlm.model = prepare_model(vlm.model, config, name="m")
    types = {parameter.dtype for parameter in vlm.model.parameters() if parameter.requires_grad}
    assert types == {torch.float32}
    frozen = {parameter.dtype for parameter in vlm.model.parameters() if not parameter.requires_grad}
    assert frozen == {torch.bfloat16}
    image = Image.new("RGB", (32, 32))
    vlm.model = as_loaded(vlm.model)
    assert len(generate(vlm, [image], [user_message("What is it?")], max_new_tokens=2)) == 1


def test_dropout_is_off(vlm):
    vlm.model.model.language_model.layers[0].self_attn.attention_dropout = 0.1
    vlm.model.model.vision_tower.encoder.layers[0].self_attn.dropout = 0.1
    disable_dropout(vlm.model)
    assert vlm.model.model.language_model.layers[0].self_attn.attention_dropout == 0
    assert vlm.model.model.vision_tower.encoder.layers[0].self_attn.dropout == 0


def test_user_mistakes(vlm):
    with pytest.raises(UserError, match="no linear layer 'qproj'"):
        lora_targets(vlm.model, ["qproj"])
    with pytest.raises(UserError, match="language model only"):
        prepare_model(vlm.model, TrainConfig(use_lora=True, train_vision_tower=True), name="m")


def test_a_projector_that_is_a_list_of_modules_is_trained_beside_an_adapter():
    """Qwen3-VL has one for each level of the tower."""
    model = tiny_model("qwen3_vl")
    names = trained(
        prepare_model(model, TrainConfig(use_lora=True, lora_r=2, train_projector=True), name="m")
    )
    for part in ("visual.merger.modules_to_save", "deepstack_merger_list.0.m", "deepstack_merger_list.1.m"):
        assert any(part in name for name in names), part
