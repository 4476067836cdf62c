"""The rejected image m', drawn in the vision tower's own input space (paper 3.1).

Noise that is added to the photograph fades when the image processor shrinks it: from 2048 to 336 pixels about
an eighth of its sigma is left. So the row stores mask, step and seed, and the noise meets the processor's
*output*:

    m' = where(mask, sqrt(abar_t) * m + sqrt(1 - abar_t) * eps, m)

With a feather the mask is a strength a that falls from 1 in the region to 0 around it, and m' = m + a * (what
stands above - m). The mask takes the same way through the processor as the picture, so crops, tiles, padding
and patch orders come out right for any of them. The scopes ``crop``, ``erase``, ``swap`` and ``black`` redraw
the picture before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mfpo.errors import UserError
from mfpo.preferences.erase import erase
from mfpo.preferences.noise import (
    FEATHERED_SCOPES,
    NOISE_STREAM,
    PLACE_STREAM,
    NoiseLevel,
    check_noise,
    generator,
)
from mfpo.preferences.regions.masks import faded, union_mask
from mfpo.records import Box, ImageSource, Noise, PreferencePair, Region, Scope

PIXELS = "pixel_values"
CROP_SCALE = (0.01, 0.2)
CROP_RATIO = (3 / 4, 4 / 3)


@dataclass(frozen=True, slots=True)
class RejectedInputs:
    """The rejected image as the model takes it.

    Attributes:
        inputs: Same keys, shapes and dtypes as ``image_processor(images=[image], return_tensors="pt")``.
        scope: What was done. Differs from the scope asked for where that would change nothing the model sees:
            no region was found, or the centre crop cuts it away; then it is ``global``.
        mask: bool, shape of ``pixel_values``: the elements that were perturbed. The region itself for
            ``erase``, None for ``crop``, ``swap`` and ``black``, which replace the whole picture.
    """

    inputs: dict[str, Tensor]
    scope: Scope
    mask: Tensor | None = None

    @property
    def share(self) -> float:
        """Share of the elements of ``pixel_values`` in the mask; 1 where the whole picture is replaced."""
        return 1.0 if self.mask is None else self.mask.float().mean().item()


def stored_rejected(pair: PreferencePair) -> ImageSource:
    """The stored picture that stands for the perturbed one; a row may store that one alone, or all images."""
    number = pair.noise.image if len(pair.rejected_images) == len(pair.images) else 0
    return pair.rejected_images[number]


def rejected_inputs(
    image_processor: Any,
    image: Image.Image,
    regions: Sequence[Region],
    noise: Noise,
    rejected_image: Image.Image | None = None,
    *,
    clean: Mapping[str, Tensor] | None = None,
) -> RejectedInputs:
    """Make a row's rejected image.

    Deterministic: the same arguments give the same bits in any process. eps is drawn for every element of the
    output and used inside the mask, so two scopes with one seed share their noise where they overlap.

    Args:
        image_processor: Any ``transformers`` image processor that returns ``pixel_values``.
        image: The row's picture, RGB, turned upright.
        regions: Where the keywords are; their union is perturbed (``region``, ``erase``).
        noise: Scope, schedule, step and seed.
        rejected_image: The picture that ``swap`` puts in place; brought to the size of ``image``.
        clean: The processor's output for ``image``, where the caller already has it; it is not modified.

    Raises:
        UserError: A setting of ``noise`` is out of range, ``swap`` has no picture, or the layout of the
            processor is not known.
    """
    level = check_noise(noise)
    if noise.scope in ("crop", "swap", "black"):
        picture = _redrawn(image, noise, rejected_image)
        return RejectedInputs(_process(image_processor, picture), noise.scope)

    clean = _process(image_processor, image) if clean is None else dict(clean)
    scope = noise.scope
    native = native_mask(image.size, regions, noise)
    feather = noise.feather * min(image.size) if scope in FEATHERED_SCOPES else 0.0
    mask = _processed_coverage(image_processor, native, clean) > 0
    if not mask.any():
        scope, feather = "global", 0.0
        mask = _processed_coverage(image_processor, np.ones(native.shape, dtype=bool), clean) > 0
    if scope == "erase":
        return RejectedInputs(_process(image_processor, erase(image, native)), scope, mask)
    strength = mask
    if feather:
        # What the region touches has all of the noise, however little of it a shrunk pixel covers.
        around = _processed_coverage(image_processor, native, clean, feather)
        strength = torch.where(mask, 1.0, around)
    eps = _draw_noise(image_processor, clean, noise.seed)
    noised = _noised(clean[PIXELS], strength, eps, level)
    return RejectedInputs({**clean, PIXELS: noised}, scope, strength > 0)


def random_crop_box(size: tuple[int, int], seed: int) -> Box:
    """The box that mDPO's random crop keeps: 1% to 20% of the area (Wang et al., 2024).

    Like ``RandomResizedCrop``, which mDPO applies to the square input of its vision tower: share of the area
    uniform, aspect log-uniform in 3/4..4/3 relative to the picture's own, place uniform. The crop is
    stretched back to the picture's size: it looks at most 4/3 too wide or too tall, and token counts stay
    what they were.

    Args:
        size: (width, height) of the picture, as PIL has it.
        seed: The row's seed.

    Returns:
        xyxy in whole pixels, at least one pixel wide and high.
    """
    return _random_box(size, generator(seed, PLACE_STREAM), CROP_SCALE, CROP_RATIO)


def picture_of(image_processor: Any, inputs: Mapping[str, Tensor]) -> Image.Image:
    """What the model is shown, for people: normalisation undone, clipped to 8 bits.

    Args:
        image_processor: The processor that made ``inputs``.
        inputs: Its output for one picture, or [`RejectedInputs.inputs`]. Of a tiled picture the overview is
            shown.

    Raises:
        UserError: The processor's layout is not known.
    """
    values = _overview(image_processor, inputs).float()
    if image_processor.do_normalize:
        mean, std = torch.tensor(image_processor.image_mean), torch.tensor(image_processor.image_std)
        values = values * std[:, None, None] + mean[:, None, None]
    if image_processor.do_rescale:
        values = values / image_processor.rescale_factor
    pixels = values.round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0)
    return Image.fromarray(pixels.numpy())


def _process(image_processor: Any, image: Image.Image, **settings: Any) -> dict[str, Tensor]:
    inputs = dict(image_processor(images=[image], return_tensors="pt", **settings))
    if PIXELS not in inputs:
        raise _unknown_layout(image_processor, f"it returns {', '.join(inputs)} and no {PIXELS}")
    return inputs


def _redrawn(image: Image.Image, noise: Noise, rejected_image: Image.Image | None) -> Image.Image:
    """The picture that takes the whole place of the original, at its size."""
    if noise.scope == "black":
        return Image.new("RGB", image.size)
    if noise.scope == "crop":
        box = noise.box if noise.box is not None else random_crop_box(image.size, noise.seed)
        return image.resize(image.size, Image.Resampling.BICUBIC, box=_inside(box, image.size))
    if rejected_image is None:
        raise UserError(
            "the row has no rejected image to swap in",
            where="--noise_scope swap",
            fix="build the rows with `rejected_images`, or choose another scope",
        )
    if rejected_image.size != image.size:
        rejected_image = rejected_image.resize(image.size, Image.Resampling.BICUBIC)
    return rejected_image.convert("RGB")


def _inside(box: Box, size: tuple[int, int]) -> Box:
    left, top, right, bottom = box
    inside = max(left, 0), max(top, 0), min(right, size[0]), min(bottom, size[1])
    if inside[0] >= inside[2] or inside[1] >= inside[3]:
        raise UserError(
            f"the crop box {tuple(box)} is empty or outside the picture of {size[0]} x {size[1]} pixels",
            where="noise.box",
            fix="give xyxy in pixels after EXIF rotation",
        )
    return inside


def native_mask(size: tuple[int, int], regions: Sequence[Region], noise: Noise) -> np.ndarray:
    """What the scope asks to perturb.

    Args:
        size: (width, height) of the picture, as PIL has it.
        regions: Where the keywords are.
        noise: The row's settings.

    Returns:
        bool ``[height, width]`` in pixels of the picture; all False where there is no region.
    """
    shape = size[1], size[0]
    if noise.scope == "global":
        return np.ones(shape, dtype=bool)
    if noise.scope != "random":
        return union_mask(regions, shape)
    share = (noise.fraction, noise.fraction)
    left, top, right, bottom = _random_box(size, generator(noise.seed, PLACE_STREAM), share, (1 / 2, 2))
    mask = np.zeros(shape, dtype=bool)
    mask[int(top) : int(bottom), int(left) : int(right)] = True
    return mask


def _random_box(
    size: tuple[int, int], draw: np.random.Generator, scale: tuple[float, float], ratio: tuple[float, float]
) -> Box:
    """A box of a random share of the area; ``ratio`` bounds its aspect relative to the picture's."""
    width, height = size
    share = draw.uniform(*scale)
    # Beyond share and 1/share the box would be longer than the picture.
    low, high = max(ratio[0], share), min(ratio[1], 1 / share)
    aspect = math.exp(draw.uniform(math.log(low), math.log(high)))
    box_width = min(max(round(width * math.sqrt(share * aspect)), 1), width)
    box_height = min(max(round(height * math.sqrt(share / aspect)), 1), height)
    left = int(draw.integers(0, width - box_width, endpoint=True))
    top = int(draw.integers(0, height - box_height, endpoint=True))
    return float(left), float(top), float(left + box_width), float(top + box_height)


