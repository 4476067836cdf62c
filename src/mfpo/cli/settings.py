"""Read the YAML file of ``--config``: the same names and types as the flags, checked the same way."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

import yaml
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from mfpo.cli.fields import Setting, UsageError
from mfpo.data.yaml_text import parse_yaml
from mfpo.errors import nearest

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text; true, yes, no and null are text in quotes only",
    Path: "a path",
}


def read_settings(path: str | Path, known: Mapping[str, Setting]) -> dict[str, Any]:
    """Read settings from a YAML file.

    Args:
        path: The file; an empty one gives no settings.
        known: The settings that may occur in it.

    Returns:
        The value of each setting that the file gives, of the setting's type.

    Raises:
        UsageError: The file cannot be read, is no mapping, has an unknown key or a value of the wrong type.
    """
    try:
        content = parse_yaml(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        looked = f"check the path; {Path(path).absolute()} was looked for"
        fix = looked if isinstance(error, OSError) else "save it as UTF-8; a file of settings is YAML"
        raise UsageError(f"the file cannot be read: {reason}", where=f"--config {path}", fix=fix) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise UsageError(
            f"not valid YAML: {getattr(error, 'problem', None) or error}",
            where=where,
            fix="write `name: value` lines, each name once; a value with `: ` or ` #` in it needs quotes",
        ) from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UsageError("expected `name: value` lines", where=str(path), fix="see `--help` for the names")
    values = {}
    for key, value in content.items():
        where = f"{path}: {key}"
        if str(key) not in known:
            raise UsageError("unknown setting", where=where, fix=nearest(str(key), known))
        values[str(key)] = _check(known[str(key)], value, where)
    return values


def _check(setting: Setting, value: Any, where: str) -> Any:
    """The value as the setting's type, read by the rules that read flags."""
    if setting.is_mapping:
        # A heading whose lines are all commented out is null.
        if value is not None and not isinstance(value, dict):
            raise UsageError(
                f"expected a mapping, found {value!r}", where=where, fix="give indented `key: value` lines"
            )
        return {str(key): item for key, item in (value or {}).items()}
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(setting.type, set()))
    assert isinstance(spec, PrimitiveConstructorSpec), f"no flag can hold {setting.name}: {setting.type}"
    if isinstance(value, (int, float)) and not isinstance(value, bool) and _is_text(setting.type):
        # What stands in the file is lost: 2024_12_01 has become 20241201, and 007 has become 7.
        raise UsageError(
            f"expected {spec.metavar}, found the number {value}", where=where, fix="write it in quotes"
        )
    tokens = [str(item) for item in value] if isinstance(value, list) else [str(value)]
    try:
        _check_shape(spec, value, tokens)
        result = spec.instance_from_str(tokens)
    except ValueError as error:
        raise _wrong(setting, spec, value, where) from error
    # Text accepts anything, but null and true in YAML are not the words "None" and "True".
    items = value if isinstance(value, list) else [value]
    results = list(result) if isinstance(result, (list, tuple)) else [result]
    if any(item is None or isinstance(item, bool) for item in items) and results != items:
        raise _wrong(setting, spec, value, where)
    return result


def _is_text(annotation: Any) -> bool:
    """Whether the type is text, or text or null."""
    parts = set(get_args(annotation)) if get_origin(annotation) in (Union, UnionType) else {annotation}
    return parts - {NoneType} == {str}


def _check_shape(spec: PrimitiveConstructorSpec[Any], value: Any, tokens: list[str]) -> None:
    """Raise ValueError unless the number of items, their kind and the choices fit."""
    counts = (spec.nargs,) if isinstance(spec.nargs, int) else spec.nargs
    many = counts == "*" or len(tokens) in counts
    nested = isinstance(value, dict) or (
        isinstance(value, list) and any(isinstance(x, (list, dict)) for x in value)
    )
    listed = isinstance(value, list) and counts == (1,)
    chosen = spec.choices is None or all(token in spec.choices for token in tokens)
    if not many or nested or listed or not chosen:
        raise ValueError


def _wrong(setting: Setting, spec: PrimitiveConstructorSpec[Any], value: Any, where: str) -> UsageError:
    if spec.choices is not None and isinstance(value, str):
        return UsageError(f"{value!r} is no choice", where=where, fix=nearest(value, spec.choices))
    shown = json.dumps(value, default=str, ensure_ascii=False)
    return UsageError(
        f"expected {spec.metavar}, found {shown}", where=where, fix=f"give {_in_words(setting.type)}"
    )


def _in_words(annotation: Any) -> str:
    """What a value of a type looks like in YAML."""
    kind, parts = get_origin(annotation), get_args(annotation)
    if kind in (Union, UnionType):
        return " or ".join("null" if part is NoneType else _in_words(part) for part in parts)
    if kind is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if kind in (list, tuple):
        items = parts if kind is tuple and Ellipsis not in parts else parts[:1]
        inside = [_in_words(item) for item in items]
        if len(items) > 1:
            return f"a list [...] of {len(items)}: {', '.join(inside)}"
        return f"a list [...], each of its items {inside[0]}"
    return _WORDS.get(annotation, "another value")
