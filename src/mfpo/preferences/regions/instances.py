"""From what a model puts out to regions: boxes in pixels, doubles dropped, masks at the picture's size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mfpo.preferences.regions.masks import box_of, encode_rle
from mfpo.records import Box, Region

MAX_INSTANCES = 20
"""Instances of a keyword at most, the surest first."""
NMS_IOU = 0.5
"""Overlap from which two boxes of a keyword are one instance."""


@dataclass(frozen=True, slots=True)
class Boxes:
    """Detections of one keyword, the surest first.

    Attributes:
        xyxy: float64 ``[n, 4]`` in pixels, inside the picture.
        scores: float64 ``[n]`` in [0, 1].
    """

    xyxy: NDArray[np.float64]
    scores: NDArray[np.float64]


def decode_boxes(
    cxcywh: Tensor, scores: Tensor, threshold: float, size: tuple[int, int], extent: tuple[float, float]
) -> Boxes:
    """Boxes of a detector in pixels.

    Args:
        cxcywh: ``[n, 4]``, centre, width and height as fractions of what the detector saw.
        scores: ``[n]`` in [0, 1].
        threshold: A box counts if its score is higher.
        size: (height, width) of the picture; boxes are clipped to it.
        extent: (height, width) in pixels of the picture of what the detector saw: more than the picture where
            that was padded.
    """
    boxes = cxcywh.double().cpu().numpy()
    sure = scores.double().cpu().numpy()
    height, width = extent
    half = boxes[:, 2:] / 2
    corners = np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1) * [
        width,
        height,
        width,
        height,
    ]
    corners = corners.clip(0, [size[1], size[0], size[1], size[0]])
    solid = (corners[:, 2] - corners[:, 0] >= 1) & (corners[:, 3] - corners[:, 1] >= 1)
    kept = np.flatnonzero((sure > threshold) & solid)
    kept = kept[np.argsort(-sure[kept], kind="stable")]
    chosen = _without_doubles(corners[kept])[:MAX_INSTANCES]
    return Boxes(corners[kept][chosen].round(2), sure[kept][chosen].round(4))


def resized_masks(logits: Tensor, size: tuple[int, int], threshold: float) -> NDArray[np.bool_]:
    """Masks at the picture's size.

    Args:
        logits: ``[n, h, w]``.
        size: (height, width) of the picture.
        threshold: Probability in (0, 1) from which a pixel belongs to the mask.

    Returns:
        bool ``[n, height, width]``.
    """
    limit = float(np.log(threshold / (1 - threshold)))
    if not len(logits):
        return np.zeros((0, *size), dtype=bool)
    # One by one: a hundred masks of a large photograph as floats would fill the memory.
    masks = [
        torch.nn.functional.interpolate(one[None, None].float(), size, mode="bilinear", align_corners=False)[
            0, 0
        ]
        > limit
        for one in logits
    ]
    return torch.stack(masks).cpu().numpy()


def to_region(keyword: str, mask: NDArray[np.bool_], score: float, box: Box | None = None) -> Region | None:
    """A mask as a region; None for an empty one.

    Args:
        keyword: The keyword.
        mask: bool ``[height, width]``.
        score: In [0, 1].
        box: xyxy in pixels; the mask's own when None.
    """
    if not mask.any():
        return None
    height, width = mask.shape
    return Region(keyword, box or box_of(mask), round(score, 4), encode_rle(mask), (height, width))


def _without_doubles(boxes: NDArray[np.float64]) -> list[int]:
    """Indices of boxes that overlap none before them by more than [`NMS_IOU`]."""
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    chosen: list[int] = []
    for index, box in enumerate(boxes):
        others = boxes[chosen]
        sides = (np.minimum(others[:, 2:], box[2:]) - np.maximum(others[:, :2], box[:2])).clip(0)
        common = sides.prod(1)
        if (common <= NMS_IOU * (areas[chosen] + areas[index] - common)).all():
            chosen.append(index)
    return chosen
