"""Masks from boxes by SAM 2.1 (Ravi et al. 2024)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mfpo.preferences.regions.checkpoints import Checkpoint, Place
from mfpo.preferences.regions.instances import resized_masks

DEFAULT = Checkpoint("facebook/sam2.1-hiera-large")
BOXES_TOGETHER = 8
MASK_THRESHOLD = 0.5
"""Logit 0, as in the authors' code."""


class BoxSegmenter:
    """Turns boxes in a picture into masks; the picture is encoded once.

    The preprocessing is that of the checkpoint (a square, bilinear, normalised), done here with Pillow: its
    own processor needs torchvision.

    Args:
        checkpoint: The model.
        place: Where it computes.
    """

    def __init__(self, checkpoint: Checkpoint, place: Place) -> None:
        from transformers import Sam2Model

        self.place = place
        self.model = checkpoint.model(Sam2Model, place.device, place.dtype)
        self._input = SquareInput(checkpoint.settings(), place)

    @torch.inference_mode()
    def masks(
        self, image: Image.Image, boxes: NDArray[np.float64], threshold: float
    ) -> Iterator[tuple[NDArray[np.bool_], float]]:
        """Masks of boxes, a few at a time: in a large crowded picture all of them take gigabytes.

        Args:
            image: The picture.
            boxes: float64 ``[n, 4]``, xyxy in pixels.
            threshold: Probability from which a pixel belongs to a mask.

        Yields:
            For each box its mask, bool ``[height, width]``, and the model's own estimate of its quality.
        """
        size = image.height, image.width
        if not len(boxes):
            return
        scale = self._input.side / np.array([image.width, image.height])
        scaled = boxes * np.tile(scale, 2)
        embeddings = self.model.get_image_embeddings(self._input(image))
        for start in range(0, len(scaled), BOXES_TOGETHER):
            batch = scaled[start : start + BOXES_TOGETHER]
            logits, qualities = self._decode(embeddings, batch)
            yield from zip(resized_masks(logits, size, threshold), qualities.tolist(), strict=True)

    def _decode(
        self, embeddings: list[Tensor], boxes: NDArray[np.float64]
    ) -> tuple[Tensor, NDArray[np.float64]]:
        """Logits ``[n, h, w]`` and qualities ``[n]``; batches are filled up, so that their shape is one."""
        full = np.concatenate([boxes, np.repeat(boxes[:1], BOXES_TOGETHER - len(boxes), axis=0)])
        prompt = torch.as_tensor(full, dtype=torch.float32, device=self.place.device)[None]
        out: Any = self.model(
            image_embeddings=embeddings, input_boxes=prompt.to(self.place.dtype), multimask_output=False
        )
        quality = out.iou_scores[0, : len(boxes), 0].double().cpu().numpy()
        return out.pred_masks[0, : len(boxes), 0], quality


class SquareInput:
    """A picture as SAM 2 and SAM 3 get it: squeezed into a square, rescaled and normalised.

    Args:
        settings: The checkpoint's ``preprocessor_config.json``.
        place: Where the result goes.
        side: Side of the square in pixels where the settings name none.
        mean: Mean of the channels where the settings name none.
        std: Their standard deviation, likewise.
    """

    def __init__(
        self,
        settings: dict[str, Any],
        place: Place,
        *,
        side: int = 1024,
        mean: tuple[float, ...] = (0.485, 0.456, 0.406),
        std: tuple[float, ...] = (0.229, 0.224, 0.225),
    ) -> None:
        settings = settings.get("image_processor", settings)
        self.side = int(settings.get("size", {}).get("height", side))
        self._mean = np.asarray(settings.get("image_mean") or mean, dtype=np.float32)
        self._std = np.asarray(settings.get("image_std") or std, dtype=np.float32)
        self._place = place

    def __call__(self, image: Image.Image) -> Tensor:
        """Pixels ``[1, 3, side, side]``."""
        square = image.resize((self.side, self.side), Image.Resampling.BILINEAR)
        pixels = (np.asarray(square, dtype=np.float32) / 255 - self._mean) / self._std
        return torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self._place.device, self._place.dtype)
