"""Objectives such as a user might bring along, found by name."""

from __future__ import annotations

import torch

from mfpo.training.objectives import Objective, Weights, preference_loss
from mfpo.training.objectives.preference import implicit_rewards

SEEN = {}


def squared(policy, reference, answers, settings):
    """(r_w - r_l - 1)^2, noting what it was given."""
    SEEN.update(
        tokens=policy.tokens.chosen.shape,
        reference=reference.tokens.image_rejected.shape,
        segments=answers.segments.rejected.shape,
        mask=answers.mask.chosen.shape,
    )
    rewards = implicit_rewards(policy, reference, answers, settings)
    return (rewards.chosen - rewards.rejected - 1) ** 2


def one_number(policy, reference, answers, settings):
    return squared(policy, reference, answers, settings).mean()


def constant(policy, reference, answers, settings):
    return torch.ones_like(policy.chosen.detach())


def too_few(policy, reference):
    return policy.chosen


declared = Objective("declared", Weights(text=2.0), loss=preference_loss)
not_callable = 3
