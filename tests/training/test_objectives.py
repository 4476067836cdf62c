from __future__ import annotations

import math

import pytest
import torch

from mfpo.errors import UserError
from mfpo.training.objectives import OBJECTIVES, SequenceLogps, Weights, get_objective, preference_loss

LOG2 = math.log(2)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


def logps(chosen: float, rejected: float, image_rejected: float, *, grad: bool = False) -> SequenceLogps:
    return SequenceLogps(
        *(
            torch.tensor([v], dtype=torch.float64, requires_grad=grad)
            for v in (chosen, rejected, image_rejected)
        )
    )


REFERENCE = (-10.0, -12.0, -11.0)
POLICY = (-8.0, -13.0, -10.0)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dpo", softplus(-0.3)),
        ("dpo+margin", softplus(-0.3) + softplus(0.3)),
        ("mdpo", softplus(-0.3) + softplus(-0.1) + softplus(0.3)),
        ("mfpo", softplus(-0.3) + softplus(-0.1) + softplus(0.3)),
    ],
)
def test_values_by_hand(name, expected):
    """With beta = 0.1, eta = 0.5 and log-ratios d_w = -8 + 10 = 2, d_l = -13 + 12 = -1, d_w' = -10 + 11 = 1:

    rewards 0.2, -0.1, 0.1, so -logsigmoid(0.2 + 0.1) = softplus(-0.3), -logsigmoid(0.2 - 0.1) =
    softplus(-0.1) and -logsigmoid(0.2 - 0.5) = softplus(0.3).
    """
    objective = get_objective(name)
    out = objective.loss(logps(*POLICY), logps(*REFERENCE), beta=0.1, eta=0.5, weights=objective.weights)
    assert out.loss.shape == (1,)
    assert out.loss.item() == pytest.approx(expected, abs=1e-12)
    assert out.rewards["chosen"].item() == pytest.approx(0.2)
    assert out.rewards["rejected"].item() == pytest.approx(-0.1)
    if objective.weights.image:
        assert out.rewards["image_rejected"].item() == pytest.approx(0.1)


def test_gradients_by_hand():
    """d/dx of -logsigmoid(x) is -sigmoid(-x). With weights 2, 3, 5 and the arguments 0.3, 0.1, -0.3 of above:

    dL/d logp_w  = -0.1 (2 sigmoid(-0.3) + 3 sigmoid(-0.1) + 5 sigmoid(0.3))
    dL/d logp_l  = +0.1 * 2 sigmoid(-0.3)
    dL/d logp_w' = +0.1 * 3 sigmoid(-0.1)
    """
    policy = logps(*POLICY, grad=True)
    out = preference_loss(policy, logps(*REFERENCE), beta=0.1, eta=0.5, weights=Weights(2.0, 3.0, 5.0))
    out.loss.sum().backward()
    assert policy.chosen.grad.item() == pytest.approx(
        -0.1 * (2 * sigmoid(-0.3) + 3 * sigmoid(-0.1) + 5 * sigmoid(0.3)), abs=1e-12
    )
    assert policy.rejected.grad.item() == pytest.approx(0.2 * sigmoid(-0.3), abs=1e-12)
    assert policy.image_rejected.grad.item() == pytest.approx(0.3 * sigmoid(-0.1), abs=1e-12)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("eta", [0.0, 0.4, -1.0])
def test_value_while_policy_is_reference(name, eta):
    objective = OBJECTIVES[name]
    weights = objective.with_weights(text=0.5, margin=3.0 if objective.weights.margin else None)
    out = objective.loss(logps(*POLICY), logps(*POLICY), beta=0.1, eta=eta, weights=weights)
    assert out.loss.item() == pytest.approx(objective.at_start(weights, eta), abs=1e-12)


def test_the_papers_loss_starts_at_three_log_two():
    assert OBJECTIVES["mfpo"].at_start(OBJECTIVES["mfpo"].weights, 0.0) == pytest.approx(3 * LOG2)
    assert OBJECTIVES["dpo"].at_start(OBJECTIVES["dpo"].weights, 0.0) == pytest.approx(LOG2)


def test_rows_do_not_mix():
    both = SequenceLogps(torch.tensor([-8.0, -3.0]), torch.tensor([-13.0, -1.0]), torch.tensor([-10.0, -2.0]))
    zero = SequenceLogps(*(torch.zeros(2) for _ in range(3)))
    weights = Weights(1.0, 1.0, 1.0)
    together = preference_loss(both, zero, beta=0.1, eta=0.0, weights=weights).loss
    for row in range(2):
        one = SequenceLogps(*(t[row : row + 1] for t in (both.chosen, both.rejected, both.image_rejected)))
        none = SequenceLogps(*(torch.zeros(1) for _ in range(3)))
        assert together[row] == preference_loss(one, none, beta=0.1, eta=0.0, weights=weights).loss[0]


def test_a_term_of_weight_zero_needs_no_sequence():
    policy = SequenceLogps(torch.tensor([-1.0]), torch.tensor([-2.0]))
    out = preference_loss(policy, policy, beta=0.1, eta=0.0, weights=Weights(1.0, 0.0, 1.0))
    assert set(out.terms) == {"text", "margin"} and "image_rejected" not in out.rewards


def test_extreme_rewards_stay_finite():
    out = preference_loss(
        logps(-1e4, 1e4, 1e4, grad=True), logps(0, 0, 0), beta=1.0, eta=0.0, weights=Weights(1.0, 1.0, 1.0)
    )
    assert torch.isfinite(out.loss).all()


def test_mdpo_is_mfpo_with_a_cropped_image():
    assert OBJECTIVES["mdpo"].weights == OBJECTIVES["mfpo"].weights
    assert OBJECTIVES["mdpo"].loss is OBJECTIVES["mfpo"].loss
    assert (OBJECTIVES["mdpo"].noise_scope, OBJECTIVES["mfpo"].noise_scope) == ("crop", None)


def test_user_mistakes():
    with pytest.raises(UserError, match="did you mean 'mfpo'"):
        get_objective("mfpoo")
    with pytest.raises(UserError, match="no image term"):
        get_objective("dpo").with_weights(image=1.0)
    with pytest.raises(UserError, match="negative"):
        get_objective("mfpo").with_weights(text=-1.0)
    with pytest.raises(UserError, match="nothing to train"):
        get_objective("dpo").with_weights(text=0.0)
