"""Remove what is inside a mask and continue its surroundings over it.

A healing brush in numpy: for each part of the mask, the piece of the picture whose rim resembles the part's
own rim is copied over it, plus the smooth (harmonic) correction that makes the copy meet the surroundings.
The correction and the search run on a reduced picture, the copy on the full one, so the cost grows little
with resolution.
"""

from __future__ import annotations

import numpy as np
from PIL import Image
from scipy import fft, ndimage

from mfpo.preferences.regions.masks import grow

WORK_SIDE = 192
"""Longest side in pixels of the reduced picture on which pieces are searched and corrections solved."""

RIM = 4
"""Width in reduced pixels of the rim by which pieces are compared."""

MAX_MISMATCH = 45.0
"""Root mean square difference of the rims, in 8-bit levels, above which a smooth filling looks better."""

BUSYNESS_WEIGHT = 7.0
"""Weight of the squared mean gradient of a piece above the rim's median; keeps objects from being copied."""

MAX_PARTS = 16
"""Parts of a mask that get a piece of their own, largest first; smaller ones are filled smoothly."""


def erase(image: Image.Image, mask: np.ndarray, *, margin: int | None = None) -> Image.Image:
    """The picture with the masked area filled from its surroundings.

    Args:
        image: An RGB picture.
        mask: bool ``[height, width]``, what to remove.
        margin: Pixels by which the mask is grown first, lest the blurred edge of an object survive as an
            outline; 0.4% of the longer side, at least 2, when None.

    Returns:
        A picture of the same size, equal to the original outside the grown mask. A mask that leaves nothing
        outside gives the picture's mean colour.
    """
    pixels = np.asarray(image.convert("RGB"))
    if mask.shape != pixels.shape[:2]:
        raise ValueError(f"mask of shape {mask.shape} for a picture of shape {pixels.shape[:2]}")
    margin = max(2, round(0.004 * max(mask.shape))) if margin is None else margin
    mask = grow(mask, margin)
    if not mask.any():
        return image.copy()
    if mask.all():
        mean = np.round(pixels.mean(axis=(0, 1))).astype(np.uint8)
        return Image.fromarray(np.broadcast_to(mean, pixels.shape).copy())

    small, small_mask = _reduce(image, mask)
    if small_mask.all():
        small_mask = small_mask & ~_barely_covered(mask, small_mask.shape)
    smooth = harmonic_fill(small, ~small_mask)
    filled = pixels.copy()
    window = _window(small_mask, mask.shape)
    _paste(filled[window], _enlarge(smooth, mask.shape, window), mask[window])
    base = filled.copy()
    labels, count = ndimage.label(small_mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    for part in 1 + np.argsort(-sizes, kind="stable")[:MAX_PARTS]:
        _heal_part(filled, base, mask, smooth, small_mask, labels == part)
    return Image.fromarray(filled)


def harmonic_fill(values: np.ndarray, known: np.ndarray, sweeps: int = 12) -> np.ndarray:
    """Fill the unknown pixels with the smoothest continuation of the known ones (Laplace's equation).

    Solved coarse to fine: each level starts from that of half its resolution and relaxes by Jacobi sweeps.

    Args:
        values: float32 ``[height, width, channels]``; what stands at unknown pixels does not matter.
        known: bool ``[height, width]``, at least one True.
        sweeps: Jacobi sweeps on each level.
    """
    height, width = known.shape
    if known.all():
        return values
    if min(height, width) < 4:
        mean = values[known].mean(axis=0)
        return np.where(known[..., None], values, mean).astype(values.dtype)
    even = ((0, height % 2), (0, width % 2))
    weight = np.pad(known.astype(values.dtype), even)[..., None]
    total = _pool2(np.pad(values * known[..., None], (*even, (0, 0))))
    count = _pool2(weight)
    coarse = harmonic_fill(total / np.maximum(count, 1), count[..., 0] > 0, sweeps)
    start = coarse.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
    current = np.where(known[..., None], values, start)
    unknown = ~known
    for _ in range(sweeps):
        padded = np.pad(current, ((1, 1), (1, 1), (0, 0)), mode="edge")
        mean = (padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]) * 0.25
        current[unknown] = mean[unknown]
    return current


def _heal_part(
    filled: np.ndarray,
    base: np.ndarray,
    mask: np.ndarray,
    smooth: np.ndarray,
    small_mask: np.ndarray,
    part: np.ndarray,
) -> None:
    """Write the best piece of ``base`` over one part of the mask, in place; leave it smooth if none fits."""
    offset = _best_offset(smooth, small_mask, part)
    if offset is None:
        return
    ratio = mask.shape[0] / part.shape[0], mask.shape[1] / part.shape[1]
    dy, dx = round(offset[0] * ratio[0]), round(offset[1] * ratio[1])
    # The piece comes from the reduced picture for the correction and from the full one for the copy.
    height, width = part.shape
    rows = np.clip(np.arange(height) + offset[0], 0, height - 1)
    columns = np.clip(np.arange(width) + offset[1], 0, width - 1)
    correction = harmonic_fill(smooth - smooth[rows][:, columns], ~part & ~small_mask)

    window = _window(part, mask.shape)
    y = np.clip(np.arange(window[0].start, window[0].stop) + dy, 0, mask.shape[0] - 1)
    x = np.clip(np.arange(window[1].start, window[1].stop) + dx, 0, mask.shape[1] - 1)
    piece = base[y[:, None], x] + _enlarge(correction, mask.shape, window)
    inside = mask[window] & _repeat(part, mask.shape, window)
    _paste(filled[window], piece, inside)


