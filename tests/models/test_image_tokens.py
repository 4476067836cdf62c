"""Each image token's share of a mask, for the layouts of LLaVA-1.5, LLaVA-1.6 and Qwen2-VL."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mfpo.models.image_tokens import image_token_id, overview_tokens, token_coverage
from mfpo.models.load import VLM, load_vlm
from mfpo.preferences.regions.masks import box_of, encode_rle
from mfpo.preferences.rejected import rejected_inputs
from mfpo.records import Noise, Region
from other_models import llava_next, qwen2_vl


def coverage_of(vlm: VLM, mask: np.ndarray) -> tuple[torch.Tensor, int, dict[str, torch.Tensor]]:
    """Coverage by the processor's own way, with the number of image tokens of the prompt."""
    picture = Image.new("RGB", (mask.shape[1], mask.shape[0]), (90, 120, 150))
    inputs = dict(vlm.processor(images=[picture], text=["<image>"], return_tensors="pt"))
    count = int((inputs["input_ids"] == image_token_id(vlm.model)).sum())
    pixels = dict(vlm.image_processor(images=[picture], return_tensors="pt"))
    region = Region("it", box_of(mask), 1.0, encode_rle(mask), mask.shape)
    found = rejected_inputs(vlm.image_processor, picture, [region], Noise("region"), clean=pixels)
    assert found.mask is not None
    return token_coverage(vlm.model, pixels, found.mask, count), count, pixels


def test_llava_patch_by_patch(tiny_llava: Path) -> None:
    vlm = load_vlm(str(tiny_llava), device="cpu")
    mask = np.zeros((32, 32), bool)
    mask[8:16, 24:32] = True  # second line, fourth patch
    mask[24:32, 0:4] = True  # half of the first patch of the fourth line
    coverage, count, pixels = coverage_of(vlm, mask)
    expected = torch.zeros(16)
    expected[7], expected[12] = 1.0, 0.5
    assert count == 16
    torch.testing.assert_close(coverage, expected)
    view = overview_tokens(vlm.model, pixels, count)
    assert (view.start, view.rows, view.columns) == (0, 4, 4)


def test_qwen_square_by_square() -> None:
    vlm = qwen2_vl()
    mask = np.zeros((32, 64), bool)
    mask[16:32, 48:64] = True  # second line, fourth square of 2 x 2 patches
    mask[0:8, 16:32] = True  # upper half of the second square of the first line
    coverage, count, pixels = coverage_of(vlm, mask)
    expected = torch.zeros(8)
    expected[7], expected[1] = 1.0, 0.5
    assert count == 8
    torch.testing.assert_close(coverage, expected)
    view = overview_tokens(vlm.model, pixels, count)
    assert (view.start, view.rows, view.columns) == (0, 2, 4)


def test_llava_next_overview_tiles_and_ends_of_lines() -> None:
    vlm = llava_next()
    mask = np.zeros((64, 64), bool)
    mask[:, :32] = True
    coverage, count, pixels = coverage_of(vlm, mask)
    overview, tiles = coverage[:16].view(4, 4), coverage[16:].view(8, 9)
    assert count == 16 + 8 * 9
    for grid in (overview, tiles[:, :8]):
        half = grid.shape[1] // 2
        torch.testing.assert_close(grid[:, :half], torch.ones_like(grid[:, :half]))
        torch.testing.assert_close(grid[:, half:], torch.zeros_like(grid[:, half:]))
    assert not tiles[:, 8].any()
    view = overview_tokens(vlm.model, pixels, count)
    assert (view.start, view.rows, view.columns) == (0, 4, 4)


def test_unknown_orders_are_refused(tiny_llava: Path) -> None:
    from mfpo.errors import UserError

    vlm = load_vlm(str(tiny_llava), device="cpu")
    with pytest.raises(UserError, match="order of the image tokens"):
        token_coverage(vlm.model, {}, torch.zeros(1, 3, 32, 32, dtype=torch.bool), 15)