def _processed_coverage(
    image_processor: Any, native: np.ndarray, clean: Mapping[str, Tensor], feather: float = 0.0
) -> Tensor:
    """Where the processor puts the mask.

    Args:
        image_processor: The processor.
        native: The mask, bool ``[height, width]`` in pixels of the picture.
        clean: The processor's output for the picture.
        feather: Distance from the mask, in pixels of the picture, over which it fades out.

    Returns:
        Share of each element of ``pixel_values`` that is covered, float in its shape, from 0 to 1.
    """
    pixels = clean[PIXELS]
    if not native.any():
        return torch.zeros(pixels.shape)
    grown = _in_blocks(native, _block_size(native.shape, clean))
    shade = faded(grown, feather) if feather else grown.astype(np.float32)
    picture = Image.fromarray(np.round(shade * 255).astype(np.uint8)).convert("RGB")
    # Bicubic and Lanczos weights ring: they would put noise beside the mask. A box has the coverage itself.
    torchvision = getattr(image_processor, "backend", "pil") == "torchvision"
    coverage = _process(
        image_processor,
        picture,
        do_normalize=False,
        do_rescale=True,
        rescale_factor=1 / 255,
        resample=Image.Resampling.BILINEAR if torchvision else Image.Resampling.BOX,
        image_mean=[0.0, 0.0, 0.0],  # some processors pad with the mean colour; around a mask that is black
    )[PIXELS]
    if coverage.shape != pixels.shape:
        raise _unknown_layout(
            image_processor, f"{tuple(coverage.shape)} for a mask, {tuple(pixels.shape)} for a picture"
        )
    return coverage


