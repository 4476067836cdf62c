"""Adapters of peft: what it says of transformers and not to our users, and models without them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


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
