"""From the settings of ``mfpo train`` to the loss, and to the sequences it needs."""

from __future__ import annotations

from mfpo.errors import UserError
from mfpo.preferences.encoding import SequenceKind
from mfpo.training.config import TrainConfig
from mfpo.training.objectives import Loss, resolve_objective

OPTIONS = (
    "text_loss",
    "image_loss",
    "label_smoothing",
    "target_margin",
    "segment_weight",
    "kl_weight",
)
SWITCHES = ("length_normalization", "reference_free")
"""Options that can be switched on; what an objective has on by itself stays on."""


def make_loss(config: TrainConfig) -> Loss:
    """The objective with its weights and options.

    Raises:
        UserError: There is no such objective, it does not take a setting, or a value is out of range.
    """
    objective = resolve_objective(config.objective, config.dataset)
    weights = objective.with_weights(
        config.text_weight, config.image_weight, config.margin_weight, config.sft_weight
    )
    given = {name: getattr(config, name) for name in OPTIONS}
    given |= {name: True for name in SWITCHES if getattr(config, name)}
    options = objective.with_options(**given)
    beta = objective.beta if config.beta is None else config.beta
    if beta <= 0:
        raise UserError("beta must be above 0", where=f"--beta {config.beta}")
    if config.eta and not weights.margin and ":" not in config.objective:
        raise UserError(
            f"objective {objective.name!r} has no margin term",
            where=f"--eta {config.eta:g}",
            fix="leave it out, or choose an objective with one and --margin_weight above 0",
        )
    if config.balance_modalities and not (weights.text and weights.image and "text_loss" in objective.takes):
        raise UserError(
            f"objective {objective.name!r} has no text and image term to balance",
            where="--balance_modalities",
            fix="choose mfpo or mdpo, with both weights above 0",
        )
    return Loss(objective, weights, beta, config.eta, options)


def sequences_of(loss: Loss) -> tuple[SequenceKind, ...]:
    """The sequences of a row that the loss needs, in their order."""
    kinds: list[SequenceKind] = ["chosen"]
    if loss.objective.rejected:
        kinds.append("rejected")
    if loss.weights.image:
        kinds.append("image_rejected")
    return tuple(kinds)
