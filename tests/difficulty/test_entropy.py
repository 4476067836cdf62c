from __future__ import annotations

import math

import pytest
import torch

from mfpo.difficulty.entropy import paper_entropy, token_mean_entropy
from mfpo.models.logprobs import IGNORE, scores_from_logits


def scores(distributions, labels):
    logits = torch.tensor(distributions, dtype=torch.float64).log()
    return scores_from_logits(logits, torch.tensor(labels), entropies=True)


def test_estimators_by_hand():
    """Answer 1: tokens of probability 0.5 and 0.25 from (0.5, 0.25, 0.25) twice; answer 2: one token of 0.8
    from (0.1, 0.1, 0.8), then padding.

    paper:      0.5 log 2 + 0.25 log 4 = log 2;      0.8 log 1.25
    token-mean: 0.5 log 2 + 2 * 0.25 log 4 = 1.5 log 2;  0.2 log 10 + 0.8 log 1.25
    """
    made = scores(
        [[[0.5, 0.25, 0.25], [0.5, 0.25, 0.25]], [[0.1, 0.1, 0.8], [1 / 3, 1 / 3, 1 / 3]]],
        [[0, 2], [2, IGNORE]],
    )
    assert paper_entropy(made).tolist() == pytest.approx([math.log(2), 0.8 * math.log(1.25)], abs=1e-6)
    assert token_mean_entropy(made).tolist() == pytest.approx(
        [1.5 * math.log(2), 0.2 * math.log(10) + 0.8 * math.log(1.25)], abs=1e-6
    )


def test_paper_estimator_is_largest_at_one_over_e_and_grows_with_length():
    def paper(*probabilities: float) -> float:
        return paper_entropy(scores([[[p, 1 - p] for p in probabilities]], [[0] * len(probabilities)])).item()

    assert paper(math.exp(-1)) == pytest.approx(math.exp(-1), abs=1e-6)
    assert max(paper(0.001), paper(0.999)) < paper(math.exp(-1))
    assert paper(0.5, 0.5) == pytest.approx(2 * paper(0.5))


def test_token_mean_is_free_of_length():
    short = scores([[[0.5, 0.5]]], [[0]])
    long = scores([[[0.5, 0.5]] * 7], [[0, 1, 1, 0, 1, 0, 0]])
    assert token_mean_entropy(short).item() == pytest.approx(token_mean_entropy(long).item())
    assert token_mean_entropy(short).item() == pytest.approx(math.log(2))
