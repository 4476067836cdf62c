"""``mfpo experiment NAME``: a table of experiments."""

from __future__ import annotations

from importlib import import_module

from mfpo.errors import UserError, nearest
from mfpo.experiments.config import ExperimentConfig

EXPERIMENTS = {
    "balance": "mfpo.experiments.balance",
    "learning_rates": "mfpo.experiments.learning_rates",
    "noise_step": "mfpo.experiments.noise_step",
}
"""Name of each experiment and the module that runs it."""


def run(config: ExperimentConfig) -> None:
    """Run an experiment; what an earlier run finished is not done again.

    Raises:
        UserError: There is no experiment of that name, or not in that world.
    """
    if config.name not in EXPERIMENTS:
        raise UserError(
            f"no experiment {config.name!r}", where="mfpo experiment", fix=nearest(config.name, EXPERIMENTS)
        )
    import_module(EXPERIMENTS[config.name]).run(config)
