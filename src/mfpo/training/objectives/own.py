"""Objectives of the user's own, named as ``module:function``."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfpo.data.plugins import load_object
from mfpo.errors import UserError
from mfpo.training.objectives.preference import implicit_rewards
from mfpo.training.objectives.records import (
    Answers,
    ObjectiveOutput,
    Options,
    SequenceLogps,
    Settings,
    Weights,
)
from mfpo.training.objectives.table import Objective, get_objective

SIGNATURE = "(policy, reference, answers, settings)"


def resolve_objective(name: str, dataset: str = "") -> Objective:
    """The objective of a name in the table, or what ``module:function`` stands for.

    A function takes ``(policy, reference, answers, settings)`` of the types in
    [`mfpo.training.objectives.records`] and returns the loss of each row, a tensor ``[B]``, or an
    [`ObjectiveOutput`]. It is given all three sequences, token by token, and the changed segments. Its
    value at step 0 is not known, so that only its finiteness is checked. An [`Objective`] in place of a
    function declares all that itself.

    Args:
        name: What ``--objective`` was given.
        dataset: The dataset's folder, from which no code is run.

    Raises:
        UserError: There is no such objective, module or name, it lies in the dataset's folder, or it does not
            take the four arguments.
    """
    if ":" not in name:
        return get_objective(name)
    where = f"--objective {name}"
    _refuse_code_of_dataset(name.partition(":")[0], dataset, where)
    found = load_object(name, where)
    if isinstance(found, Objective):
        return found
    if not callable(found) or not _takes_four(found):
        raise UserError(
            f"an objective is a function of {SIGNATURE}", where=where, fix="see docs/objectives.md"
        )
    return Objective(
        name,
        Weights(text=1.0, image=1.0, margin=1.0),
        loss=_checked(found, where),
        at_start=lambda settings: {"own": None},
        takes=frozenset(item.name for item in fields(Options)),
        policy="tokens",
        reference="tokens",
        segments=True,
    )


def _refuse_code_of_dataset(module: str, dataset: str, where: str) -> None:
    """Whoever made the dataset must not be able to run code through it."""
    if not dataset or not Path(dataset).is_dir():
        return
    try:
        spec = importlib.util.find_spec(module.partition(".")[0])
    except (ImportError, ValueError):
        return
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or ())]
    folder = Path(dataset).resolve()
    if any(place and Path(place).resolve().is_relative_to(folder) for place in places):
        raise UserError(
            "code from the dataset's folder is not run",
            where=where,
            fix="move the module elsewhere, and look at what it does",
        )


def _takes_four(function: Callable[..., Any]) -> bool:
    try:
        inspect.signature(function).bind(None, None, None, None)
    except TypeError:
        return False
    return True


def _checked(
    function: Callable[..., Any], where: str
) -> Callable[[SequenceLogps, SequenceLogps | None, Answers, Settings], ObjectiveOutput]:
    """The function with what it returns made an output, and refused if it cannot be one."""

    def loss(
        policy: SequenceLogps, reference: SequenceLogps | None, answers: Answers, settings: Settings
    ) -> ObjectiveOutput:
        result = function(policy, reference, answers, settings)
        output = result
        if isinstance(result, Tensor):
            rewards = implicit_rewards(policy, reference, answers, settings).map(Tensor.detach)
            output = ObjectiveOutput(result, {"own": result}, rewards)
        if not isinstance(output, ObjectiveOutput) or output.loss.shape != policy.chosen.shape:
            shape = f" of shape {list(output.loss.shape)}" if isinstance(output, ObjectiveOutput) else ""
            raise UserError(
                f"it returned a {type(result).__name__}{shape}, where a tensor [{len(policy.chosen)}] with"
                " the loss of each row is needed",
                where=where,
            )
        if torch.is_grad_enabled() and policy.chosen.requires_grad and not output.loss.requires_grad:
            raise UserError("the loss has no gradient: it does not depend on the policy", where=where)
        return output

    return loss
