"""Small hand-made inputs of objectives, in double precision."""

from __future__ import annotations

import torch

from mfpo.training.objectives import Answers, BySequence, Options, SequenceLogps, Settings, Weights

F64 = torch.float64


def logps(chosen, rejected=None, image_rejected=None, *, grad=False) -> SequenceLogps:
    """One row by its three sums."""
    return SequenceLogps(
        *(
            None if value is None else torch.tensor([value], dtype=F64, requires_grad=grad)
            for value in (chosen, rejected, image_rejected)
        )
    )


def by_tokens(chosen, rejected, image_rejected=None, *, grad=False) -> SequenceLogps:
    """One row token by token."""
    rows = [
        None if row is None else torch.tensor([row], dtype=F64, requires_grad=grad)
        for row in (chosen, rejected, image_rejected)
    ]
    tokens = BySequence(*rows)
    sums = tokens.map(lambda row: row.sum(-1))
    return SequenceLogps(sums.chosen, sums.rejected, sums.image_rejected, tokens)


def answers(lengths=(4, 4), segments=None, labels=None, eos=-1) -> Answers:
    """One row of a chosen and a rejected answer, padded to the longer one; m' has the chosen answer."""
    longest = max(lengths)
    masks = [torch.arange(longest)[None] < length for length in lengths]
    numbers = None
    if segments is not None:
        numbers = [torch.tensor([row]) for row in segments]
        numbers = BySequence(numbers[0], numbers[1], numbers[0])
    mask = BySequence(masks[0], masks[1], masks[0])
    tokens = mask.map(lambda row: torch.where(row, 5, -100)) if labels is None else labels
    return Answers(mask, tokens, numbers, eos)


def settings(text=1.0, image=0.0, margin=0.0, sft=0.0, *, beta=0.1, eta=0.0, **options) -> Settings:
    return Settings(Weights(text, image, margin, sft), beta, eta, Options(**options))


def from_logits(labels: BySequence, logits: BySequence) -> SequenceLogps:
    """What a model with these logits says of the labels."""

    def tokens(kind: str) -> torch.Tensor | None:
        values, wanted = getattr(logits, kind), getattr(labels, kind)
        if values is None or wanted is None:
            return None
        picked = values.log_softmax(-1).gather(-1, wanted.clamp(min=0)[..., None])[..., 0]
        return picked.masked_fill(wanted < 0, 0.0)

    parts = BySequence(*(tokens(kind) for kind in ("chosen", "rejected", "image_rejected")))
    sums = parts.map(lambda row: row.sum(-1))
    return SequenceLogps(sums.chosen, sums.rejected, sums.image_rejected, parts, logits)
