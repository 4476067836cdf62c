"""Classes and functions of the user's own, named as ``package.module:name``."""

from __future__ import annotations

import importlib
from typing import Any

from mfpo.errors import UserError, nearest


def load_object(spec: str, where: str) -> Any:
    """What a name stands for.

    Args:
        spec: ``package.module:name``.
        where: The setting that named it, for messages.

    Raises:
        UserError: The module cannot be imported, or has no such name.
    """
    module_name, _, name = spec.partition(":")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(
            f"the module cannot be imported: {error}",
            where=where,
            fix="install it, or put its folder on PYTHONPATH",
        ) from error
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        fix = nearest(name, known) if known else "check the name"
        raise UserError(f"{module_name} has no {name!r}", where=where, fix=fix)
    return getattr(module, name)