def _block_size(shape: tuple[int, int], clean: Mapping[str, Tensor]) -> int:
    """Side of the blocks to which masked pixels are grown before the processor shrinks the mask.

    Resizing rounds to 8 bits, which loses a single pixel among 512. A block is an eighth of an output pixel
    wide, too small to show and large enough to survive.
    """
    pixels = clean[PIXELS]
    if pixels.ndim >= 4 and "image_grid_thw" not in clean:
        shrink = max(shape[0] / pixels.shape[-2], shape[1] / pixels.shape[-1])
    else:
        # Flattened patches: three channels, and at most two temporal copies.
        shrink = math.sqrt(shape[0] * shape[1] * 6 / pixels.numel())
    return max(1, math.ceil(shrink / 8))


def _in_blocks(mask: np.ndarray, side: int) -> np.ndarray:
    """The mask with every aligned block of ``side`` x ``side`` pixels filled that holds a masked pixel."""
    if side == 1:
        return np.ascontiguousarray(mask)
    for axis in (0, 1):
        length = mask.shape[axis]
        blocks = np.logical_or.reduceat(mask, np.arange(0, length, side), axis=axis)
        mask = np.take(blocks, np.arange(length) // side, axis=axis)
    return np.ascontiguousarray(mask)


def _draw_noise(image_processor: Any, clean: Mapping[str, Tensor], seed: int) -> Tensor:
    """Draw eps, float32 in the shape of ``pixel_values``; temporal copies of a still image get the same."""
    pixels = clean[PIXELS]
    shape = tuple(pixels.shape)
    patches = _patch_layout(image_processor, clean)
    if patches is not None:
        channels, copies, patch = patches
        shape = (len(pixels), channels, 1, patch, patch)
    eps = torch.from_numpy(generator(seed, NOISE_STREAM).standard_normal(shape, dtype=np.float32))
    if patches is not None:
        eps = eps.expand(-1, -1, copies, -1, -1).reshape(pixels.shape)
    return eps


def _noised(x: Tensor, strength: Tensor, eps: Tensor, level: NoiseLevel) -> Tensor:
    """Pixels with noise, in their dtype: inside a mask, or by a strength from 0 to 1 if that is no mask."""
    noised = (level.signal * x.float()).add_(eps, alpha=level.sigma)
    if strength.dtype != torch.bool:
        noised = torch.lerp(x.float(), noised, strength.float())
        strength = strength > 0
    return torch.where(strength, noised.to(x.dtype), x)


def _patch_layout(image_processor: Any, inputs: Mapping[str, Tensor]) -> tuple[int, int, int] | None:
    """(channels, temporal copies, patch side) of flattened patches as Qwen orders them, or None for images.

    Raises:
        UserError: There are temporal copies in another order.
    """
    pixels = inputs[PIXELS]
    copies = getattr(image_processor, "temporal_patch_size", None)
    if "image_grid_thw" not in inputs or pixels.ndim != 2 or copies is None:
        return None
    patch = image_processor.patch_size
    channels = pixels.shape[1] // (copies * patch * patch)
    if channels * copies * patch * patch == pixels.shape[1]:
        first, *others = pixels.view(len(pixels), channels, copies, patch, patch).unbind(2)
        if all(torch.equal(first, other) for other in others):
            return channels, copies, patch
    raise _unknown_layout(
        image_processor, f"patches of {pixels.shape[1]} values are not (3, {copies}, {patch}, {patch})"
    )


def _overview(image_processor: Any, inputs: Mapping[str, Tensor]) -> Tensor:
    """``[channels, height, width]``: the one view that shows the whole picture."""
    pixels = inputs[PIXELS]
    patches = _patch_layout(image_processor, inputs)
    if patches is not None:
        channels, copies, patch = patches
        merge = getattr(image_processor, "merge_size", 1)
        _, rows, columns = (int(n) for n in inputs["image_grid_thw"][0])
        grid = pixels[: rows * columns].view(
            rows // merge, columns // merge, merge, merge, channels, copies, patch, patch
        )
        return (
            grid[:, :, :, :, :, 0]
            .permute(4, 0, 2, 5, 1, 3, 6)
            .reshape(channels, rows * patch, columns * patch)
        )
    if pixels.ndim < 4 or "image_grid_thw" in inputs:
        raise _unknown_layout(image_processor, f"{PIXELS} of shape {tuple(pixels.shape)} cannot be shown")
    if pixels.ndim == 4:
        return pixels[0]
    if "pixel_attention_mask" not in inputs:
        return pixels[0, 0]
    # Idefics 3 and SmolVLM put the overview last and pad below and to the right.
    seen = inputs["pixel_attention_mask"][0, -1].bool()
    return pixels[0, -1, :, : int(seen.any(dim=1).sum()), : int(seen.any(dim=0).sum())]


def _unknown_layout(image_processor: Any, detail: str) -> UserError:
    return UserError(
        f"the layout of this image processor is not known: {detail}",
        where=type(image_processor).__name__,
        fix="choose a model of the LLaVA, Qwen-VL or Idefics families",
    )
