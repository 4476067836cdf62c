"""Visual contrastive decoding, VCD (Leng et al., 2024).

"Mitigating Object Hallucinations in Large Vision-Language Models through Visual Contrastive Decoding".
What the model would say of a noised image anyway is subtracted:

    contrasted = (1 + alpha) * logits(y | image) - alpha * logits(y | noised image)

among the tokens whose probability with the true image is at least beta times that of the likeliest. The
defaults are those of the paper and its code: alpha 1, beta 0.1, noise step 500 of the schedule ``vcd``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from transformers import LogitsProcessor

from mfpo.models.decoding.forward import CachedForward
from mfpo.models.generation import PromptBatch, plain_decoding

if TYPE_CHECKING:
    from PIL.Image import Image

    from mfpo.models.load import VLM

Distort: TypeAlias = Callable[["VLM", Sequence["Image"], Sequence[str]], Mapping[str, Tensor]]
"""(model, pictures, ids of their rows) -> the processor's output for distorted versions of the pictures."""


@dataclass(frozen=True, slots=True)
class ContrastiveDecoding:
    """A decoder that contrasts the image with a distorted one; a row takes two cached forward passes a step.

    Attributes:
        distort: Makes the distorted images.
        alpha: Strength of the contrast, at least 0; 0 is plain decoding among plausible tokens.
        beta: Plausibility bound, in [0, 1]; 1 keeps the likeliest token only.
    """

    distort: Distort
    alpha: float = 1.0
    beta: float = 0.1

    def __call__(self, vlm: VLM, batch: PromptBatch) -> Tensor:
        """Tokens ``[B, T]`` after the prompts."""
        distorted = self.distort(vlm, batch.images, batch.ids)
        inputs = dict(batch.inputs)
        for name, tensor in distorted.items():
            inputs[name] = tensor.to(inputs[name].device, inputs[name].dtype)
        contrast = Contrast(CachedForward(vlm.model, inputs), self.alpha, self.beta)
        return plain_decoding(vlm, batch, before=[contrast])


class Contrast(LogitsProcessor):
    """Turns logits into contrasted ones, following the distorted sequence with a cache of its own.

    Args:
        distorted: The same prompts with distorted images, before their first forward pass.
        alpha: See [`ContrastiveDecoding`].
        beta: See [`ContrastiveDecoding`].
    """

    def __init__(self, distorted: CachedForward, alpha: float, beta: float) -> None:
        self.distorted, self.alpha, self.beta = distorted, alpha, beta
        self.begun = False

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Contrasted scores ``[B, V]``."""
        logits_BV = self.distorted.step(input_ids[:, -1:]) if self.begun else self.distorted.prefill()
        self.begun = True
        found: Any = contrast(scores, logits_BV.to(scores.device), self.alpha, self.beta)
        return found


def contrast(logits_BV: Tensor, distorted_BV: Tensor, alpha: float, beta: float) -> Tensor:
    """The formulas above: contrasted logits, -inf where the token is not plausible.

    Args:
        logits_BV: Logits with the true image; -inf for tokens that are ruled out anyway.
        distorted_BV: Finite logits with the distorted image.
        alpha: Strength of the contrast.
        beta: Share of the largest probability that a plausible token has at least.
    """
    bound = math.log(beta) if beta > 0 else -math.inf
    implausible_BV = logits_BV < logits_BV.amax(dim=-1, keepdim=True) + bound
    contrasted_BV = (1 + alpha) * logits_BV - alpha * distorted_BV
    return contrasted_BV.masked_fill(implausible_BV, -torch.inf)
