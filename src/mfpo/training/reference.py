"""Reference log-probabilities: stored beforehand, with the adapter switched off, or by a frozen copy."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import nn

from mfpo.errors import UserError
from mfpo.models.logprobs import score_responses
from mfpo.models.vision import ImageEncoder
from mfpo.training.batching import TrainingBatch
from mfpo.training.config import ReferenceKind
from mfpo.training.objectives import SequenceLogps

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Reference(Protocol):
    """Gives the reference log-probabilities of a batch, without gradients."""

    def __call__(self, batch: TrainingBatch) -> SequenceLogps:
        """Log-probabilities of the batch's sequences, float32 ``[B]`` each."""


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
    """

    def __init__(self, model: Any, images: ImageEncoder) -> None:
        self.model, self.images = model, images

    @torch.no_grad()
    def __call__(self, batch: TrainingBatch) -> SequenceLogps:
        """Log-probabilities of the batch's sequences, float32 ``[B]`` each."""
        with self.model.disable_adapter():
            return batch.split(score_responses(self.model, batch.responses, self.images).logps)


class CopyReference:
    """A frozen copy of the initial model.

    Args:
        model: The initial model.
        share: See [`ImageEncoder`].
    """

    def __init__(self, model: nn.Module, *, share: bool = True) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.images = ImageEncoder(self.model, share=share)

    @torch.no_grad()
    def __call__(self, batch: TrainingBatch) -> SequenceLogps:
        """Log-probabilities of the batch's sequences, float32 ``[B]`` each."""
        return batch.split(score_responses(self.model, batch.responses, self.images).logps)


def make_reference(
    kind: ReferenceKind, initial: PreTrainedModel, model: PreTrainedModel, images: ImageEncoder
) -> Reference:
    """The reference of that kind.

    Args:
        kind: ``precomputed``, ``adapter`` or ``copy``.
        initial: The model before training; its weights are copied for ``copy``.
        model: The model in training, which wraps ``initial`` when it has an adapter.
        images: Encoder of the pictures of the model in training.

    Raises:
        UserError: ``adapter`` for a model that has none.
    """
    if kind == "precomputed":
        return PrecomputedReference()
    if kind == "copy":
        return CopyReference(initial, share=images.shares)
    if not hasattr(model, "disable_adapter"):
        raise UserError(
            "the model has no adapter to switch off",
            where="--reference adapter",
            fix="add --use_lora, or use --reference precomputed",
        )
    return AdapterReference(model, images)
