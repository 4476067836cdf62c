"""Turn a verb's arguments into its configuration: defaults < ``--config`` file < ``--recipe`` < flags.

A recipe that the file names stands under the file's other settings.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro
import yaml
from tyro.constructors import (
    MISSING,
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from mfpo.cli.fields import Setting, UsageError, settings_of
from mfpo.cli.settings import read_settings
from mfpo.cli.verbs import Verb
from mfpo.data.yaml_text import parse_yaml
from mfpo.errors import nearest

_OmitPrefix: Any = tyro.conf.OmitArgPrefixes

# Flags of every verb. They are read before the others, but stand in each verb's help.
_COMMON = (
    Setting(
        "config",
        Annotated[str | None, tyro.conf.arg(metavar="F.yaml", help_behavior_hint="")],
        None,
        "YAML file with settings by name; flags override it.",
        False,
    ),
    Setting(
        "debug",
        Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help_behavior_hint="")],
        False,
        "Show the traceback of an error.",
        False,
    ),
)


def parse_config(verb: Verb, arguments: Sequence[str]) -> Any:
    """The configuration that the arguments stand for.

    Args:
        verb: The verb they belong to.
        arguments: What follows the verb on the command line.

    Returns:
        An instance of the verb's configuration dataclass.

    Raises:
        UsageError: A flag is unknown or missing, or the ``--config`` file is wrong.
        SystemExit: Help was asked for (code 0), or a value was refused and the reason printed (code 2).
    """
    config_type = verb.config_type()
    known = settings_of(config_type)
    _refuse_unknown_flags(arguments, known)
    path = _early("config", arguments, "write --config FILE.yaml")
    given = read_settings(path, known) if path is not None else {}
    given = _with_recipe(config_type, arguments, given)
    _refuse_missing_flags(verb, arguments, [s for s in known.values() if s.name not in given])

    registry = ConstructorRegistry()

    groups = _groups(known)

    @registry.struct_rule
    def _rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        if info.type is config_type:
            nested = tuple(
                StructFieldSpec(name=name, type=_OmitPrefix[kind], default=MISSING)
                for name, kind in groups.items()
            )
            own = [setting for setting in known.values() if not setting.group]
        elif info.type in groups.values():
            nested, own = (), [setting for setting in known.values() if setting.group == info.type.__name__]
        else:
            return None
        own += _COMMON if info.type is config_type else ()
        fields = tuple(_field_spec(s, given.get(s.name, s.default)) for s in own)
        return StructConstructorSpec(instantiate=_merged(groups), fields=(*fields, *nested))

    values: Any = tyro.cli(
        config_type,
        prog=f"mfpo {verb.name}",
        description=f"{verb.help[0].upper()}{verb.help[1:]}.",
        args=arguments,
        use_underscores=True,
        config=(tyro.conf.PositionalMetavarFromFieldName,),
        registry=registry,
    )
    # Like argparse, tyro lets a list be empty even where it is required.
    missing = [name for name, setting in known.items() if setting.required and values[name] in ([], ())]
    if missing:
        raise UsageError(
            "at least one is needed", where=missing[0].upper(), fix=f"see `mfpo {verb.name} --help`"
        )
    return config_type(**{name: values[name] for name in known})


def _groups(known: Mapping[str, Setting]) -> dict[str, type]:
    """A type for each group of settings, by the heading it has in the help."""
    names = dict.fromkeys(setting.group for setting in known.values() if setting.group)
    return {_heading(name, known): type(name, (), {}) for name in names}


def _heading(group: str, known: Mapping[str, Setting]) -> str:
    heading = group.removesuffix("Settings").removesuffix("Config").lower()
    # A setting may have that name, such as `--objective`.
    return heading if heading not in known else f"{heading}_settings"


def _merged(groups: Mapping[str, type]) -> Callable[..., dict[str, Any]]:
    """Puts the values of the groups beside the others, where their names are unique."""

    def merge(**values: Any) -> dict[str, Any]:
        nested = [values.pop(name) for name in groups if name in values]
        return {name: value for part in (values, *nested) for name, value in part.items()}

    return merge


def _early(name: str, arguments: Sequence[str], fix: str) -> str | None:
    """The value of a flag that decides on the defaults of others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument(f"--{name}")
    try:
        value: str | None = getattr(parser.parse_known_args(arguments)[0], name)
    except argparse.ArgumentError as error:
        raise UsageError("no value given", where=f"--{name}", fix=fix) from error
    return value


