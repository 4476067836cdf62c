"""Which part of the picture each image token stands for: a mask in the processor's space, token by token.

The order follows how ``transformers`` turns ``pixel_values`` into image tokens: patches row by row
(LLaVA-1.5), patches merged in squares (Qwen-VL, whose processor already puts those of a square next to each
other), shuffled squares of each tile (Idefics, InternVL), or an overview and unpadded tiles with a token at
the end of each line (LLaVA-1.6, LLaVA-OneVision), for which the model's own packing is asked.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfpo.errors import UserError
from mfpo.models.vision import unwrap


@dataclass(frozen=True, slots=True)
class OverviewTokens:
    """The image tokens that together show the whole picture once.

    Attributes:
        start: The first of them among the image tokens.
        rows: Lines of the grid they form.
        columns: Tokens of a line.
    """

    start: int
    rows: int
    columns: int


def image_token_id(model: nn.Module) -> int:
    """The token that stands for a piece of an image in the model's input."""
    config: Any = unwrap(model).config
    found = getattr(config, "image_token_id", None)
    return config.image_token_index if found is None else found


def token_coverage(model: nn.Module, inputs: Mapping[str, Tensor], mask: Tensor, count: int) -> Tensor:
    """Share of each image token's pixels that lie in a mask.

    Args:
        model: The model that reads the inputs.
        inputs: Output of its image processor for one picture.
        mask: bool in the shape of ``inputs["pixel_values"]``, as
            [`mfpo.preferences.rejected.rejected_inputs`] gives it.
        count: Number of image tokens that the picture takes in the prompt.

    Returns:
        float32 ``[count]``, each in [0, 1]; 0 for tokens that stand for no place, such as ends of lines.

    Raises:
        UserError: The model orders its image tokens in a way that is not known here.
    """
    base: Any = unwrap(model)
    if "image_grid_thw" in inputs and mask.ndim == 2:
        per_patch = mask.float().mean(-1)
        merged = per_patch.view(count, -1).mean(-1) if len(per_patch) % count == 0 else per_patch
        return _checked(base, merged, count)
    patch = _patch_side(base)
    tiles = F.avg_pool2d(mask.float().flatten(0, -4).mean(1, keepdim=True), patch)
    packer = getattr(base.model, "pack_image_features", None)
    if packer is not None:
        features = tiles.flatten(1)[..., None]
        arguments: dict[str, Any] = {"image_newline": torch.zeros(1)}
        if "vision_feature_select_strategy" in inspect.signature(packer).parameters:
            arguments["vision_feature_select_strategy"] = base.config.vision_feature_select_strategy
        packed, _ = packer([features], inputs["image_sizes"].cpu(), **arguments)
        return _checked(base, packed[0][:, 0], count)
    side = _shuffle_side(tiles, count)
    return _checked(base, F.avg_pool2d(tiles, side).flatten(), count)


def overview_tokens(model: nn.Module, inputs: Mapping[str, Tensor], count: int) -> OverviewTokens:
    """The tokens of the one view that shows the whole picture, see [`OverviewTokens`].

    Args:
        model: The model that reads the inputs.
        inputs: Output of its image processor for one picture.
        count: Number of image tokens that the picture takes in the prompt.

    Raises:
        UserError: The model orders its image tokens in a way that is not known here.
    """
    base: Any = unwrap(model)
    pixels = inputs["pixel_values"]
    if "image_grid_thw" in inputs and pixels.ndim == 2:
        _, rows, columns = (int(side) for side in inputs["image_grid_thw"][0])
        merge = math.isqrt(rows * columns // count)
        return OverviewTokens(0, rows // merge, columns // merge)
    patch = _patch_side(base)
    rows, columns = pixels.shape[-2] // patch, pixels.shape[-1] // patch
    if getattr(base.model, "pack_image_features", None) is not None:
        return OverviewTokens(0, rows, columns)
    tiles = pixels.flatten(0, -4).shape[0]
    side = _shuffle_side(torch.empty(tiles, 1, rows, columns), count)
    one = (rows // side) * (columns // side)
    # Idefics puts the overview behind the tiles.
    return OverviewTokens(count - one, rows // side, columns // side)


def _patch_side(base: Any) -> int:
    side = getattr(base.config.vision_config, "patch_size", None)
    side = side[0] if isinstance(side, (list, tuple)) else side
    if side is None:
        raise _unknown(base, "its vision tower names no patch size")
    return int(side)


def _shuffle_side(tiles: Tensor, count: int) -> int:
    """Side of the square of patches that one image token stands for."""
    side = math.isqrt(tiles.numel() // count)
    return max(side, 1)


def _checked(base: Any, coverage: Tensor, count: int) -> Tensor:
    if len(coverage) != count:
        raise _unknown(base, f"{len(coverage)} places for {count} image tokens")
    return coverage


def _unknown(base: Any, detail: str) -> UserError:
    return UserError(
        f"the order of the image tokens is not known: {detail}",
        where=type(base).__name__,
        fix="choose a model of the LLaVA, Qwen-VL or Idefics families",
    )
