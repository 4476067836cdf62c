"""Log-probabilities and entropies of given responses, with logits computed at response positions only."""

from __future__ import annotations

import inspect
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfpo.models.vision import ImageEncoder, ImageInputs, unwrap

IGNORE = -100
"""Label of a position that holds no response token."""


@dataclass(slots=True)
class ResponseBatch:
    """S sequences of prompt and response, laid out so that every response starts at the same column P.

    Prompts are padded on the left to P columns, responses on the right to R: a row's response tokens are at
    ``[P, P + its length)``, and the logits that predict them at ``[P - 1, P + R - 1)`` for every row.

    Attributes:
        inputs: Text inputs of the forward pass, each int64 ``[S, P + R]``: ``input_ids``, ``attention_mask``
            and what else the processor makes (``position_ids``, ``mm_token_type_ids``).
        labels: Response tokens, int64 ``[S, R]``; ``IGNORE`` where there is none.
        images: The distinct image inputs.
        image_of: For every sequence, the index of its entry in ``images``.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    images: list[ImageInputs]
    image_of: list[int]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ResponseBatch:
        """The batch with its text on a device; pictures follow when they are encoded."""
        moved = {key: tensor.to(device, non_blocking=non_blocking) for key, tensor in self.inputs.items()}
        return ResponseBatch(
            moved, self.labels.to(device, non_blocking=non_blocking), self.images, self.image_of
        )


@dataclass(slots=True)
class ResponseScores:
    """What a model thinks of each response.

    Attributes:
        token_logps: Log-probability of each response token, float32 ``[S, R]``, 0 where ``mask`` is False.
        mask: Where a response has a token, bool ``[S, R]``.
        entropies: Entropy in nats of the whole predicted distribution at each response token, float32 ``[S,
            R]``, 0 where ``mask`` is False; None when not asked for.
        logits: Logits that predict each response token, ``[S, R, V]`` in the model's precision; None when not
            asked for.
    """

    token_logps: Tensor
    mask: Tensor
    entropies: Tensor | None = None
    logits: Tensor | None = None

    @property
    def logps(self) -> Tensor:
        """Sum log pi(y | x) of each response: the sum over its tokens, float32 ``[S]``."""
        return self.token_logps.sum(-1)

    def first(self, count: int) -> ResponseScores:
        """The scores of the first ``count`` responses."""
        entropies = None if self.entropies is None else self.entropies[:count]
        logits = None if self.logits is None else self.logits[:count]
        return ResponseScores(self.token_logps[:count], self.mask[:count], entropies, logits)


def score_responses(
    model: nn.Module,
    batch: ResponseBatch,
    images: ImageEncoder,
    *,
    entropies: bool = False,
    logits: bool = False,
) -> ResponseScores:
    """Score the responses of a batch.

    Args:
        model: The model, possibly in a PEFT or distributed wrapper.
        batch: Prompts and responses, on the model's device.
        images: Encoder of the same model's pictures.
        entropies: Whether the entropies are wanted too.
        logits: Whether the logits are wanted too, which take as much memory as the vocabulary is large.

    Returns:
        Scores that carry gradients if the model's parameters do and gradients are enabled.
    """
    R = batch.labels.shape[1]
    inputs = {**batch.inputs, **images(batch.images, batch.image_of), "use_cache": False}
    if "logits_to_keep" in inspect.signature(unwrap(model).forward).parameters:
        inputs["logits_to_keep"] = R + 1
    # The last logits predict what would follow; the cut also serves models that return logits of all tokens.
    logits_SRV = model(**inputs).logits[:, -(R + 1) : -1]
    scores = scores_from_logits(logits_SRV, batch.labels, entropies=entropies)
    if logits:
        scores.logits = logits_SRV
    return scores


def scores_from_logits(logits_SRV: Tensor, labels_SR: Tensor, *, entropies: bool = False) -> ResponseScores:
    """Log-probabilities of the labels, and entropies, computed in float32.

    Args:
        logits_SRV: Logits that predict each label, ``[S, R, V]``, any floating dtype.
        labels_SR: Token ids, ``IGNORE`` where there is none.
        entropies: Whether the entropies are wanted too; they carry no gradient.
    """
    mask = labels_SR != IGNORE
    nll = F.cross_entropy(
        logits_SRV.flatten(0, 1).float(), labels_SR.flatten(), ignore_index=IGNORE, reduction="none"
    )
    scores = ResponseScores(token_logps=-nll.view_as(mask), mask=mask)
    if entropies:
        with torch.no_grad():
            # One row at a time: the distribution over the vocabulary is the largest tensor of the pass.
            rows = [torch.special.entr(row.float().softmax(-1)).sum(-1) for row in logits_SRV]
            scores.entropies = torch.stack(rows).masked_fill(~mask, 0.0)
    return scores
