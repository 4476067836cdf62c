"""The objectives: pure functions of log-probabilities, in one table (paper 3.2, equations 5 to 7).

An algorithm is a row of the table ([`mfpo.training.objectives.table`]): a function, its weights and
options, the kind of rejected image, and what must be known of the two models' answers. It is never a trainer
of its own.
"""

from mfpo.training.objectives.own import resolve_objective
from mfpo.training.objectives.preference import preference_loss
from mfpo.training.objectives.records import (
    Answers,
    BySequence,
    ObjectiveOutput,
    Options,
    SequenceLogps,
    Settings,
    Weights,
)
from mfpo.training.objectives.table import OBJECTIVES, Loss, Objective, get_objective

__all__ = [
    "OBJECTIVES",
    "Answers",
    "BySequence",
    "Loss",
    "Objective",
    "ObjectiveOutput",
    "Options",
    "SequenceLogps",
    "Settings",
    "Weights",
    "get_objective",
    "preference_loss",
    "resolve_objective",
]
