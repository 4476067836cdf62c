"""The backends of two models: a detector finds the boxes of keywords, SAM 2.1 turns boxes into masks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from PIL import Image

from mfpo.preferences.regions import grounding_dino, owlv2, sam2
from mfpo.preferences.regions.base import RegionOptions
from mfpo.preferences.regions.checkpoints import Checkpoint, Place, checkpoints, fingerprint, place
from mfpo.preferences.regions.instances import Boxes, to_region
from mfpo.records import Region


class Detector(Protocol):
    """Finds boxes."""

    model: Any

    def boxes(self, image: Image.Image, keywords: Sequence[str], threshold: float) -> list[Boxes]:
        """The boxes of each keyword."""
        ...


class BoxesAndMasks:
    """Boxes, then masks; each model encodes the image once.

    Args:
        name: Name of the backend.
        detector: Finds boxes.
        segmenter: Makes masks of them.
        box_threshold: Score from which a box counts.
        mask_threshold: Probability from which a pixel belongs to a mask.
        identities: What tells the weights from others, by part.
    """

    def __init__(
        self,
        name: str,
        detector: Detector,
        segmenter: sam2.BoxSegmenter,
        *,
        box_threshold: float,
        mask_threshold: float,
        identities: dict[str, str],
    ) -> None:
        self.detector, self.segmenter = detector, segmenter
        self._box_threshold, self._mask_threshold = box_threshold, mask_threshold
        self.fingerprint = fingerprint(
            name, 1, segmenter.place, identities, box_threshold=box_threshold, mask_threshold=mask_threshold
        )

    def segment(
        self, image: Image.Image, keywords: Sequence[str], *, name: str | None = None
    ) -> list[Region]:
        """See [`mfpo.preferences.regions.base.RegionBackend`]; a score is the detector's."""
        found = self.detector.boxes(image, keywords, self._box_threshold)
        regions: list[Region | None] = []
        masks = self.segmenter.masks(
            image, np.concatenate([boxes.xyxy for boxes in found]), self._mask_threshold
        )
        for keyword, boxes in zip(keywords, found, strict=True):
            for box, score in zip(boxes.xyxy, boxes.scores, strict=True):
                corners = float(box[0]), float(box[1]), float(box[2]), float(box[3])
                mask, _ = next(masks)
                regions.append(to_region(keyword, mask, float(score), corners))
        return [region for region in regions if region is not None]


def grounded_sam2(options: RegionOptions) -> BoxesAndMasks:
    """The backend ``grounded-sam2``, in the manner of Grounded SAM (Ren et al. 2024).

    GroundingDINO computes in float32 unless a type is asked for: its deformable attention loses boxes below.
    """
    return _assembled(
        "grounded-sam2",
        options,
        (grounding_dino.GroundingDino, grounding_dino.DEFAULT, place(options, precise=True)),
        grounding_dino.BOX_THRESHOLD,
    )


def owlv2_sam(options: RegionOptions) -> BoxesAndMasks:
    """The backend ``owlv2-sam``."""
    return _assembled("owlv2-sam", options, (owlv2.Owlv2, owlv2.DEFAULT, place(options)), owlv2.BOX_THRESHOLD)


def _assembled(
    name: str, options: RegionOptions, detector: tuple[Any, Checkpoint, Place], box_threshold: float
) -> BoxesAndMasks:
    make, default, at = detector
    first, second = checkpoints(options, default, sam2.DEFAULT)
    finder, segmenter = make(first, at), sam2.BoxSegmenter(second, place(options))
    return BoxesAndMasks(
        name,
        finder,
        segmenter,
        box_threshold=box_threshold if options.box_threshold is None else options.box_threshold,
        mask_threshold=sam2.MASK_THRESHOLD if options.mask_threshold is None else options.mask_threshold,
        identities={
            "detector": f"{first.identity(finder.model)} {at.dtype}",
            "segmenter": second.identity(segmenter.model),
        },
    )
