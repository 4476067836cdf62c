"""Boxes of keywords by GroundingDINO (Liu et al. 2023), the image's backbone run once for all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from mfpo.preferences.regions.checkpoints import Checkpoint, Place, in_batches
from mfpo.preferences.regions.instances import Boxes, decode_boxes

DEFAULT = Checkpoint("IDEA-Research/grounding-dino-base")
BOX_THRESHOLD = 0.35
"""As in the authors' demonstration."""
MAX_TOKENS = 32


class GroundingDino:
    """Finds boxes; each keyword is a query of its own, since phrases of one query melt into each other.

    Args:
        checkpoint: The model.
        place: Where it computes.
    """

    def __init__(self, checkpoint: Checkpoint, place: Place) -> None:
        from transformers import AutoTokenizer, GroundingDinoForObjectDetection
        from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
            GroundingDinoImageProcessorPil,
        )

        self.place = place
        self.model = checkpoint.model(GroundingDinoForObjectDetection, place.device, place.dtype)
        self._backbone = OneImage(self.model.model.backbone)
        self.model.model.backbone = self._backbone
        self._images = checkpoint.load(GroundingDinoImageProcessorPil)
        self._tokenizer = checkpoint.load(AutoTokenizer)

    @torch.inference_mode()
    def boxes(self, image: Image.Image, keywords: Sequence[str], threshold: float) -> list[Boxes]:
        """The boxes of each keyword.

        Args:
            image: The picture.
            keywords: Phrases.
            threshold: A box counts if its score, the highest of its words', is higher.
        """
        inputs = self._images(images=[image], return_tensors="pt")
        pixels = inputs["pixel_values"].to(self.place.device, self.place.dtype)
        visible = inputs["pixel_mask"].to(self.place.device)
        self._backbone.forget()

        def find(batch: list[str]) -> list[tuple[Tensor, Tensor]]:
            text = self._tokenizer(
                [f"{keyword.lower().strip(' .')}." for keyword in batch],
                padding="max_length",
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            ).to(self.place.device)
            out: Any = self.model(
                pixel_values=pixels.expand(len(batch), -1, -1, -1),
                pixel_mask=visible.expand(len(batch), -1, -1),
                **text,
            )
            return list(zip(out.pred_boxes, out.logits.float().sigmoid().amax(-1), strict=True))

        found = in_batches(list(keywords), self.place.queries, find)
        size = image.height, image.width
        return [decode_boxes(boxes, scores, threshold, size, size) for boxes, scores in found]


class OneImage(nn.Module):
    """An image backbone that is asked for a batch of one and the same image, and computes it once.

    Args:
        backbone: GroundingDINO's backbone; its results are lists of (features, mask) and position embeddings.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.position_embedding = backbone.position_embedding
        self._known: tuple[list[tuple[Tensor, Tensor]], list[Tensor]] | None = None

    def forget(self) -> None:
        """Another image comes."""
        self._known = None

    def forward(
        self, pixel_values: Tensor, pixel_mask: Tensor
    ) -> tuple[list[tuple[Tensor, Tensor]], list[Tensor]]:
        """The backbone's results for the first image, once for each of the batch."""
        if self._known is None:
            self._known = self.backbone(pixel_values[:1], pixel_mask[:1])
        features, positions = self._known
        count = len(pixel_values)
        return (
            [(_repeated(feature, count), _repeated(mask, count)) for feature, mask in features],
            [_repeated(position, count) for position in positions],
        )


def _repeated(tensor: Tensor, count: int) -> Tensor:
    return tensor.expand(count, *tensor.shape[1:])
