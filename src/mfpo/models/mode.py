"""Evaluation mode for as long as it is needed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode within the context, and afterwards, also after an error, as it was.

    Args:
        model: The model, wrapped or not.
    """
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
