"""Text, image and margin term (paper 3.2, equations 5 to 7) and the variants of their losses.

With d = log pi(y | t, m) - log pi_ref(y | t, m), the log-ratio of a sequence, and beta d its implicit reward
(equation 3 without the partition function, which cancels or is constant):

    L_text   = -logsigmoid(beta d_w - beta d_l)      (5)   y_w before y_l, given the image m
    L_image  = -logsigmoid(beta d_w - beta d_w')     (6)   m before the rejected image m', given y_w
    L_margin = -logsigmoid(beta d_w - eta)           (7)   the chosen reward itself stays above eta
"""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from mfpo.training.config import PairLoss
from mfpo.training.objectives.records import (
    Answers,
    BySequence,
    ObjectiveOutput,
    SequenceLogps,
    Settings,
    require,
)


def pair_loss(kind: PairLoss, difference: Tensor, *, beta: float, label_smoothing: float = 0.0) -> Tensor:
    """Loss of a preference as a function of x = r_preferred - r_other, the difference of two rewards.

    | kind | loss | source |
    |---|---|---|
    | sigmoid | -(1-e) logsigmoid(x) - e logsigmoid(-x) | DPO, equation 7; e > 0: conservative DPO |
    | robust | (-(1-e) logsigmoid(x) + e logsigmoid(-x)) / (1-2e) | Chowdhury et al. 2024 |
    | ipo | (x/beta - 1/(2 beta))^2 | Azar et al. 2023, equation 17; rewards per token |
    | hinge | max(0, 1 - x) | Zhao et al. 2023 (SLiC-HF), as applied to rewards by Liu et al. 2023 |

    Args:
        kind: Which loss.
        difference: x, ``[B]``.
        beta: Scale of the rewards; ``ipo`` takes log-ratios without it.
        label_smoothing: e, for ``sigmoid`` and ``robust``.
    """
    if kind == "ipo":
        return (difference / beta - 1 / (2 * beta)) ** 2
    if kind == "hinge":
        return F.relu(1 - difference)
    right, wrong = F.logsigmoid(difference), F.logsigmoid(-difference)
    if kind == "robust":
        return (-(1 - label_smoothing) * right + label_smoothing * wrong) / (1 - 2 * label_smoothing)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


def margin_loss(chosen_rewards: Tensor, eta: float) -> Tensor:
    """Equation 7 from rewards beta d_w ``[B]`` and the margin eta."""
    return -F.logsigmoid(chosen_rewards - eta)


def sft_loss(policy: SequenceLogps, answers: Answers) -> Tensor:
    """Mean negative log-probability of the chosen answer's tokens, ``[B]``."""
    return -policy.chosen / answers.lengths.chosen.clamp(min=1)


def implicit_rewards(
    policy: SequenceLogps,
    reference: SequenceLogps | None,
    answers: Answers,
    settings: Settings,
    *,
    per_token: bool | None = None,
) -> BySequence:
    """Rewards beta d of the sequences, ``[B]`` each, with gradients.

    Args:
        policy: Log-probabilities under the model in training.
        reference: Log-probabilities under the reference; None with ``reference_free``.
        answers: The answers, for their lengths.
        settings: For beta and the options.
        per_token: Whether to divide by the answers' lengths; as ``length_normalization`` says if None.
    """
    options = settings.options
    if per_token is None:
        per_token = options.length_normalization

    def reward(kind: str) -> Tensor | None:
        logps: Tensor | None = getattr(policy, kind)
        if logps is None:
            return None
        if not options.reference_free:
            logps = logps - require(getattr(reference, kind, None), f"reference log-probabilities ({kind})")
        if per_token:
            logps = logps / require(getattr(answers.lengths, kind), "lengths").clamp(min=1)
        return settings.beta * logps

    return BySequence(
        require(reward("chosen"), "the chosen answer"), reward("rejected"), reward("image_rejected")
    )


def preference_loss(
    policy: SequenceLogps, reference: SequenceLogps | None, answers: Answers, settings: Settings
) -> ObjectiveOutput:
    """L_total = w_text L_text + w_image L_image + w_margin L_margin; a term of weight 0 is left out.

    Args:
        policy: Log-probabilities under the model in training.
        reference: Log-probabilities under the frozen reference, without gradients.
        answers: The answers, for their lengths.
        settings: Weights, beta, eta and the losses of the terms.
    """
    weights, options, beta = settings.weights, settings.options, settings.beta
    rewards = implicit_rewards(policy, reference, answers, settings)

    def term(kind: PairLoss, other: str, margin: float = 0.0) -> Tensor:
        # IPO's published results are of log-ratios divided by length, so that its target is free of it.
        used = rewards
        if kind == "ipo" and not options.length_normalization:
            used = implicit_rewards(policy, reference, answers, settings, per_token=True)
        difference = used.chosen - require(getattr(used, other), f"log-probabilities ({other})") - margin
        return pair_loss(kind, difference, beta=beta, label_smoothing=options.label_smoothing)

    terms: dict[str, Tensor] = {}
    if weights.text:
        terms["text"] = term(options.text_loss, "rejected", options.target_margin)
    if weights.image:
        terms["image"] = term(options.image_loss, "image_rejected")
    if weights.margin:
        terms["margin"] = margin_loss(rewards.chosen, settings.eta)
    loss = rewards.chosen.new_zeros(rewards.chosen.shape)
    for name, value in terms.items():
        loss = loss + weights.of(name) * value
    return ObjectiveOutput(loss, terms, rewards.map(Tensor.detach))


def preference_at_start(settings: Settings) -> dict[str, float | None]:
    """Each term of [`preference_loss`] while policy and reference are the same and all rewards are 0.

    By default that is log 2 for the text and the image term and softplus(eta) for the margin term, 3 log 2
    together. Without a reference the values depend on the data.
    """
    weights, options = settings.weights, settings.options

    def pair(kind: PairLoss, margin: float) -> float:
        if kind == "ipo":
            return ((margin + 0.5) / settings.beta) ** 2
        if kind == "hinge":
            return max(0.0, 1 + margin)
        right, wrong, e = -softplus(margin), -softplus(-margin), options.label_smoothing
        if kind == "robust":
            return (-(1 - e) * right + e * wrong) / (1 - 2 * e)
        return -(1 - e) * right - e * wrong

    values: dict[str, float | None] = {}
    if weights.text:
        values["text"] = pair(options.text_loss, options.target_margin)
    if weights.image:
        values["image"] = pair(options.image_loss, 0.0)
    if weights.margin:
        values["margin"] = softplus(settings.eta)
    return dict.fromkeys(values) if options.reference_free else values


def softplus(x: float) -> float:
    """log(1 + exp(x)) = -logsigmoid(-x)."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))
