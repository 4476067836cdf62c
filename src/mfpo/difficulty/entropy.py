"""How uncertain the model is about an answer (paper 3.3, "Entropy Calculation")."""

from __future__ import annotations

from torch import Tensor

from mfpo.models.logprobs import ResponseScores


def paper_entropy(scores: ResponseScores) -> Tensor:
    """H = -sum_i p_i log p_i over the probabilities p_i of the answer's own tokens, as the paper prints it.

    It grows with the answer's length, and it is not monotone in p: a token of probability near 0 adds as
    little as one near 1, and 1/e adds most.

    Args:
        scores: Scores of B answers.

    Returns:
        Nats, float64 ``[B]``, at least 0.
    """
    logps = scores.token_logps.detach().double()
    return -(logps.exp() * logps).masked_fill(~scores.mask, 0.0).sum(-1)


def token_mean_entropy(scores: ResponseScores) -> Tensor:
    """Mean over the answer's tokens of the entropy of the whole predicted distribution; free of length.

    Args:
        scores: Scores of B answers, entropies included; each answer has a token at least.

    Returns:
        Nats, float64 ``[B]``, between 0 and the logarithm of the vocabulary's size.
    """
    assert scores.entropies is not None
    return scores.entropies.double().masked_fill(~scores.mask, 0.0).sum(-1) / scores.mask.sum(-1)
