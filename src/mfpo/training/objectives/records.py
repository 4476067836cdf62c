"""What objectives are given, and what they give back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from mfpo.training.config import PairLoss

Detail: TypeAlias = Literal["none", "sequences", "tokens", "distributions"]
"""What is known of a model's answers: nothing, one number each, one a token, or all logits."""


@dataclass(frozen=True)
class BySequence:
    """One tensor for each kind of sequence of B rows.

    Attributes:
        chosen: Of (m, y_w), ``[B, ...]``.
        rejected: Of (m, y_l); None where the objective does without.
        image_rejected: Of (m', y_w); None where the objective does without.
    """

    chosen: Tensor
    rejected: Tensor | None = None
    image_rejected: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> BySequence:
        """The results of a function for each kind that is there."""
        return BySequence(
            function(self.chosen),
            None if self.rejected is None else function(self.rejected),
            None if self.image_rejected is None else function(self.image_rejected),
        )


@dataclass(frozen=True)
class SequenceLogps(BySequence):
    """Response log-probabilities of B rows under one model.

    Attributes:
        chosen: log pi(y_w | t, m), summed over the answer's tokens, ``[B]``.
        rejected: log pi(y_l | t, m), ``[B]``.
        image_rejected: log pi(y_w | t, m'), ``[B]``.
        tokens: The same token by token, ``[B, R]`` each and 0 beyond an answer's end; None unless asked for.
        logits: Logits over the vocabulary that predict each token, ``[B, R, V]`` each; None unless asked for.
    """

    tokens: BySequence | None = None
    logits: BySequence | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SequenceLogps:
        """The same on a device."""
        return self._with_all(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> SequenceLogps:
        """The same in memory that is copied to a GPU while other work goes on."""
        return self._with_all(Tensor.pin_memory)

    def _with_all(self, function: Callable[[Tensor], Tensor]) -> SequenceLogps:
        sums = self.map(function)
        tokens = None if self.tokens is None else self.tokens.map(function)
        logits = None if self.logits is None else self.logits.map(function)
        return SequenceLogps(sums.chosen, sums.rejected, sums.image_rejected, tokens, logits)


@dataclass(frozen=True)
class Answers:
    """The answers of B rows as tokens, for objectives that look at parts of them.

    Attributes:
        mask: Where an answer has a token, bool ``[B, R]`` each.
        labels: The tokens, int64 ``[B, R]`` each; -100 where there is none.
        segments: Number of the changed segment that a token belongs to, int64 ``[B, R]`` each; 0 for tokens
            that chosen and rejected answer share. Equal numbers stand at the same place of the two answers.
            None unless asked for.
        eos_token_id: The token that ends an answer.
    """

    mask: BySequence
    labels: BySequence
    segments: BySequence | None = None
    eos_token_id: int = -1

    @cached_property
    def lengths(self) -> BySequence:
        """Tokens of each answer, int64 ``[B]`` each."""
        return self.mask.map(lambda mask: mask.sum(-1))


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the terms; 0 switches a term off.

    Attributes:
        text: w_text of equation 5.
        image: w_image of equation 6.
        margin: w_margin of equation 7.
        sft: Weight of the mean negative log-probability of the chosen answer's tokens.
    """

    text: float
    image: float = 0.0
    margin: float = 0.0
    sft: float = 0.0

    def of(self, term: str) -> float:
        """Weight of a term by its name; 1 for a term that has none of its own."""
        return float(getattr(self, term, 1.0))


@dataclass(frozen=True, slots=True)
class Options:
    """What else shapes the terms; each objective takes some of them.

    Attributes:
        text_loss: Loss of the text term as a function of the difference of rewards.
        image_loss: Loss of the image term.
        label_smoothing: Assumed share of rows whose preference is the wrong way round, 0 to below 0.5.
        length_normalization: Whether log-probabilities are divided by the number of the answer's tokens.
        reference_free: Whether rewards are beta log pi, without a reference.
        target_margin: What the difference of rewards of the text term is to exceed (gamma of SimPO).
        segment_weight: Weight of a token in a changed segment, where others have 1.
        kl_weight: Weight of the divergence from the reference.
    """

    text_loss: PairLoss = "sigmoid"
    image_loss: PairLoss = "sigmoid"
    label_smoothing: float = 0.0
    length_normalization: bool = False
    reference_free: bool = False
    target_margin: float = 0.0
    segment_weight: float = 1.0
    kl_weight: float = 0.0


PLAIN = Options()


@dataclass(frozen=True, slots=True)
class Settings:
    """All numbers of an objective.

    Attributes:
        weights: Weights of the terms.
        beta: Strength of the pull to the reference; scales log-ratios to rewards.
        eta: Margin of equation 7, in units of reward.
        options: What else shapes the terms.
    """

    weights: Weights
    beta: float = 0.1
    eta: float = 0.0
    options: Options = PLAIN


@dataclass(frozen=True, slots=True)
class ObjectiveOutput:
    """Loss and rewards of B rows.

    Attributes:
        loss: Weighted sum of the terms, ``[B]``.
        terms: The terms by name (``text``, ``image``, ``margin``, ...), unweighted, ``[B]`` each.
        rewards: Implicit rewards beta d of the sequences, detached, ``[B]`` each; None where there is no
            reference to measure them against and the objective defines none.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    rewards: BySequence | None = None


def require(tensor: Tensor | None, what: str) -> Tensor:
    """A tensor that the caller must have provided.

    Raises:
        ValueError: It is missing.
    """
    if tensor is None:
        raise ValueError(f"the objective needs {what}")
    return tensor
