"""The experiments there are: files of the package by name, and a user's own by path."""

from __future__ import annotations

from functools import cache
from importlib import resources
from pathlib import Path

from mfpo.data.yaml_text import parse_yaml
from mfpo.errors import UserError, nearest
from mfpo.experiments.reading import load_text, read_experiment
from mfpo.experiments.schema import TUNED, Arm, Experiment

_FILES = resources.files("mfpo.experiments").joinpath("files")


def names() -> list[str]:
    """Names of the packaged experiments: tables, figures, then the others."""
    found = [file.name.removesuffix(".yaml") for file in _FILES.iterdir() if file.name.endswith(".yaml")]
    order = {"table": 0, "figure": 1}
    return sorted(found, key=lambda name: (order.get(name.rstrip("0123456789"), 2), name))


@cache
def packaged(name: str) -> Experiment:
    """The packaged experiment of that name."""
    file = _FILES.joinpath(f"{name}.yaml")
    return read_experiment(file.read_text(encoding="utf-8"), name, f"{name}.yaml", tuned_arms)


def find(name: str) -> Experiment:
    """A packaged experiment, or one from a user's file.

    Args:
        name: Name of the first, or path of the second, which ends in ``.yaml`` or ``.yml``.

    Raises:
        UserError: There is none, or the file is wrong.
    """
    if name in names():
        return packaged(name)
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        own = path.with_name(f"{path.name}.yaml")
        near = f"did you mean {str(own)!r}?" if own.is_file() else nearest(name, names())
        raise UserError(
            f"no experiment {name!r}",
            where="mfpo experiment",
            fix=f"{near} A file of your own is named with its ending, .yaml",
        )
    return read_experiment(load_text(path), path.stem, str(path), tuned_arms)


@cache
def tuned_arms() -> tuple[Arm, ...]:
    """Arms of all packaged files whose learning rate is chosen for them, each once.

    Raises:
        UserError: Two files mean different things by one name.
    """
    found: dict[str, Arm] = {}
    for name in names():
        if _sweeps(name):
            continue
        for arm in packaged(name).arms:
            if not arm.tunes_itself:
                continue
            known = found.setdefault(arm.name, arm)
            if (known.train, known.data) != (arm.train, arm.data):
                raise UserError(
                    f"the arm {arm.name!r} means something else in another file",
                    where=f"{name}.yaml",
                    fix="give it another name, or say with `tune` whose learning rate it takes",
                )
    return tuple(found.values())


def _sweeps(name: str) -> bool:
    """Whether a packaged file takes the arms of the others, which must then not ask it for arms."""
    content = parse_yaml(_FILES.joinpath(f"{name}.yaml").read_text(encoding="utf-8"))
    return isinstance(content, dict) and content.get("arms") == TUNED
