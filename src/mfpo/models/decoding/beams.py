"""Beam search, one token at a time, over scores that the caller makes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A finished answer.

    Attributes:
        tokens: Its tokens ``[T]``, the end token left out.
        score: Sum of its log-probabilities over the number of tokens, the end token included.
    """

    tokens: Tensor
    score: float


@dataclass(frozen=True, slots=True)
class Beams:
    """K unfinished answers of the same length, and up to K finished ones.

    Attributes:
        tokens: Tokens of the unfinished answers, ``[K, T]``.
        scores: Sums of their log-probabilities, ``[K]``.
        finished: The best finished answers so far.
        done: Whether no unfinished answer can become better than the finished ones.
    """

    tokens: Tensor
    scores: Tensor
    finished: tuple[Hypothesis, ...] = ()
    done: bool = False

    @property
    def length(self) -> int:
        """Tokens of each unfinished answer."""
        return self.tokens.shape[1]


def first_beams(count: int, device: torch.device) -> Beams:
    """Empty answers; all but the first are out of the running, or all beams would grow alike."""
    scores_K = torch.full((count,), -1e9, device=device)
    scores_K[0] = 0.0
    return Beams(torch.zeros(count, 0, dtype=torch.long, device=device), scores_K)


def grow(beams: Beams, logits_KV: Tensor, ends: Tensor) -> tuple[Beams, Tensor, Tensor]:
    """Every beam longer by a token, as `transformers` does it with a length penalty of 1.

    Args:
        beams: The beams.
        logits_KV: Logits of the next token, at least 2 K of them above -inf.
        ends: Tokens that end an answer.

    Returns:
        The new beams; of each the old one it continues, ``[K]``; and its position in ``[K * V]``, ``[K]``.
    """
    count, vocab = logits_KV.shape
    totals = logits_KV.log_softmax(dim=-1) + beams.scores[:, None]
    values, positions = totals.flatten().topk((1 + len(ends)) * count)
    ended = torch.isin(positions % vocab, ends)
    finished = list(beams.finished)
    for rank in ended[:count].nonzero()[:, 0].tolist():
        tokens_T = beams.tokens[positions[rank] // vocab]
        finished.append(Hypothesis(tokens_T, values[rank].item() / (beams.length + 1)))
    finished = sorted(finished, key=lambda hypothesis: -hypothesis.score)[:count]
    going_on = (~ended).nonzero()[:count, 0]
    chosen_K = positions[going_on]
    parents_K = chosen_K // vocab
    tokens_KT = torch.cat([beams.tokens[parents_K], (chosen_K % vocab)[:, None]], dim=1)
    best = values[0].item() / (beams.length + 1)
    done = len(finished) == count and finished[-1].score >= best
    return Beams(tokens_KT, values[going_on], tuple(finished), done), parents_K, chosen_K


def best_answer(beams: Beams) -> Tensor:
    """Tokens ``[T]`` of the best answer, finished or cut."""
    cut = [] if beams.done else zip(beams.tokens, beams.scores.tolist(), strict=True)
    hypotheses = [*beams.finished, *(Hypothesis(tokens, score / beams.length) for tokens, score in cut)]
    return max(hypotheses, key=lambda hypothesis: hypothesis.score).tokens
