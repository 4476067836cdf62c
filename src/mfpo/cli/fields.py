"""Read a configuration dataclass: the type, default and explanation of each of its fields."""

from __future__ import annotations

import ast
import inspect
import sys
from dataclasses import MISSING, dataclass, fields
from itertools import pairwise
from typing import Any, get_origin, get_type_hints

from mfpo.errors import UserError


class UsageError(UserError):
    """A mistake on the command line or in a ``--config`` file, before any work was done."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One field of a configuration dataclass.

    Attributes:
        name: Its name in the dataclass, in YAML and, after ``--``, on the command line.
        type: Its annotation, resolved.
        default: Its default value, ``dataclasses.MISSING`` if it has none and the user must give it.
        help: The string literal under the field, on one line.
        positional: Whether it is given without a flag, set by ``field(metadata={"positional": True})``.
        group: Name of the base class that declares it, for a configuration put together from groups; empty if
            the class declares it itself.
    """

    name: str
    type: Any
    default: Any
    help: str
    positional: bool
    group: str = ""

    @property
    def required(self) -> bool:
        """Whether the user must give it."""
        return self.default is MISSING

    @property
    def is_mapping(self) -> bool:
        """Whether it takes free keys, which are passed on unchecked."""
        return get_origin(self.type) is dict or self.type is dict


def settings_of(config_type: type[Any]) -> dict[str, Setting]:
    """The fields of a configuration dataclass by name, in the order of their definition."""
    types = get_type_hints(config_type, include_extras=True)
    helps = _attribute_docstrings(config_type)
    found = {}
    for item in fields(config_type):
        if not item.init:
            continue
        default = item.default if item.default_factory is MISSING else item.default_factory()
        found[item.name] = Setting(
            name=item.name,
            type=types[item.name],
            default=default,
            help=helps.get(item.name, ""),
            positional=bool(item.metadata.get("positional", False)),
            group=_group(config_type, item.name),
        )
    return found


def _group(config_type: type[Any], name: str) -> str:
    if name in inspect.get_annotations(config_type):
        return ""
    declaring = [cls for cls in config_type.__mro__[1:] if name in inspect.get_annotations(cls)]
    return declaring[0].__name__ if declaring else ""


def _attribute_docstrings(config_type: type[Any]) -> dict[str, str]:
    """The string literal that stands under each field, of the class and of those it inherits from."""
    found: dict[str, str] = {}
    for cls in reversed(config_type.__mro__[:-1]):
        tree = ast.parse(inspect.getsource(sys.modules[cls.__module__]))
        body = next((n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == cls.__name__), [])
        for statement, following in pairwise(body):
            match statement, following:
                case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                    found[name] = " ".join(text.replace("``", "`").split())
    return found
