"""Objectives that weigh the tokens which differ between the two answers: RLHF-V's dense DPO, and CHiP."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mfpo.training.objectives.records import (
    Answers,
    BySequence,
    ObjectiveOutput,
    SequenceLogps,
    Settings,
    require,
)


def weighted_logps(
    tokens: Tensor, segments: Tensor, mask: Tensor, weight: float, *, normalise: bool
) -> Tensor:
    """Sum of log-probabilities in which tokens of changed segments count ``weight`` times.

    Args:
        tokens: Log-probability of each token, ``[B, R]``.
        segments: Number of each token's changed segment, 0 for none, ``[B, R]``.
        mask: Where there is a token, ``[B, R]``.
        weight: Weight of a token in a changed segment; others have 1.
        normalise: Whether to divide by the sum of the weights.

    Returns:
        ``[B]``.
    """
    weights = torch.where(segments > 0, weight, 1.0).to(tokens.dtype) * mask
    total = (tokens * weights).sum(-1)
    return total / weights.sum(-1).clamp(min=1e-9) if normalise else total


def dense_rewards(
    policy: SequenceLogps,
    reference: SequenceLogps | None,
    answers: Answers,
    settings: Settings,
    *,
    normalise: bool,
) -> BySequence:
    """Rewards beta d with d from [`weighted_logps`], ``[B]`` each."""
    segments = answers.segments
    if policy.tokens is None or reference is None or reference.tokens is None or segments is None:
        raise ValueError("the objective needs log-probabilities token by token, and the changed segments")
    ours, theirs = policy.tokens, reference.tokens

    def reward(kind: str) -> Tensor | None:
        if getattr(ours, kind) is None:
            return None
        ratios = getattr(ours, kind) - getattr(theirs, kind)
        return settings.beta * weighted_logps(
            ratios,
            getattr(segments, kind),
            getattr(answers.mask, kind),
            settings.options.segment_weight,
            normalise=normalise,
        )

    return BySequence(
        require(reward("chosen"), "the chosen answer"), reward("rejected"), reward("image_rejected")
    )


def ddpo_loss(
    policy: SequenceLogps, reference: SequenceLogps | None, answers: Answers, settings: Settings
) -> ObjectiveOutput:
    """Dense DPO of RLHF-V (Yu et al. 2023, arXiv 2312.00849).

    L = -logsigmoid(beta d_w - beta d_l), where the log-probability of an answer is

        log pi(y | x) = 1/N (sum of log p over unchanged tokens + gamma sum over corrected tokens)

    with N = |unchanged| + gamma |corrected|, so that long answers are not favoured. gamma is
    ``segment_weight``; the paper takes 5 and beta 0.5.
    """
    rewards = dense_rewards(policy, reference, answers, settings, normalise=True)
    text = -F.logsigmoid(rewards.chosen - require(rewards.rejected, "the rejected answer"))
    return ObjectiveOutput(settings.weights.text * text, {"text": text}, rewards.map(Tensor.detach))


def ddpo_at_start(settings: Settings) -> dict[str, float | None]:
    """Log 2: all log-ratios are 0."""
    return {"text": math.log(2)}


def sequence_kl(policy_logits: Tensor, reference_logits: Tensor, mask: Tensor) -> Tensor:
    """KL(pi_ref || pi) over the whole vocabulary, summed over an answer's tokens, ``[B]``; exact.

    Args:
        policy_logits: ``[B, R, V]``.
        reference_logits: ``[B, R, V]``.
        mask: Where there is a token, ``[B, R]``.
    """
    ours = policy_logits.float().log_softmax(-1)
    theirs = reference_logits.float().log_softmax(-1)
    divergence = F.kl_div(ours, theirs, reduction="none", log_target=True).sum(-1)
    return divergence.masked_fill(~mask, 0.0).sum(-1)


def chip_loss(
    policy: SequenceLogps, reference: SequenceLogps | None, answers: Answers, settings: Settings
) -> ObjectiveOutput:
    """CHiP, hierarchical preference on response, segment and token, with visual preference (Fu et al. 2025).

    L = -logsigmoid(beta (w_text (s_w - s_l) + w_image (s_w - s_w') - kappa (KL_l - sg(KL_w))))

    s is the log-ratio in which tokens of changed segments count ``segment_weight`` = 1 + lambda times, that
    is the response level plus lambda times the segment level; KL is the token level's sequential divergence
    KL(pi_ref || pi) over the whole vocabulary, kappa is ``kl_weight`` and sg stops the gradient. m' is the
    whole picture noised.

    arXiv 2501.16629 presents the levels one by one. How they are joined is taken from the authors' published
    code: one logsigmoid over the sum of the margins, lambda = 3 and kappa = 0.1 for LLaVA-1.6. Other than
    there, the reference's log-probability with the rejected image is weighted token by token like the
    others; their code multiplies its sum by the sum of the weights.
    """
    if reference is None or policy.logits is None or reference.logits is None:
        raise ValueError("the objective needs the whole predicted distributions of policy and reference")
    weights, options = settings.weights, settings.options
    rewards = dense_rewards(policy, reference, answers, settings, normalise=False)
    rejected = require(rewards.rejected, "the rejected answer")
    margin = weights.text * (rewards.chosen - rejected)
    if weights.image:
        margin = margin + weights.image * (
            rewards.chosen - require(rewards.image_rejected, "the rejected image")
        )
    kl = {
        kind: sequence_kl(
            require(getattr(policy.logits, kind), "logits"),
            require(getattr(reference.logits, kind), "logits"),
            require(getattr(answers.mask, kind), "a mask"),
        )
        for kind in ("chosen", "rejected")
    }
    token = settings.beta * options.kl_weight * (kl["rejected"] - kl["chosen"].detach())
    loss = -F.logsigmoid(margin - token)
    terms = {"preference": loss, "kl": kl["rejected"].detach()}
    return ObjectiveOutput(loss, terms, rewards.map(Tensor.detach))


def chip_at_start(settings: Settings) -> dict[str, float | None]:
    """Log 2: all log-ratios and divergences are 0."""
    return {"preference": math.log(2), "kl": 0.0}
