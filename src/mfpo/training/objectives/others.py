"""Objectives with terms of their own: HALVA, POVID, selective EOS supervision."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

from mfpo.models.logprobs import IGNORE
from mfpo.training.objectives.dense import sequence_kl
from mfpo.training.objectives.preference import implicit_rewards, pair_loss
from mfpo.training.objectives.records import (
    Answers,
    BySequence,
    ObjectiveOutput,
    SequenceLogps,
    Settings,
    require,
)


def segment_sums(tokens: Tensor, segments: Tensor, count: int) -> Tensor:
    """Sum of log-probabilities over each changed segment, ``[B, count]``; 0 for a segment that is empty.

    Args:
        tokens: Log-probability of each token, ``[B, R]``.
        segments: Number of each token's changed segment, 1 to ``count``; 0 for none, ``[B, R]``.
        count: Number of segments.
    """
    sums = tokens.new_zeros(len(tokens), count + 1).scatter_add(1, segments, tokens)
    return sums[:, 1:]


def halva_loss(
    policy: SequenceLogps, reference: SequenceLogps | None, answers: Answers, settings: Settings
) -> ObjectiveOutput:
    """HALVA, data-augmented phrase-level alignment (Sarkar et al. 2024, arXiv 2405.18654).

    L = mean over phrase pairs of -log(pi(c) / (pi(c) + pi(h))) + alpha KL(pi_ref || pi)

    where pi(c) and pi(h) are the probabilities of a correct phrase and of the hallucinated phrase in its
    place, each given its own answer up to there, and the divergence is over the whole vocabulary, summed over
    an answer's tokens. alpha is ``kl_weight``; the paper takes 0.4 for LLaVA-1.5 7B.

    The paper's phrases come from its own augmentation; here they are the changed segments of the two answers
    that are empty in neither. A row without any contributes its divergence alone. The paper takes the
    divergence on separate instruction data; a preference dataset has none, so it is taken on the chosen
    answers.
    """
    segments = answers.segments
    if policy.tokens is None or policy.logits is None or reference is None or reference.logits is None:
        raise ValueError("the objective needs the whole predicted distributions of policy and reference")
    if segments is None or segments.rejected is None or policy.tokens.rejected is None:
        raise ValueError("the objective needs the changed segments of both answers")
    count = int(torch.maximum(segments.chosen.max(), segments.rejected.max()))
    right = segment_sums(policy.tokens.chosen, segments.chosen, count)
    wrong = segment_sums(policy.tokens.rejected, segments.rejected, count)
    numbers = torch.arange(1, count + 1, device=right.device)
    paired = torch.stack(
        [(side.unsqueeze(-1) == numbers).any(1) for side in (segments.chosen, segments.rejected)]
    ).all(0)
    losses = F.softplus(wrong - right).masked_fill(~paired, 0.0)
    phrase = losses.sum(-1) / paired.sum(-1).clamp(min=1)
    kl = sequence_kl(policy.logits.chosen, reference.logits.chosen, answers.mask.chosen)
    loss = settings.weights.text * phrase + settings.options.kl_weight * kl
    rewards = implicit_rewards(policy, reference, answers, settings).map(Tensor.detach)
    return ObjectiveOutput(loss, {"phrase": phrase, "kl": kl}, rewards)


def halva_at_start(settings: Settings) -> dict[str, float | None]:
    """The phrase term depends on the data, the divergence is 0."""
    return {"phrase": None, "kl": 0.0}


def povid_loss(
    policy: SequenceLogps, reference: SequenceLogps | None, answers: Answers, settings: Settings
) -> ObjectiveOutput:
    """POVID, second stage: a rejected answer, and what the model itself says of a noised picture.

    L = w_text -logsigmoid(beta d_w - beta d_l) + w_image -logsigmoid(beta d_w - beta d_n)

    y_n is, at every position, the token that the policy finds most likely with the picture noised and y_w
    as it stands before that position; d_n is the log-ratio of these tokens with the clean picture
    (Zhou et al. 2024, arXiv 2402.11411, with the weights 0.5 and 0.5 of the authors' code).
    Other than in that code, the reference scores the policy's tokens and not its own, so that d_n is a
    log-ratio of one sequence. No gradient flows through the choice of y_n.
    """
    if reference is None or policy.logits is None or reference.logits is None:
        raise ValueError("the objective needs the whole predicted distributions of policy and reference")
    weights, beta = settings.weights, settings.beta
    rewards = implicit_rewards(policy, reference, answers, settings)
    loss, inherent = torch.zeros_like(rewards.chosen), None
    terms: dict[str, Tensor] = {}
    if weights.text:
        rejected = require(rewards.rejected, "the rejected answer")
        terms["text"] = pair_loss("sigmoid", rewards.chosen - rejected, beta=beta)
        loss = loss + weights.text * terms["text"]
    if weights.image:
        noised = require(policy.logits.image_rejected, "the rejected image").detach()
        said, mask = noised.argmax(-1, keepdim=True), answers.mask.chosen
        policy_logps = _logps_of(policy.logits.chosen, said, mask)
        inherent = beta * (policy_logps - _logps_of(reference.logits.chosen, said, mask))
        terms["image"] = pair_loss("sigmoid", rewards.chosen - inherent, beta=beta)
        loss = loss + weights.image * terms["image"]
    shown = BySequence(rewards.chosen, rewards.rejected, inherent).map(Tensor.detach)
    return ObjectiveOutput(loss, terms, shown)


def _logps_of(logits: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
    """Log-probability ``[B]`` of tokens ``[B, T, 1]``, summed where the mask ``[B, T]`` is set."""
    logps = logits.float().log_softmax(-1).gather(-1, tokens).squeeze(-1)
    return logps.masked_fill(~mask, 0.0).sum(-1)


def povid_at_start(settings: Settings) -> dict[str, float | None]:
    """Log 2 for both terms: all log-ratios are 0."""
    weights = {"text": settings.weights.text, "image": settings.weights.image}
    return {name: math.log(2) for name, weight in weights.items() if weight}


def selective_eos_loss(
    policy: SequenceLogps, reference: SequenceLogps | None, answers: Answers, settings: Settings
) -> ObjectiveOutput:
    """Selective EOS supervision of 'Less is More' (Yue et al. 2024, arXiv 2402.14545).

    Supervised training on the chosen answer in which positions that go on do not teach the model to go on:
    wherever the label is not EOS, EOS is left out of the softmax, so that its logit gets no gradient. Where
    the label is EOS, the loss is the usual one.

    The authors average over all tokens of a batch; here over the tokens of a row and then over rows.
    """
    if policy.logits is None:
        raise ValueError("the objective needs the whole predicted distribution of the policy")
    labels, mask = answers.labels.chosen, answers.mask.chosen
    logits = policy.logits.chosen.float()
    excluded = torch.zeros_like(logits, dtype=torch.bool)
    excluded[..., answers.eos_token_id] = labels != answers.eos_token_id
    nll = F.cross_entropy(
        logits.masked_fill(excluded, -torch.inf).flatten(0, 1),
        labels.flatten(),
        ignore_index=IGNORE,
        reduction="none",
    )
    losses = nll.view_as(mask).sum(-1) / answers.lengths.chosen.clamp(min=1)
    return ObjectiveOutput(settings.weights.text * losses, {"selective_eos": losses})


def selective_eos_at_start(settings: Settings) -> dict[str, float | None]:
    """It depends on the data."""
    return {"selective_eos": None}
