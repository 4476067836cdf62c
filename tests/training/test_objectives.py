from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from objectives_helpers import F64, answers, logps, settings

from mfpo.errors import UserError
from mfpo.training.objectives import (
    OBJECTIVES,
    Loss,
    Options,
    SequenceLogps,
    Weights,
    get_objective,
    preference_loss,
)
from mfpo.training.objectives.preference import pair_loss

LOG2 = math.log(2)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def softplus(x: float) -> float:
    return math.log(1 + math.exp(x))


REFERENCE = (-10.0, -12.0, -11.0)
POLICY = (-8.0, -13.0, -10.0)
SIMPLE = ("dpo", "dpo+margin", "mdpo", "mfpo")


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
    out = Loss(objective, objective.weights, beta=0.1, eta=0.5)(logps(*POLICY), logps(*REFERENCE), answers())
    assert out.loss.shape == (1,)
    assert out.loss.item() == pytest.approx(expected, abs=1e-12)
    assert out.rewards.chosen.item() == pytest.approx(0.2)
    assert out.rewards.rejected.item() == pytest.approx(-0.1)
    assert out.rewards.image_rejected.item() == pytest.approx(0.1)


def test_gradients_by_hand():
    """d/dx of -logsigmoid(x) is -sigmoid(-x). With weights 2, 3, 5 and the arguments 0.3, 0.1, -0.3 of above:

    dL/d logp_w  = -0.1 (2 sigmoid(-0.3) + 3 sigmoid(-0.1) + 5 sigmoid(0.3))
    dL/d logp_l  = +0.1 * 2 sigmoid(-0.3)
    dL/d logp_w' = +0.1 * 3 sigmoid(-0.1)
    """
    policy = logps(*POLICY, grad=True)
    out = preference_loss(policy, logps(*REFERENCE), answers(), settings(2.0, 3.0, 5.0, eta=0.5))
    out.loss.sum().backward()
    assert policy.chosen.grad.item() == pytest.approx(
        -0.1 * (2 * sigmoid(-0.3) + 3 * sigmoid(-0.1) + 5 * sigmoid(0.3)), abs=1e-12
    )
    assert policy.rejected.grad.item() == pytest.approx(0.2 * sigmoid(-0.3), abs=1e-12)
    assert policy.image_rejected.grad.item() == pytest.approx(0.3 * sigmoid(-0.1), abs=1e-12)


@pytest.mark.parametrize(
    ("kind", "e", "expected"),
    [
        # x = r_w - r_l = 0.3
        ("sigmoid", 0.0, softplus(-0.3)),
        ("sigmoid", 0.2, 0.8 * softplus(-0.3) + 0.2 * softplus(0.3)),
        ("robust", 0.2, (0.8 * softplus(-0.3) - 0.2 * softplus(0.3)) / 0.6),
        ("hinge", 0.0, 0.7),
        # the log-ratios 0.3 / 0.1 = 3 apart, to be 1 / 0.2 = 5
        ("ipo", 0.0, 4.0),
    ],
)
def test_losses_of_a_preference_by_hand(kind, e, expected):
    found = pair_loss(kind, torch.tensor([0.3], dtype=F64), beta=0.1, label_smoothing=e)
    assert found.item() == pytest.approx(expected, abs=1e-12)


def test_robust_loss_is_unbiased():
    """Its mean over rows flipped with probability e is the loss without flips."""
    x, e = torch.tensor([0.7], dtype=F64), 0.3
    robust = [pair_loss("robust", sign * x, beta=1.0, label_smoothing=e) for sign in (1, -1)]
    mean = (1 - e) * robust[0] + e * robust[1]
    assert mean.item() == pytest.approx(softplus(-0.7), abs=1e-12)


def test_hinge_is_flat_beyond_its_margin():
    assert pair_loss("hinge", torch.tensor([1.5]), beta=0.1).item() == 0


def test_ipo_divides_by_length():
    """d_w / 4 - d_l / 2 = 2/4 + 1/2 = 1, to be 5: (1 - 5)^2; the image term stays a sigmoid of whole sums."""
    out = preference_loss(
        logps(*POLICY), logps(*REFERENCE), answers((4, 2)), settings(1.0, 1.0, text_loss="ipo")
    )
    assert out.terms["text"].item() == pytest.approx(16.0)
    assert out.terms["image"].item() == pytest.approx(softplus(-0.1))


def test_length_normalization_by_hand():
    """Rewards 0.1 * 2/4 = 0.05, 0.1 * -1/2 = -0.05 and 0.1 * 1/4 = 0.025; margin term on 0.05."""
    out = preference_loss(
        logps(*POLICY), logps(*REFERENCE), answers((4, 2)), settings(1, 1, 1, length_normalization=True)
    )
    expected = {"text": softplus(-0.1), "image": softplus(-0.025), "margin": softplus(-0.05)}
    assert {name: term.item() for name, term in out.terms.items()} == pytest.approx(expected)


