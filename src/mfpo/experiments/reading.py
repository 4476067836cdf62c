"""An experiment's file, read strictly: an unknown key is an error with the nearest name."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NoReturn, get_args

import yaml

from mfpo.data.yaml_text import parse_yaml
from mfpo.errors import UserError, nearest
from mfpo.evaluation.config import Decoding
from mfpo.experiments.schema import (
    MEASURES,
    NOT_OURS,
    TUNED,
    Arm,
    Claim,
    Data,
    Experiment,
    Figure,
    FigureKind,
    Paper,
    Relation,
    Source,
    Split,
)
from mfpo.scenes.config import DifficultySettings
from mfpo.training.config import TrainConfig


def read_yaml(text: str, where: str) -> dict[str, Any]:
    """A YAML mapping.

    Raises:
        UserError: The text is no YAML, or no mapping.
    """
    try:
        content = parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        raise UserError(f"not valid YAML: {getattr(error, 'problem', None) or error}", where=place) from None
    if not isinstance(content, dict):
        raise UserError("expected `key: value` lines", where=where)
    return content


def read_experiment(
    text: str, name: str, where: str, tuned_arms: Callable[[], tuple[Arm, ...]]
) -> Experiment:
    """An experiment from its YAML text.

    Args:
        text: The file's content.
        name: Name of the experiment.
        where: Name of the file, for messages.
        tuned_arms: Gives the arms that stand for ``arms: tuned``.

    Raises:
        UserError: A key is unknown or missing, or a value does not fit.
    """
    return _Reader(where).experiment(read_yaml(text, where), name, tuned_arms)


@dataclass(frozen=True)
class _Reader:
    """Turns mappings into records; every complaint names the file and the key."""

    where: str

    def experiment(
        self, content: dict[str, Any], name: str, tuned_arms: Callable[[], tuple[Arm, ...]]
    ) -> Experiment:
        values = self.keys(content, Experiment, "", without={"name"}, required={"title", "arms", "metrics"})
        self.text(values["title"], "title")
        worlds = {
            str(key): self.record(value, DifficultySettings, f"worlds.{key}")
            for key, value in self.mapping(values.pop("worlds", None) or {"default": {}}, "worlds").items()
        }
        arms = values.pop("arms")
        plain = tuned_arms() if arms == TUNED else self.arms(arms)
        crossed = tuple(
            arm if len(worlds) == 1 else _arm_in_world(arm, world) for world in worlds for arm in plain
        )
        names = [arm.name for arm in plain]
        metrics = self.metrics(values.pop("metrics"))
        claims = [
            self.claim(item, f"claims[{i}]", names, metrics)
            for i, item in enumerate(self.sequence(values.pop("claims", []), "claims"))
        ]
        if len(worlds) > 1:
            claims = [_in_world(claim, world) for world in worlds for claim in claims]
        relations = tuple(
            self.relation(item, f"relations[{i}]", metrics)
            for i, item in enumerate(self.sequence(values.pop("relations", []), "relations"))
        )
        if relations and len(worlds) > 1:
            self.refuse("relations", "arms of several worlds are not ranked together")
        only = next(iter(worlds))
        if len(worlds) == 1 and only != "default":
            crossed = tuple(replace(arm, world=only) for arm in crossed)
        if values.get("split", "test") not in get_args(Split):
            self.refuse("split", nearest(str(values["split"]), get_args(Split)))
        sweep = tuple(self.number(rate, "sweep") for rate in self.sequence(values.pop("sweep", []), "sweep"))
        if sweep:
            self.check_sweep(crossed, worlds, metrics, str(values.get("criterion", "F1")))
        return Experiment(
            name=name,
            arms=crossed,
            metrics=metrics,
            claims=tuple(claims),
            relations=relations,
            paper=self.paper(values.pop("paper", {})),
            figure=self.figure(values.pop("figure", {}), names),
            worlds=worlds,
            sweep=sweep,
            notes=self.texts(values.pop("notes", []), "notes"),
            **values,
        )

    def arms(self, content: Any) -> tuple[Arm, ...]:
        if not isinstance(content, list) or not content:
            self.refuse("arms", f"expected a list of arms, or the word {TUNED!r}")
        arms = tuple(self.arm(item, f"arms[{i}]") for i, item in enumerate(content))
        names = [arm.name for arm in arms]
        for name in names:
            if names.count(name) > 1:
                self.refuse("arms", f"two arms are named {name!r}")
        return arms

    def arm(self, content: Any, key: str) -> Arm:
        values = self.keys(content, Arm, key, without={"world"}, required={"name"})
        self.text(values["name"], f"{key}.name")
        self.text(values.get("text", ""), f"{key}.text")
        train = values.get("train")
        if train is not None:
            known = [item.name for item in fields(TrainConfig) if item.name not in NOT_OURS]
            self.names(self.mapping(train, f"{key}.train"), known, f"{key}.train")
            if values.get("tune") and "learning_rate" in train:
                self.refuse(f"{key}.tune", "the arm has a learning rate already, under `train`")
        elif values.get("stage") is not None:
            self.refuse(f"{key}.stage", "there are no stages without `train`")
        if values.get("stage") is not None:
            if values["stage"] not in (1, 2, 3) or isinstance(values["stage"], bool):
                self.refuse(f"{key}.stage", f"expected 1, 2 or 3, found {values['stage']!r}")
            if (train or {}).get("stages", "none") == "none":
                self.refuse(f"{key}.stage", "the training has no `stages`")
        if values.get("decoding", "greedy") not in get_args(Decoding):
            self.refuse(f"{key}.decoding", nearest(str(values["decoding"]), get_args(Decoding)))
        if "data" in values:
            values["data"] = self.record(values["data"], Data, f"{key}.data")
            if values["data"].source not in get_args(Source):
                self.refuse(f"{key}.data.source", nearest(str(values["data"].source), get_args(Source)))
            count = values["data"].num_rows
            if count is not None and (not isinstance(count, int) or count < 1):
                self.refuse(f"{key}.data.num_rows", f"expected a whole number above 0, found {count!r}")
        return Arm(**values)

    def claim(self, content: Any, key: str, arms: list[str], metrics: Mapping[str, tuple[str, ...]]) -> Claim:
        values = self.keys(content, Claim, key, required={"text", "better", "than", "metrics"})
        self.text(values["text"], f"{key}.text")
        for name in ("than", "metrics"):
            given = values[name]
            values[name] = tuple(given) if isinstance(given, list) else (given,)
        for arm in (values["better"], *values["than"]):
            if arm not in arms:
                self.refuse(key, f"there is no arm {arm!r}; {nearest(str(arm), arms)}")
        named = [name for names in metrics.values() for name in names]
        for metric in values["metrics"]:
            if metric not in named and all(metrics.values()):
                why = f"{metric!r} is not listed under metrics; {nearest(str(metric), named)}"
                self.refuse(f"{key}.metrics", why)
        return Claim(**values)

    def check_sweep(
        self,
        arms: Sequence[Arm],
        worlds: Mapping[str, DifficultySettings],
        metrics: Mapping[str, tuple[str, ...]],
        criterion: str,
    ) -> None:
        """A sweep chooses for each arm by one metric in one world."""
        named = [name for names in metrics.values() for name in names]
        if named.count(criterion) != 1:
            why = f"a sweep chooses by {criterion!r}, which must be listed under one measure"
            self.refuse("criterion", f"{why}; it is under {named.count(criterion)}")
        if len(worlds) > 1:
            self.refuse("sweep", "a sweep takes one world")
        if not any(arm.tunes_itself for arm in arms):
            self.refuse("sweep", "no arm is without a learning rate: each has `tune`, a rate, or no `train`")

    def relation(self, content: Any, key: str, metrics: Mapping[str, tuple[str, ...]]) -> Relation:
        found = Relation(**self.keys(content, Relation, key, required={"text", "x", "y"}))
        self.text(found.text, f"{key}.text")
        named = [name for names in metrics.values() for name in names]
        for side in ("x", "y"):
            name = getattr(found, side)
            if name not in named:
                why = f"{name!r} is not listed under metrics; {nearest(str(name), named)}"
                self.refuse(f"{key}.{side}", why)
            if named.count(name) > 1:
                self.refuse(f"{key}.{side}", f"{name!r} is listed under several measures; list it under one")
        return found

    def metrics(self, content: Any) -> dict[str, tuple[str, ...]]:
        given = self.mapping(content, "metrics")
        self.names(given, MEASURES, "metrics")
        return {measure: self.texts(names, f"metrics.{measure}") for measure, names in given.items()}

    def paper(self, content: Any) -> Paper:
        values = self.keys(content, Paper, "paper")
        columns = self.texts(values.get("columns", []), "paper.columns")
        rows = {
            str(name): tuple(self.sequence(row, f"paper.rows.{name}"))
            for name, row in self.mapping(values.get("rows", {}), "paper.rows").items()
        }
        for name, row in rows.items():
            if len(row) != len(columns):
                self.refuse(f"paper.rows.{name}", f"{len(row)} numbers for {len(columns)} columns")
            for number in row:
                if number is not None:
                    self.number(number, f"paper.rows.{name}")
        return Paper(columns, rows)

    def figure(self, content: Any, names: Sequence[str]) -> Figure:
        found = self.record(content, Figure, "figure")
        if found.kind not in get_args(FigureKind):
            self.refuse("figure.kind", nearest(str(found.kind), get_args(FigureKind)))
        highlight = self.texts(found.highlight, "figure.highlight")
        for name in highlight:
            if name not in names:
                self.refuse("figure.highlight", nearest(name, names))
        return replace(found, metrics=self.texts(found.metrics, "figure.metrics"), highlight=highlight)

    def record(self, content: Any, kind: type[Any], key: str) -> Any:
        """A record whose fields are plain values."""
        return kind(**self.keys(content, kind, key))

    def keys(
        self,
        content: Any,
        kind: type[Any],
        key: str,
        *,
        without: Set[str] = frozenset(),
        required: Set[str] = frozenset(),
    ) -> dict[str, Any]:
        values = dict(self.mapping(content, key))
        self.names(values, [item.name for item in fields(kind) if item.name not in without], key)
        for name in sorted(required - values.keys()):
            self.refuse(f"{key}.{name}".lstrip("."), "the key is missing")
        return values

    def names(self, values: Mapping[str, Any], known: Iterable[str], key: str) -> None:
        for name in values:
            if name not in known:
                self.refuse(f"{key}.{name}".lstrip("."), f"unknown key; {nearest(str(name), known)}")

    def sequence(self, content: Any, key: str) -> Sequence[Any]:
        if content is None:
            return []
        if not isinstance(content, (list, tuple)):
            self.refuse(key, f"expected a list, found {content!r}")
        return content

    def text(self, content: Any, key: str) -> str:
        if not isinstance(content, str):
            self.refuse(key, f"expected a text, found {content!r}; put it into quotes")
        return content

    def texts(self, content: Any, key: str) -> tuple[str, ...]:
        found = self.sequence(content, key)
        for item in found:
            if not isinstance(item, str):
                self.refuse(key, f"expected a list of texts, found {item!r} in it")
        return tuple(found)

    def number(self, content: Any, key: str) -> float:
        if not isinstance(content, (int, float)) or isinstance(content, bool):
            self.refuse(key, f"expected a number, found {content!r}")
        return float(content)

    def mapping(self, content: Any, key: str) -> Mapping[str, Any]:
        if content is None:
            return {}
        if not isinstance(content, Mapping):
            self.refuse(key, f"expected a mapping, found {content!r}")
        return content

    def refuse(self, key: str, what: str) -> NoReturn:
        raise UserError(what, where=f"{self.where}: {key}")


def _arm_in_world(arm: Arm, world: str) -> Arm:
    """The arm in one of several worlds; its learning rate stays that of the default world."""
    return replace(arm, name=f"{arm.name}, {world}", world=world, tune=arm.tuned_as)


def _in_world(claim: Claim, world: str) -> Claim:
    return replace(
        claim,
        text=f"{claim.text} ({world})",
        better=f"{claim.better}, {world}",
        than=tuple(f"{name}, {world}" for name in claim.than),
    )


def load_text(path: Path) -> str:
    """The text of a user's file.

    Raises:
        UserError: It cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        what = getattr(error, "strerror", None) or str(error)
        fix = "check the path; a file of an experiment is text (UTF-8, YAML)"
        raise UserError(f"the file cannot be read: {what}", where=str(path), fix=fix) from None