def _with_recipe(
    config_type: type[Any], arguments: Sequence[str], given: Mapping[str, Any]
) -> dict[str, Any]:
    """A file's settings with a recipe's: over them where a flag names it, under them where the file does.

    Args:
        config_type: The verb's configuration; it has the attribute ``recipes`` where there are any.
        arguments: What follows the verb.
        given: Settings of the file.
    """
    recipes: Mapping[str, Mapping[str, Any]] = getattr(config_type, "recipes", {})
    if not recipes:
        return dict(given)
    flag = _early("recipe", arguments, f"choose {' or '.join(recipes)}")
    name = flag if flag is not None else given.get("recipe")
    if name is None:
        return dict(given)
    if name not in recipes:
        where = f"--recipe {name}" if flag is not None else f"recipe: {name} in the --config file"
        raise UsageError("there is no such recipe", where=where, fix=nearest(str(name), recipes))
    return {**recipes[name], **given} if flag is None else {**given, **recipes[name]}


def _refuse_unknown_flags(arguments: Sequence[str], known: Mapping[str, Setting]) -> None:
    """Name the nearest flag; a value that starts with two dashes is written ``--flag=--value``."""
    names = {"help"}
    for setting in [*known.values(), *_COMMON]:
        if setting.positional:
            continue
        names.add(setting.name)
        if setting.type is bool:
            names.add(f"no_{setting.name}")
    for argument in arguments:
        name = argument[2:].partition("=")[0]
        if argument.startswith("--") and name and name.replace("-", "_") not in names:
            fix = nearest(f"--{name.replace('-', '_')}", [f"--{n}" for n in names])
            raise UsageError("unknown flag", where=f"--{name}", fix=fix)


def _refuse_missing_flags(verb: Verb, arguments: Sequence[str], settings: Sequence[Setting]) -> None:
    """Name the required flags that are not there.

    Args:
        verb: The verb.
        arguments: What follows it.
        settings: Those that no file gives.
    """
    flags = {argument.partition("=")[0].replace("-", "_") for argument in arguments if argument[:2] == "--"}
    if "-h" in arguments or "__help" in flags:
        return
    missing = [s for s in settings if s.required and not s.positional and f"__{s.name}" not in flags]
    if missing:
        wanted = [f"--{setting.name} ({_what_it_is(setting)})" for setting in missing]
        raise UsageError(
            "required, but not given",
            where=f"mfpo {verb.name}: {', '.join(f'--{setting.name}' for setting in missing)}",
            fix=f"add {' and '.join(wanted)}; see `mfpo {verb.name} --help`",
        )


def _what_it_is(setting: Setting) -> str:
    if get_origin(setting.type) is Literal:
        return " or ".join(get_args(setting.type))
    return setting.help.rstrip(".")


def _field_spec(setting: Setting, default: Any) -> StructFieldSpec:
    annotation = _mapping_type(setting.type, default) if setting.is_mapping else setting.type
    if setting.positional:
        metavar = f"{setting.name.upper()} ..." if get_origin(setting.type) in (list, tuple) else None
        annotation = Annotated[annotation, tyro.conf.Positional, tyro.conf.arg(metavar=metavar)]
    elif name := _optional(setting.type):
        annotation = Annotated[annotation, tyro.conf.arg(metavar=name.upper())]
    # An empty default is refused where it is used, so that a configuration can be made step by step.
    if default is dataclasses.MISSING or default == "":
        annotation = Annotated[annotation, tyro.conf.arg(help_behavior_hint="(required)")]
    return StructFieldSpec(
        name=setting.name,
        type=annotation,
        default=MISSING if default is dataclasses.MISSING else default,
        helptext=setting.help,
    )


def _optional(annotation: Any) -> str | None:
    """Name of the plain type of which ``annotation`` is a value or None; tyro would show ``{None}|STR``."""
    kinds = [kind for kind in get_args(annotation) if kind is not type(None)]
    optional = type(None) in get_args(annotation) and kinds in ([str], [int], [float])
    return kinds[0].__name__ if optional else None


def _mapping_type(annotation: Any, default: Any) -> Any:
    """A mapping as ``KEY=VALUE ...``, values as in YAML, added to those of the ``--config`` file."""

    def parse(tokens: list[str]) -> dict[str, Any]:
        pairs = dict(default) if isinstance(default, dict) else {}
        for token in tokens:
            key, equals, value = token.partition("=")
            if not key or not equals:
                raise ValueError(f"expected KEY=VALUE, found {token!r}")
            try:
                pairs[key] = parse_yaml(value)
            except yaml.YAMLError:
                raise ValueError(f"the value of {key!r} is not valid YAML") from None
        return pairs

    spec: PrimitiveConstructorSpec[dict[str, Any]] = PrimitiveConstructorSpec(
        nargs="*",
        metavar="[KEY=VALUE ...]",
        instance_from_str=parse,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda value: [f"{key}={item}" for key, item in value.items()],
    )
    return Annotated[annotation, spec]
