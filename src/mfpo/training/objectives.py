"""The objectives: pure functions of log-probabilities, in one table (paper 3.2, equations 5 to 7).

With d = log pi(y | t, m) - log pi_ref(y | t, m), the log-ratio of a sequence, and beta d its implicit reward
(equation 3 without the partition function, which cancels or is constant):

    L_text   = -logsigmoid(beta d_w - beta d_l)      (5)   y_w before y_l, given the image m
    L_image  = -logsigmoid(beta d_w - beta d_w')     (6)   m before the rejected image m', given y_w
    L_margin = -logsigmoid(beta d_w - eta)           (7)   the chosen reward itself stays above eta

An algorithm is a choice of terms, weights and rejected image: a row of the table, never a trainer of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor
from torch.nn import functional as F

from mfpo.errors import UserError, nearest
from mfpo.records import Scope


@dataclass(frozen=True, slots=True)
class SequenceLogps:
    """Summed response log-probabilities of B rows under one model.

    Attributes:
        chosen: log pi(y_w | t, m), ``[B]``.
        rejected: log pi(y_l | t, m), ``[B]``.
        image_rejected: log pi(y_w | t, m'), ``[B]``; None when the objective has no image term.
    """

    chosen: Tensor
    rejected: Tensor
    image_rejected: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> SequenceLogps:
        """The same on a device."""
        image_rejected = self.image_rejected
        return SequenceLogps(
            self.chosen.to(device, non_blocking=non_blocking),
            self.rejected.to(device, non_blocking=non_blocking),
            None if image_rejected is None else image_rejected.to(device, non_blocking=non_blocking),
        )


@dataclass(frozen=True, slots=True)
class Weights:
    """Weights of the three terms; 0 switches a term off.

    Attributes:
        text: w_text of equation 5.
        image: w_image of equation 6.
        margin: w_margin of equation 7.
    """

    text: float
    image: float
    margin: float


@dataclass(frozen=True, slots=True)
class ObjectiveOutput:
    """Loss and rewards of B rows.

    Attributes:
        loss: Weighted sum of the terms, ``[B]``.
        terms: The terms by name (``text``, ``image``, ``margin``), unweighted, ``[B]`` each.
        rewards: Implicit rewards beta d of the sequences (``chosen``, ``rejected``, ``image_rejected``),
            detached, ``[B]`` each.
    """

    loss: Tensor
    terms: dict[str, Tensor]
    rewards: dict[str, Tensor]


def text_loss(chosen_rewards: Tensor, rejected_rewards: Tensor) -> Tensor:
    """Equation 5 from rewards beta d_w and beta d_l, ``[B]`` each."""
    return -F.logsigmoid(chosen_rewards - rejected_rewards)


def image_loss(chosen_rewards: Tensor, image_rejected_rewards: Tensor) -> Tensor:
    """Equation 6 from rewards beta d_w and beta d_w', ``[B]`` each."""
    return -F.logsigmoid(chosen_rewards - image_rejected_rewards)


def margin_loss(chosen_rewards: Tensor, eta: float) -> Tensor:
    """Equation 7 from rewards beta d_w ``[B]`` and the margin eta."""
    return -F.logsigmoid(chosen_rewards - eta)


def preference_loss(
    policy: SequenceLogps, reference: SequenceLogps, *, beta: float, eta: float, weights: Weights
) -> ObjectiveOutput:
    """L_total = w_text L_text + w_image L_image + w_margin L_margin; a term of weight 0 is left out.

    Args:
        policy: Log-probabilities under the model in training.
        reference: Log-probabilities under the frozen reference, without gradients.
        beta: Strength of the pull to the reference; scales log-ratios to rewards.
        eta: Margin of equation 7, in units of reward.
        weights: Weights of the terms.
    """
    chosen = beta * (policy.chosen - reference.chosen)
    rejected = beta * (policy.rejected - reference.rejected)
    rewards = {"chosen": chosen.detach(), "rejected": rejected.detach()}
    terms: dict[str, Tensor] = {}
    loss = chosen.new_zeros(chosen.shape)
    if weights.text:
        terms["text"] = text_loss(chosen, rejected)
        loss = loss + weights.text * terms["text"]
    if weights.image:
        if policy.image_rejected is None or reference.image_rejected is None:
            raise ValueError("the image term needs the log-probabilities with the rejected image")
        image_rejected = beta * (policy.image_rejected - reference.image_rejected)
        rewards["image_rejected"] = image_rejected.detach()
        terms["image"] = image_loss(chosen, image_rejected)
        loss = loss + weights.image * terms["image"]
    if weights.margin:
        terms["margin"] = margin_loss(chosen, eta)
        loss = loss + weights.margin * terms["margin"]
    return ObjectiveOutput(loss, terms, rewards)


def loss_at_start(weights: Weights, eta: float) -> float:
    """The loss while the policy is the reference and all rewards are 0.

    That is (w_text + w_image) log 2 + w_margin softplus(eta); 3 log 2 for ``mfpo`` by default.
    """
    softplus = max(eta, 0.0) + math.log1p(math.exp(-abs(eta)))
    return (weights.text + weights.image) * math.log(2) + weights.margin * softplus


@dataclass(frozen=True, slots=True)
class Objective:
    """A row of the table.

    Attributes:
        name: What ``--objective`` calls it.
        weights: Default weights; a term whose default is 0 is not part of the objective.
        noise_scope: Scope of the rejected image that belongs to the objective, whatever the row says; None
            keeps the row's.
        loss: The function of log-probabilities, with the signature of [`preference_loss`].
        at_start: Its value while the policy is the reference, as a function of weights and eta.
    """

    name: str
    weights: Weights
    noise_scope: Scope | None = None
    loss: Callable[..., ObjectiveOutput] = preference_loss
    at_start: Callable[[Weights, float], float] = loss_at_start

    def with_weights(
        self, text: float | None = None, image: float | None = None, margin: float | None = None
    ) -> Weights:
        """The objective's weights with the given ones in their place.

        Raises:
            UserError: A weight is negative, belongs to a term that the objective does not have, or all are 0.
        """
        given = {"text": text, "image": image, "margin": margin}
        merged = {}
        for term, weight in given.items():
            default: float = getattr(self.weights, term)
            if weight and not default:
                raise UserError(
                    f"objective {self.name!r} has no {term} term",
                    where=f"--{term}_weight {weight}",
                    fix="choose an objective that has it; `mfpo` has all three",
                )
            if weight is not None and weight < 0:
                raise UserError("a weight must not be negative", where=f"--{term}_weight {weight}")
            merged[term] = default if weight is None else float(weight)
        if not any(merged.values()):
            raise UserError(
                "all terms have weight 0, there is nothing to train", where=f"--objective {self.name}"
            )
        return Weights(**merged)


OBJECTIVES = MappingProxyType(
    {
        objective.name: objective
        for objective in (
            Objective("dpo", Weights(text=1.0, image=0.0, margin=0.0)),
            Objective("dpo+margin", Weights(text=1.0, image=0.0, margin=1.0)),
            Objective("mdpo", Weights(text=1.0, image=1.0, margin=1.0), noise_scope="crop"),
            Objective("mfpo", Weights(text=1.0, image=1.0, margin=1.0)),
        )
    }
)
"""Objectives by name; ``mdpo`` (Wang et al., 2024) is the loss of ``mfpo`` with a random crop as m'."""


def get_objective(name: str) -> Objective:
    """The objective of that name.

    Raises:
        UserError: There is none.
    """
    if name not in OBJECTIVES:
        raise UserError(f"unknown objective {name!r}", where="--objective", fix=nearest(name, OBJECTIVES))
    return OBJECTIVES[name]