def _best_offset(smooth: np.ndarray, masked: np.ndarray, part: np.ndarray) -> tuple[int, int] | None:
    """Shift (rows, columns) to the piece that replaces a part: its rim is alike, nothing stands out in it.

    All shifts are compared at once through the Fourier transform. A piece lies inside the picture and off the
    mask, as does half of its rim. None when no piece is alike enough.
    """
    rim = grow(part, RIM) & ~masked
    height, width = part.shape
    if not rim.any() or min(height, width) <= RIM:
        return None
    shape = (fft.next_fast_len(2 * height, real=True), fft.next_fast_len(2 * width, real=True))

    def transform(plane: np.ndarray) -> np.ndarray:
        return fft.rfft2(plane.astype(np.float32), shape)

    def correlate(kernel: np.ndarray, plane: np.ndarray) -> np.ndarray:
        return fft.irfft2(np.conj(kernel) * plane, shape)

    channels = smooth.shape[-1]
    free, part_f, rim_f = transform(~masked), transform(part), transform(rim)
    compared = correlate(rim_f, free)
    difference = correlate(transform(rim * (smooth**2).sum(axis=-1)), free)
    difference += correlate(rim_f, transform(~masked * (smooth**2).sum(axis=-1)))
    for plane in np.moveaxis(smooth, -1, 0):
        difference -= 2 * correlate(transform(rim * plane), transform(~masked * plane))
    difference /= channels * np.maximum(compared, 1)

    gradient = np.hypot(*np.gradient(smooth.mean(axis=-1)))
    size = part.sum()
    busy = correlate(part_f, transform(gradient)) / size - float(np.median(gradient[rim]))
    cost = difference + BUSYNESS_WEIGHT * np.maximum(busy, 0) ** 2
    cost[(correlate(part_f, free) < size - 0.5) | (compared < 0.5 * rim.sum())] = np.inf
    best = np.unravel_index(int(np.argmin(cost)), shape)
    if cost[best] > MAX_MISMATCH**2:
        return None
    dy, dx = int(best[0]), int(best[1])
    return (dy if dy < height else dy - shape[0]), (dx if dx < width else dx - shape[1])


def _reduce(image: Image.Image, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Picture (float32) and mask at a longest side of [`WORK_SIDE`]; any mask in a reduced pixel masks it."""
    scale = min(1.0, WORK_SIDE / max(mask.shape))
    height, width = (max(1, round(side * scale)) for side in mask.shape)
    small = image.convert("RGB").resize((width, height), Image.Resampling.BOX)
    reduced = _reduce_any(_reduce_any(mask, height).T, width).T
    return np.asarray(small, dtype=np.float32), reduced


def _reduce_any(mask: np.ndarray, rows: int) -> np.ndarray:
    starts = -(-np.arange(rows) * mask.shape[0] // rows)
    return np.logical_or.reduceat(mask, starts, axis=0)


def _barely_covered(mask: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """The reduced pixel that the mask covers least, where reduction has left no known one."""
    cover = np.asarray(Image.fromarray(mask.astype(np.float32)).resize(shape[::-1], Image.Resampling.BOX))
    return cover == cover.min()


def _pool2(values: np.ndarray) -> np.ndarray:
    return values[::2, ::2] + values[1::2, ::2] + values[::2, 1::2] + values[1::2, 1::2]


def _window(part: np.ndarray, shape: tuple[int, int]) -> tuple[slice, slice]:
    """Slices of the full picture that hold a part of the reduced one."""
    slices = []
    for axis in (0, 1):
        hit = np.flatnonzero(part.any(axis=1 - axis))
        ratio = shape[axis] / part.shape[axis]
        start, stop = int(hit[0] * ratio) - 1, int((hit[-1] + 1) * ratio) + 2
        slices.append(slice(max(start, 0), min(stop, shape[axis])))
    return slices[0], slices[1]


def _enlarge(values: np.ndarray, shape: tuple[int, int], window: tuple[slice, slice]) -> np.ndarray:
    """Bring a reduced float picture to full size, within a window of the full picture."""
    rows, columns = window
    if values.shape[:2] == shape:
        return values[window]
    down, across = values.shape[0] / shape[0], values.shape[1] / shape[1]
    box = (columns.start * across, rows.start * down, columns.stop * across, rows.stop * down)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    planes = [
        np.asarray(Image.fromarray(plane).resize(size, Image.Resampling.BILINEAR, box=box))
        for plane in np.ascontiguousarray(np.moveaxis(values, -1, 0), dtype=np.float32)
    ]
    return np.stack(planes, axis=-1)


def _repeat(mask: np.ndarray, shape: tuple[int, int], window: tuple[slice, slice]) -> np.ndarray:
    """Bring a reduced mask to full size, within a window of the full picture."""
    rows, columns = (
        np.arange(part.start, part.stop) * mask.shape[axis] // shape[axis] for axis, part in enumerate(window)
    )
    return mask[rows[:, None], columns]


def _paste(target: np.ndarray, values: np.ndarray, inside: np.ndarray) -> None:
    target[inside] = np.clip(np.round(values[inside]), 0, 255).astype(np.uint8)
