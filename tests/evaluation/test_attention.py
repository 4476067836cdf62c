"""The attention probe against the attentions that the model itself returns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mfpo.errors import UserError
from mfpo.evaluation.attention import answer_attention, attention, find_mentions, overlay
from mfpo.models.image_tokens import image_token_id
from mfpo.models.load import VLM, load_vlm
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.encoding import RowEncoder
from mfpo.preferences.regions.masks import encode_rle
from mfpo.records import Keyword, PreferencePair, Region, assistant_message
from other_models import llava_next, qwen2_vl
from preference_rows import make_pair


@pytest.fixture(scope="module")
def vlm(tiny_llava: Path) -> VLM:
    return load_vlm(str(tiny_llava), device="cpu", attn_implementation="eager")


def pair_with_mug(index: int = 0) -> PreferencePair:
    answer = "A kitchen with a red mug."
    start = answer.index("red mug")
    keyword = Keyword("red mug", 1.0, ((start, start + len("red mug")),))
    mask = np.zeros((40, 40), bool)
    mask[8:24, 10:30] = True
    region = Region("red mug", (10.0, 8.0, 30.0, 24.0), 1.0, encode_rle(mask), (40, 40))
    return make_pair(index, chosen=assistant_message(answer), keywords=(keyword,), regions=(region,))


def test_tokens_of_a_keyword_spell_it(vlm: VLM) -> None:
    pair = pair_with_mug()
    row = RowEncoder(vlm.processor, rejected_image=False).encode(pair)
    (mention,) = find_mentions(vlm, pair, row)
    assert vlm.tokenizer.decode(row.chosen[mention.tokens]).strip() == "red mug"
    assert 0 < mention.coverage.mean() < 0.5


@pytest.mark.parametrize("build", [None, qwen2_vl, llava_next])
def test_weights_equal_those_of_the_model(vlm: VLM, build) -> None:
    vlm = build() if build else vlm
    vlm.model.set_attn_implementation("eager")
    row = RowEncoder(vlm.processor, rejected_image=False).encode(pair_with_mug())
    weights, is_image = answer_attention(vlm, row, ImageEncoder(vlm.model, cache_bytes=0))
    tokens = torch.cat([row.prompt["input_ids"], row.chosen])[None]
    inputs = dict(row.image.tensors)
    if "mm_token_type_ids" in row.prompt:
        types = row.prompt["mm_token_type_ids"]
        inputs["mm_token_type_ids"] = torch.cat([types, types.new_zeros(len(row.chosen))])[None]
    with torch.no_grad():
        expected = vlm.model(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), output_attentions=True, **inputs
        ).attentions
    first = len(row.prompt["input_ids"]) - 1
    for layer, reference in zip(weights, expected, strict=True):
        torch.testing.assert_close(layer, reference[0, :, first:-1], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    assert is_image.tolist() == (tokens[0] == image_token_id(vlm.model)).tolist()


def test_metrics_are_shares_that_add_up(vlm: VLM, tmp_path: Path) -> None:
    pairs = [pair_with_mug(0), pair_with_mug(1), replace(pair_with_mug(2), keywords=(), regions=())]
    result = attention(vlm, pairs, pictures=tmp_path, num_pictures=1, progress=False)
    metrics = result.metrics
    assert metrics["object"] + metrics["other_image"] + metrics["text"] == pytest.approx(100, abs=1e-3)
    layers = np.array(result.settings["layers"]["object"])
    assert layers.shape == (2, vlm.model.config.text_config.num_attention_heads)
    assert layers.mean() == pytest.approx(metrics["object"], abs=1e-3)
    assert [skip["reason"] for skip in result.settings["skipped"]] == ["no-region"]
    (overlay,) = tmp_path.glob("*.png")
    with Image.open(overlay) as picture:
        assert picture.size == (32, 32)
    assert result.settings["overlay_full_at"] == 4


def test_only_attention_above_an_even_spread_is_coloured() -> None:
    """Each picture once had a scale of its own: nearly even attention made it orange all over."""
    picture = Image.new("RGB", (40, 40), (200, 200, 200))
    nearly_even = 0.01 * np.random.default_rng(0).uniform(0.95, 1.05, (4, 4))
    shown = np.asarray(overlay(picture, nearly_even), dtype=int)
    assert np.abs(shown - 200).max() < 12
    grid = np.ones((4, 4))
    grid[0, 0], grid[3, 3] = 20, 0
    shown = np.asarray(overlay(picture, grid), dtype=int)
    # Far over 4 times the mean of 34/16, full colour over 15% of the picture; below the mean, the picture.
    assert shown[2, 2].tolist() == [round(0.85 * c + 0.15 * 200) for c in (255, 90, 0)]
    assert (shown[20:] == 200).all()


def test_the_colour_of_an_overlay_is_half_at_twice_an_even_spread() -> None:
    grid = np.ones((1, 2))
    grid[0, 0] = 1e-9
    # One of two tokens has it all, twice its even share.
    right = np.asarray(overlay(Image.new("RGB", (2, 1)), grid))[0, 1]
    assert right.tolist() == pytest.approx([0.425 * c for c in (255, 90, 0)], abs=1)
    assert not np.asarray(overlay(Image.new("RGB", (2, 1)), np.zeros((1, 2)))).any()


def test_even_attention_has_a_focus_of_one(vlm: VLM) -> None:
    """Without queries every key gets the same weight, so the object gets its share of the image."""
    import copy

    model = copy.deepcopy(vlm.model)
    with torch.no_grad():
        for layer in model.get_decoder().layers:
            layer.self_attn.q_proj.weight.zero_()
    result = attention(VLM(model, vlm.processor, "even"), [pair_with_mug()], progress=False)
    assert result.metrics["focus"] == pytest.approx(1, abs=1e-4)


def test_kernels_without_weights_are_refused(tiny_llava: Path) -> None:
    other = load_vlm(str(tiny_llava), device="cpu", attn_implementation="sdpa")
    with pytest.raises(UserError, match="no attention weights"):
        attention(other, [pair_with_mug()], progress=False)
    with pytest.raises(UserError, match="no row"):
        attention(other, [replace(pair_with_mug(), keywords=())], progress=False)
