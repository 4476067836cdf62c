"""Masks as COCO run lengths, boxes and unions; everything refers to the image after EXIF rotation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco
from scipy.ndimage import distance_transform_edt

from mfpo.records import Box, Region


def encode_rle(mask: NDArray[np.bool_]) -> str:
    """Compressed run lengths of a mask, as pycocotools writes them (column-major), decoded to str.

    Args:
        mask: bool ``[height, width]``.
    """
    return coco.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"].decode()


def decode_rle(rle: str, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask of compressed run lengths.

    Args:
        rle: Compressed counts, see [`encode_rle`].
        size: (height, width).

    Returns:
        bool ``[height, width]``.

    Raises:
        ValueError: The run lengths don't fill that size.
    """
    return decode_runs(_run_lengths(rle), size)


def decode_runs(runs: Sequence[int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask of plain run lengths, which alternate between outside and inside, column by column.

    Args:
        runs: Counts that add up to the number of pixels; the first one is outside.
        size: (height, width).

    Returns:
        bool ``[height, width]``.

    Raises:
        ValueError: The run lengths don't fill that size.
    """
    height, width = size
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise ValueError(f"run lengths that don't fill a mask of {height}x{width} pixels")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height).T


def _run_lengths(rle: str) -> list[int]:
    """The counts behind COCO's string: 5 bits a character, low ones first; from the fourth on, differences.

    Decoded here rather than by pycocotools, which reads a damaged string without a word.
    """
    runs: list[int] = []
    value = shift = 0
    for code in rle.encode():
        digit = code - 48
        if not 0 <= digit < 64:
            raise ValueError(f"{chr(code)!r} does not belong into compressed run lengths")
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("compressed run lengths that end in the middle of a number")
    return runs


def union_mask(regions: Iterable[Region], size: tuple[int, int]) -> NDArray[np.bool_]:
    """What any of the regions covers.

    Args:
        regions: Regions of one image.
        size: (height, width) of that image.

    Returns:
        bool ``[height, width]``, all False without regions.

    Raises:
        ValueError: A region belongs to an image of another size.
    """
    union = np.zeros(size, dtype=bool)
    for region in regions:
        if tuple(region.size) != tuple(size):
            raise ValueError(f"a region of an image of {region.size} in an image of {size} (height, width)")
        union |= decode_rle(region.rle, size)
    return union


def union_share(regions: Iterable[Region], size: tuple[int, int]) -> float:
    """Share of an image that the regions cover together, in [0, 1]; what ``union_mask(...).mean()`` is.

    The runs are added without unpacking them to pixels, which is many times as fast.

    Args:
        regions: Regions of one image.
        size: (height, width) of that image.

    Raises:
        ValueError: A region belongs to an image of another size, or its run lengths don't fill it.
    """
    starts, ends = [], []
    for region in regions:
        if tuple(region.size) != tuple(size):
            raise ValueError(f"a region of an image of {region.size} in an image of {size} (height, width)")
        runs = np.array(_run_lengths(region.rle), dtype=np.int64)
        if runs.min(initial=0) < 0 or runs.sum() != size[0] * size[1]:
            raise ValueError(f"run lengths that don't fill a mask of {size[0]}x{size[1]} pixels")
        edges = np.cumsum(runs)
        starts.append(edges[: 2 * (len(edges) // 2) : 2])
        ends.append(edges[1::2])
    if not starts:
        return 0.0
    begin, end = np.concatenate(starts), np.concatenate(ends)
    order = np.argsort(begin, kind="stable")
    begin, end = begin[order], end[order]
    # Of each run counts what lies beyond the farthest end before it.
    before = np.concatenate([[0], np.maximum.accumulate(end)[:-1]])
    return float(np.maximum(end - np.maximum(begin, before), 0).sum()) / (size[0] * size[1])


def grow(mask: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """The mask and every pixel that is at most a radius away from it (Euclidean distance).

    Args:
        mask: bool ``[height, width]``.
        radius: In pixels; the mask itself is returned where it is not positive.
    """
    if radius <= 0 or not mask.any():
        return mask
    left, top, right, bottom = (int(side) for side in box_of(mask))
    reach = int(radius)
    window = slice(max(top - reach, 0), bottom + reach), slice(max(left - reach, 0), right + reach)
    grown = mask.copy()
    grown[window] = distance_transform_edt(~mask[window]) <= radius
    return grown


def faded(mask: NDArray[np.bool_], width: float) -> NDArray[np.float32]:
    """A mask that falls linearly to 0 around itself.

    Args:
        mask: bool ``[height, width]`` with at least one pixel.
        width: Distance in pixels at which 0 is reached; above 0.

    Returns:
        float32 ``[height, width]``: 1 in the mask, ``1 - d / width`` at the Euclidean distance d from it.
    """
    distance = distance_transform_edt(~mask)
    return np.clip(1 - distance / width, 0, 1).astype(np.float32)


def box_of(mask: NDArray[np.bool_]) -> Box:
    """The tight box xyxy of a mask in pixels, right and bottom exclusive; all zero for an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return 0.0, 0.0, 0.0, 0.0
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def box_mask(box: Box, size: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels that a box touches, clipped to the image.

    Args:
        box: xyxy in pixels.
        size: (height, width).

    Returns:
        bool ``[height, width]``; empty when the box lies outside or has no area.
    """
    height, width = size
    mask = np.zeros(size, dtype=bool)
    x0, y0, x1, y1 = box
    if x1 > x0 and y1 > y0:
        rows = slice(max(int(np.floor(y0)), 0), max(int(np.ceil(min(y1, height))), 0))
        columns = slice(max(int(np.floor(x0)), 0), max(int(np.ceil(min(x1, width))), 0))
        mask[rows, columns] = True
    return mask


def polygon_mask(polygons: list[list[float]], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The union of polygons, rasterised as COCO does.

    Args:
        polygons: Each ``[x0, y0, x1, y1, ...]`` in pixels, three corners at least.
        size: (height, width).

    Raises:
        ValueError: A corner is no number, or so far outside that COCO's code would run out of memory.
    """
    if not all(abs(value) <= 10 * max(size) for polygon in polygons for value in polygon):
        raise ValueError(f"a polygon with corners far outside a picture of {size[0]}x{size[1]} pixels")
    parts = coco.frPyObjects(polygons, *size)
    mask: NDArray[np.bool_] = coco.decode(coco.merge(parts)).astype(bool)
    return mask
