"""What we override of ``transformers.Trainer`` without being told when its name changes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest
from transformers import Trainer

from mfpo.training.checkpoints import AtomicCheckpoints
from mfpo.training.trainer import PreferenceTrainer

HOOKS = {
    AtomicCheckpoints: ["_get_output_dir", "_save_checkpoint"],
    PreferenceTrainer: [
        "_get_grad_norm",
        "_get_train_sampler",
        "_load_from_checkpoint",
        "_load_optimizer_and_scheduler",
        "_save",
        "compute_loss",
        "create_model_card",
        "create_scheduler",
        "log",
        "training_step",
    ],
}
SOURCE = inspect.getsource(inspect.getmodule(Trainer))  # type: ignore[arg-type]


def takes_what(ours: Callable[..., Any], parents: Callable[..., Any]) -> bool:
    """Whether a function can be called as another one is: by the same names in the same order."""
    mine, theirs = inspect.signature(ours).parameters, inspect.signature(parents).parameters
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    here = [name for name, parameter in mine.items() if parameter.kind not in several]
    there = [name for name, parameter in theirs.items() if parameter.kind not in several]
    rest = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in mine.values())
    optional = {name for name in here if mine[name].default is not inspect.Parameter.empty}
    left_out = {name for name in there if theirs[name].default is not inspect.Parameter.empty}
    return (
        here[: len(there)] == there[: len(here)]
        and (rest or len(here) >= len(there))
        and set(here[len(there) :]) | (left_out & set(here)) <= optional
    )


@pytest.mark.parametrize(("owner", "name"), [(o, name) for o, names in HOOKS.items() for name in names])
def test_the_parent_still_calls_what_we_override(owner: type[Trainer], name: str) -> None:
    assert hasattr(Trainer, name), f"transformers has no Trainer.{name} any more"
    assert re.search(rf"self\.{name}\b", SOURCE), f"transformers does not call Trainer.{name} any more"
    assert takes_what(vars(owner)[name], getattr(Trainer, name)), "its parameters are others now"


@pytest.mark.parametrize("owner", HOOKS)
def test_the_list_is_complete(owner: type[Trainer]) -> None:
    ours = {name for name in vars(owner) if not name.startswith("__") and callable(vars(owner)[name])}
    assert ours & set(dir(Trainer)) == set(HOOKS[owner])


@pytest.mark.parametrize("name", ["model_accepts_loss_kwargs", "loss_is_scaled_for_ga"])
def test_the_parent_still_asks_for_what_we_set(name: str) -> None:
    assert re.search(rf"(if|not|and|or) self\.{name}\b", SOURCE)


def test_signatures_are_compared() -> None:
    def parents(self, a, b=None): ...

    def same(self, a, b=None): ...

    def renamed(self, a, c=None): ...

    def swapped(self, b=None, a=None): ...

    def stricter(self, a, b): ...

    def wider(self, a, b=None, c=None): ...

    def shorter(self, a): ...

    def anything(self, *args, **kwargs): ...

    fits = [takes_what(ours, parents) for ours in (same, wider, anything)]
    refused = [takes_what(ours, parents) for ours in (renamed, swapped, stricter, shorter)]
    assert all(fits) and not any(refused)
