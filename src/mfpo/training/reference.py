"""Reference log-probabilities: stored beforehand, with the adapter switched off, or by a frozen copy."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from mfpo.errors import UserError
from mfpo.models.logprobs import score_responses
from mfpo.models.vision import CACHE_BYTES, ImageEncoder
from mfpo.training.batching import TrainingBatch
from mfpo.training.config import ReferenceKind
from mfpo.training.objectives import SequenceLogps
from mfpo.training.objectives.records import Detail

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Reference(Protocol):
    """Gives the reference log-probabilities of a batch, without gradients."""

    def __call__(self, batch: TrainingBatch) -> SequenceLogps | None:
        """Log-probabilities of the batch's sequences, float32 ``[B]`` each; None if there is no reference."""


class NoReference:
    """For objectives that need none."""

    def __call__(self, batch: TrainingBatch) -> SequenceLogps | None:
        """None."""
        return None


class PrecomputedReference:
    """What the reference pass stored, which the batch carries."""

    def __call__(self, batch: TrainingBatch) -> SequenceLogps:
        """Log-probabilities of the batch's sequences, float32 ``[B]`` each."""
        assert batch.reference is not None
        return batch.reference


class AdapterReference:
    """The model in training with its adapter switched off.

    Args:
        model: The PEFT model.
        images: Encoder of the model's pictures.
        logits: Whether the objective needs the whole predicted distributions.
    """

    def __init__(self, model: Any, images: ImageEncoder, *, logits: bool = False) -> None:
        self.model, self.images, self.logits = model, images, logits

    @torch.no_grad()
    def __call__(self, batch: TrainingBatch) -> SequenceLogps:
        """Log-probabilities of the batch's sequences, float32 ``[B]`` each."""
        with self.model.disable_adapter():
            return batch.split(score_responses(self.model, batch.responses, self.images, logits=self.logits))


class CopyReference:
    """A frozen copy of the initial model.

    Args:
        model: The initial model.
        cache_bytes: See [`ImageEncoder`].
        share: See [`ImageEncoder`].
        logits: Whether the objective needs the whole predicted distributions.
    """

    def __init__(
        self, model: nn.Module, *, cache_bytes: int = CACHE_BYTES, share: bool = True, logits: bool = False
    ) -> None:
        self.logits = logits
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.images = ImageEncoder(self.model, cache_bytes=cache_bytes, share=share)

    @torch.no_grad()
    def __call__(self, batch: TrainingBatch) -> SequenceLogps:
        """Log-probabilities of the batch's sequences, float32 ``[B]`` each."""
        return batch.split(score_responses(self.model, batch.responses, self.images, logits=self.logits))


def make_reference(
    kind: ReferenceKind,
    initial: PreTrainedModel,
    model: PreTrainedModel,
    images: ImageEncoder,
    *,
    detail: Detail = "sequences",
) -> Reference:
    """The reference of that kind.

    Args:
        kind: ``precomputed``, ``adapter`` or ``copy``.
        initial: The model before training; its weights are copied for ``copy``.
        model: The model in training, which wraps ``initial`` when it has an adapter.
        images: Encoder of the pictures of the model in training.
        detail: What the objective needs to know of the reference.

    Raises:
        UserError: ``adapter`` for a model that has none, or ``precomputed`` for an objective that needs more
            than can be stored.
    """
    if detail == "none":
        return NoReference()
    logits = detail == "distributions"
    if kind == "precomputed":
        if logits:
            raise UserError(
                "the objective compares the whole predicted distributions of model and reference, which are"
                " too large to be stored",
                where="--reference precomputed",
                fix="use --reference adapter together with --use_lora, or --reference copy",
            )
        return PrecomputedReference()
    if kind == "copy":
        return CopyReference(initial, cache_bytes=images.cache_bytes, share=images.shares, logits=logits)
    if not hasattr(model, "disable_adapter"):
        raise UserError(
            "the model has no adapter to switch off",
            where="--reference adapter",
            fix="add --use_lora, or use --reference precomputed",
        )
    return AdapterReference(model, images, logits=logits)
