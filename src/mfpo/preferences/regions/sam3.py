"""The backend ``sam3`` (Carion et al. 2025): noun phrase to all its instances in one model; gated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mfpo.preferences.regions.base import RegionOptions
from mfpo.preferences.regions.checkpoints import Checkpoint, checkpoints, fingerprint, in_batches, place
from mfpo.preferences.regions.instances import MAX_INSTANCES, resized_masks, to_region
from mfpo.preferences.regions.sam2 import SquareInput
from mfpo.records import Region

DEFAULT = Checkpoint("facebook/sam3", gate="https://huggingface.co/facebook/sam3")
SCORE_THRESHOLD = 0.5
"""As in the authors' code."""
MASK_THRESHOLD = 0.5
_HALF = (0.5, 0.5, 0.5)


class Sam3:
    """Masks of all instances of each keyword; the image is encoded once.

    Args:
        options: Checkpoint, device, type, ``box_threshold`` (of an instance's score) and ``mask_threshold``.

    Raises:
        UserError: The checkpoint cannot be loaded.
    """

    def __init__(self, options: RegionOptions) -> None:
        from transformers import AutoTokenizer, Sam3Model

        (checkpoint,) = checkpoints(options, DEFAULT)
        self._place = place(options)
        self._scores = SCORE_THRESHOLD if options.box_threshold is None else options.box_threshold
        self._masks = MASK_THRESHOLD if options.mask_threshold is None else options.mask_threshold
        self._model = checkpoint.model(Sam3Model, self._place.device, self._place.dtype)
        self._input = SquareInput(checkpoint.settings(), self._place, side=1008, mean=_HALF, std=_HALF)
        self._tokenizer = checkpoint.load(AutoTokenizer)
        self.fingerprint = fingerprint(
            "sam3",
            1,
            self._place,
            {"model": checkpoint.identity(self._model)},
            score_threshold=self._scores,
            mask_threshold=self._masks,
        )

    @torch.inference_mode()
    def segment(
        self, image: Image.Image, keywords: Sequence[str], *, name: str | None = None
    ) -> list[Region]:
        """See [`mfpo.preferences.regions.base.RegionBackend`]."""
        vision = self._model.get_vision_features(self._input(image))
        size = image.height, image.width
        found = in_batches(list(keywords), self._place.queries, lambda batch: self._find(vision, batch))
        return [
            region
            for keyword, out in zip(keywords, found, strict=True)
            for region in decode_instances(
                keyword, *out, size=size, score_threshold=self._scores, mask_threshold=self._masks
            )
        ]

    def _find(self, vision: Any, keywords: list[str]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Instance logits ``[q]``, presence logit ``[1]`` and mask logits ``[q, h, w]`` of each keyword."""
        text = self._tokenizer(
            list(keywords),
            padding="max_length",
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self._place.device)
        count = len(keywords)
        many = replace(
            vision,
            fpn_hidden_states=_repeated(vision.fpn_hidden_states, count),
            fpn_position_encoding=_repeated(vision.fpn_position_encoding, count),
        )
        out = self._model(
            vision_embeds=many, input_ids=text["input_ids"], attention_mask=text["attention_mask"]
        )
        return list(zip(out.pred_logits, out.presence_logits, out.pred_masks, strict=True))


def decode_instances(
    keyword: str,
    logits: Tensor,
    presence: Tensor,
    masks: Tensor,
    *,
    size: tuple[int, int],
    score_threshold: float,
    mask_threshold: float,
) -> list[Region]:
    """The instances of one keyword, the surest first.

    Args:
        keyword: The keyword.
        logits: ``[q]``, of each query being an instance if the picture has one at all.
        presence: ``[1]``, logit of the picture having one.
        masks: ``[q, h, w]`` logits.
        size: (height, width) of the picture.
        score_threshold: An instance counts if its score, the product of both probabilities, is higher.
        mask_threshold: Probability from which a pixel belongs to a mask.
    """
    scores = (logits.float().sigmoid() * presence.float().sigmoid()).cpu()
    order = torch.argsort(-scores, stable=True)
    kept = order[scores[order] > score_threshold][:MAX_INSTANCES]
    resized = resized_masks(masks[kept.to(masks.device)], size, mask_threshold)
    regions = [
        to_region(keyword, mask, float(score)) for mask, score in zip(resized, scores[kept], strict=True)
    ]
    return [region for region in regions if region is not None]


def _repeated(tensors: Sequence[Tensor], count: int) -> tuple[Tensor, ...]:
    return tuple(tensor.expand(count, *tensor.shape[1:]) for tensor in tensors)
