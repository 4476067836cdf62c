"""Boxes of keywords by OWLv2 (Minderer et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mfpo.preferences.regions.checkpoints import Checkpoint, Place, in_batches
from mfpo.preferences.regions.instances import Boxes, decode_boxes

DEFAULT = Checkpoint("google/owlv2-base-patch16-ensemble")
BOX_THRESHOLD = 0.2
"""Between the 0.1 of the model's examples, which finds something for any phrase, and 0.3."""
PROMPT = "a photo of a {}"


class Owlv2:
    """Finds boxes; the image is encoded once, and a keyword's boxes do not compete with those of others.

    Args:
        checkpoint: The model.
        place: Where it computes.
    """

    def __init__(self, checkpoint: Checkpoint, place: Place) -> None:
        from transformers import AutoTokenizer, Owlv2ForObjectDetection
        from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil

        self.place = place
        self.model = checkpoint.model(Owlv2ForObjectDetection, place.device, place.dtype)
        self._images = checkpoint.load(Owlv2ImageProcessorPil)
        self._tokenizer = checkpoint.load(AutoTokenizer)

    @torch.inference_mode()
    def boxes(self, image: Image.Image, keywords: Sequence[str], threshold: float) -> list[Boxes]:
        """The boxes of each keyword.

        Args:
            image: The picture.
            keywords: Phrases.
            threshold: A box counts if its score is higher.
        """
        pixels = self._images(images=[image], return_tensors="pt")["pixel_values"]
        features, _ = self.model.image_embedder(pixels.to(self.place.device, self.place.dtype))
        tokens = features.flatten(1, 2)
        boxes = self.model.box_predictor(tokens, features)[0]

        def find(batch: list[str]) -> list[Tensor]:
            logits, _ = self.model.class_predictor(tokens, self._queries(batch)[None])
            return list(logits[0].float().sigmoid().T)

        scores = in_batches(list(keywords), self.place.queries, find)
        # The processor pads the picture to a square at its right or lower side; boxes are fractions of that.
        side = float(max(image.size))
        size = image.height, image.width
        return [decode_boxes(boxes, score, threshold, size, (side, side)) for score in scores]

    def _queries(self, keywords: list[str]) -> Tensor:
        """Text embeddings ``[n, d]``."""
        text = self._tokenizer(
            [PROMPT.format(keyword) for keyword in keywords],
            padding="max_length",
            truncation=True,
            max_length=self.model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self.place.device)
        out: Any = self.model.owlv2.get_text_features(
            input_ids=text["input_ids"], attention_mask=text["attention_mask"]
        )
        queries: Tensor = out.pooler_output
        return queries / queries.norm(dim=-1, keepdim=True)