def test_simpo_by_hand():
    """beta 2, gamma 1, no reference: 2 * -8/4 - 2 * -13/2 - 1 = -4 + 13 - 1 = 8 (Meng et al., equation 6)."""
    simpo = get_objective("simpo")
    loss = Loss(simpo, simpo.weights, simpo.beta, options=simpo.options)
    out = loss(logps(*POLICY[:2]), None, answers((4, 2)))
    assert out.loss.item() == pytest.approx(softplus(-8.0), rel=1e-9)
    assert loss.reference_detail == "none" and loss.at_start is None


def test_supervised_term_by_hand():
    """8 nats over 4 tokens are 2 each; ha-dpo adds half of that to DPO."""
    objective = get_objective("ha-dpo")
    loss = Loss(objective, objective.weights, 0.1)
    out = loss(logps(*POLICY), logps(*REFERENCE), answers((4, 2)))
    assert out.terms["sft"].item() == pytest.approx(2.0)
    assert out.loss.item() == pytest.approx(softplus(-0.3) + 0.5 * 2.0)
    assert loss.terms_at_start == {"text": pytest.approx(LOG2), "sft": None} and loss.at_start is None


@pytest.mark.parametrize("name", SIMPLE)
@pytest.mark.parametrize("eta", [0.0, 0.4, -1.0])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"text_loss": "hinge"},
        {"text_loss": "ipo", "target_margin": 0.2},
        {"text_loss": "robust", "label_smoothing": 0.1, "target_margin": 0.7},
        {"label_smoothing": 0.3, "target_margin": -0.3},
        {"length_normalization": True},
    ],
)
def test_value_while_policy_is_reference(name, eta, changes):
    objective = OBJECTIVES[name]
    weights = objective.with_weights(text=0.5, margin=3.0 if objective.weights.margin else None)
    loss = Loss(objective, weights, 0.1, eta, replace(objective.options, **changes))
    out = loss(logps(*POLICY), logps(*POLICY), answers((4, 2)))
    assert out.loss.item() == pytest.approx(loss.at_start, abs=1e-12)
    for term, value in loss.terms_at_start.items():
        assert out.terms[term].item() == pytest.approx(value, abs=1e-12)


def test_the_papers_loss_starts_at_three_log_two():
    for name, expected in (("mfpo", 3 * LOG2), ("dpo", LOG2)):
        objective = OBJECTIVES[name]
        assert Loss(objective, objective.weights, 0.1).at_start == pytest.approx(expected)


def test_rows_do_not_mix():
    both = SequenceLogps(torch.tensor([-8.0, -3.0]), torch.tensor([-13.0, -1.0]), torch.tensor([-10.0, -2.0]))
    zero = SequenceLogps(*(torch.zeros(2) for _ in range(3)))
    together = preference_loss(both, zero, answers(), settings(1, 1, 1)).loss
    for row in range(2):
        one = SequenceLogps(*(t[row : row + 1] for t in (both.chosen, both.rejected, both.image_rejected)))
        none = SequenceLogps(*(torch.zeros(1) for _ in range(3)))
        assert together[row] == preference_loss(one, none, answers(), settings(1, 1, 1)).loss[0]


def test_a_term_of_weight_zero_needs_no_sequence():
    policy = SequenceLogps(torch.tensor([-1.0]), torch.tensor([-2.0]))
    out = preference_loss(policy, policy, answers(), settings(1.0, 0.0, 1.0))
    assert set(out.terms) == {"text", "margin"} and out.rewards.image_rejected is None


def test_extreme_rewards_stay_finite():
    out = preference_loss(
        logps(-1e4, 1e4, 1e4, grad=True), logps(0.0, 0.0, 0.0), answers(), settings(1, 1, 1, beta=1.0)
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


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("chip", {"text_loss": "ipo"}, "'chip' does not take it"),
        ("dpo", {"image_loss": "ipo"}, "'dpo' does not take it"),
        ("mfpo", {"kl_weight": 0.1}, "--kl_weight"),
        ("mfpo", {"label_smoothing": 0.5}, "below 0.5"),
        ("mfpo", {"label_smoothing": 0.1, "image_loss": "hinge"}, "not for hinge"),
        ("ddpo", {"segment_weight": -1.0}, "negative"),
    ],
)
def test_options_that_do_not_fit(name, options, message):
    with pytest.raises(UserError, match=message):
        get_objective(name).with_options(**options)


def test_options_that_are_not_given_stay_the_objectives_own():
    assert get_objective("simpo").with_options(target_margin=0.5, text_loss=None) == Options(
        length_normalization=True, reference_free=True, target_margin=0.5
    )
    assert get_objective("mfpo").with_weights(sft=0.1) == Weights(1.0, 1.0, 1.0, 0.1)
