"""Adapters of peft: what it says of transformers and not to our users, and models without them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

WHOLE_COPY = ".modules_to_save."
"""In the names of parameters of whole modules that are trained beside an adapter."""


@contextmanager
def quiet_peft() -> Iterator[None]:
    """Without the warnings of peft that concern nobody here.

    They are about names of transformers that will be gone some day, and about vocabularies, which we do not
    change, where the base model is an adapter and has no configuration of its own.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        warnings.filterwarnings("ignore", "Could not find a config file", UserWarning)
        yield


def merged(model: Any) -> Any:
    """The model with its adapter in its weights; itself if it has none."""
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def trained_in_float32(model: nn.Module) -> None:
    """Make all that is trained beside and in an adapter float32; the frozen weights stay as they are.

    peft does so for the adapter's matrices only. A step of 1e-5 on a bfloat16 weight is mostly rounded away.
    """
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def as_loaded(model: Any) -> Any:
    """A model after its training as it will be when it is loaded again, whole modules in the base's dtype.

    Outside of autocast, a float32 projector does not take the output of a bfloat16 tower.
    """
    for name, parameter in model.named_parameters():
        # What FSDP has sharded it gathers in the dtype that it knows.
        if WHOLE_COPY in name and not hasattr(parameter, "full_tensor"):
            parameter.data = parameter.data.to(model.dtype)
    return model
