"""The backend ``clipseg`` (Lüddecke and Ecker 2022): text to mask in one small model, fit for a CPU."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from mfpo.preferences.regions.base import RegionOptions
from mfpo.preferences.regions.checkpoints import Checkpoint, checkpoints, fingerprint, in_batches, place
from mfpo.preferences.regions.instances import resized_masks, to_region
from mfpo.records import Region

DEFAULT = Checkpoint("CIDAS/clipseg-rd64-refined")
MASK_THRESHOLD = 0.4
"""Our choice: the authors give none for free text."""
PROMPT = "a photo of a {}"
"""First of the prompts that the model was trained with."""


class ClipSeg:
    """One mask a keyword, all its instances together; the image is encoded once.

    Args:
        options: Checkpoint, device, type and ``mask_threshold``.

    Raises:
        UserError: The checkpoint cannot be loaded.
    """

    def __init__(self, options: RegionOptions) -> None:
        from transformers import AutoTokenizer, CLIPSegForImageSegmentation
        from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

        (checkpoint,) = checkpoints(options, DEFAULT)
        self._place = place(options)
        self._threshold = MASK_THRESHOLD if options.mask_threshold is None else options.mask_threshold
        self._model = checkpoint.model(CLIPSegForImageSegmentation, self._place.device, self._place.dtype)
        self._images = checkpoint.load(ViTImageProcessorPil)
        self._tokenizer = checkpoint.load(AutoTokenizer)
        self.fingerprint = fingerprint(
            "clipseg",
            1,
            self._place,
            {"model": checkpoint.identity(self._model)},
            mask_threshold=self._threshold,
        )

    @torch.inference_mode()
    def segment(
        self, image: Image.Image, keywords: Sequence[str], *, name: str | None = None
    ) -> list[Region]:
        """See [`mfpo.preferences.regions.base.RegionBackend`]; scores are mean probabilities in the mask."""
        pixels = self._images(images=[image], return_tensors="pt")["pixel_values"]
        vision = self._model.clip.get_image_features(
            pixel_values=pixels.to(self._place.device, self._place.dtype),
            output_hidden_states=True,
            interpolate_pos_encoding=True,
        )
        layers = [vision.hidden_states[layer + 1] for layer in self._model.extract_layers]
        logits = in_batches(list(keywords), self._place.queries, lambda batch: self._logits(layers, batch))
        regions = [
            self._region(keyword, mask, (image.height, image.width))
            for keyword, mask in zip(keywords, logits, strict=True)
        ]
        return [region for region in regions if region is not None]

    def _logits(self, layers: Sequence[Tensor], keywords: list[str]) -> list[Tensor]:
        """Mask logits ``[side, side]`` of each keyword."""
        model: Any = self._model
        text = self._tokenizer(
            [PROMPT.format(keyword) for keyword in keywords],
            padding="max_length",
            truncation=True,
            max_length=model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self._place.device)
        embeddings = model.get_conditional_embeddings(
            len(keywords), input_ids=text["input_ids"], attention_mask=text["attention_mask"]
        )
        repeated = [layer.expand(len(keywords), -1, -1) for layer in layers]
        logits: Tensor = model.decoder(repeated, embeddings).logits
        return list(logits.reshape(len(keywords), *logits.shape[-2:]))

    def _region(self, keyword: str, logits: Tensor, size: tuple[int, int]) -> Region | None:
        mask = resized_masks(logits[None], size, self._threshold)[0]
        if not mask.any():
            return None
        inside = logits.float().sigmoid()
        chosen = inside[inside > self._threshold]
        score = float(chosen.mean()) if len(chosen) else self._threshold
        return to_region(keyword, mask, score)
