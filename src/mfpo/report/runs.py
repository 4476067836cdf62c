"""Run folders: what a report finds in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from mfpo.data.files import read_jsonl
from mfpo.difficulty.stages import LEVELS
from mfpo.errors import UserError
from mfpo.evaluation.results import ScoreResult, by_benchmark, load_scores
from mfpo.report.plots import RunLog

_DISTRACTING = ("output_dir", "dry_run", "report_to", "plot_every", "resume_from_checkpoint", "push_to_hub")
STAGE_NAMES = {
    "easy_to_hard": LEVELS,
    "hard_to_easy": LEVELS[::-1],
    "random": ("random 1", "random 2", "random 3"),
}


@dataclass(frozen=True, slots=True)
class Run:
    """A run folder.

    Attributes:
        label: Its name in the report.
        path: The folder.
        config: ``config.yaml``; empty where there is none, as for a model that was not trained here.
        log: Lines of ``metrics.jsonl``; empty likewise.
        scores: ``scores/*.json``, named as in [`mfpo.evaluation.results.by_benchmark`].
    """

    label: str
    path: Path
    config: Mapping[str, Any] = field(default_factory=dict, repr=False)
    log: Sequence[Mapping[str, Any]] = field(default=(), repr=False)
    scores: Mapping[str, ScoreResult] = field(default_factory=dict, repr=False)

    @property
    def training(self) -> RunLog:
        """Its training as the plots need it."""
        return RunLog(self.label, self.log, STAGE_NAMES.get(str(self.config.get("stages")), ()))


def load_runs(folders: Sequence[str | Path], labels: Sequence[str] | None = None) -> list[Run]:
    """Read run folders.

    Args:
        folders: The folders.
        labels: Their names; the folders' own names when None, with their parents' where those are equal.

    Raises:
        UserError: One of them is no folder, or a file in it cannot be read.
        ValueError: There are not as many labels as folders.
    """
    paths = [Path(folder) for folder in folders]
    names = _labels(paths) if labels is None else list(labels)
    found = [_load(path, name) for path, name in zip(paths, names, strict=True)]
    scores = by_benchmark([run.scores for run in found])
    return [replace(run, scores=mine) for run, mine in zip(found, scores, strict=True)]


def settings_table(runs: Sequence[Run]) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Settings of the trained runs: those that differ, one text per run, and those that all of them share.

    Settings that change nothing in the result, and those left at "not given" everywhere, are left out.
    """
    trained = [run for run in runs if run.config]
    names = dict.fromkeys(name for run in trained for name in run.config if name not in _DISTRACTING)
    different: dict[str, list[str]] = {}
    shared: dict[str, str] = {}
    for name in names:
        texts = [_text(run.config.get(name)) for run in trained]
        if len(set(texts)) > 1:
            different[name] = [_text(run.config.get(name)) if run.config else "" for run in runs]
        elif texts[0]:
            shared[name] = texts[0]
    return different, shared


def _load(path: Path, label: str) -> Run:
    if not path.is_dir():
        raise UserError(
            "no such run folder", where=str(path), fix="name the --output_dir of a training or an evaluation"
        )
    log = path / "metrics.jsonl"
    return Run(
        label=label,
        path=path,
        config=_config(path / "config.yaml"),
        log=read_jsonl(log) if log.is_file() else [],
        scores=load_scores(path / "scores"),
    )


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise UserError(f"broken YAML: {error}", where=str(path)) from None
    return content if isinstance(content, dict) else {}


def _labels(paths: Sequence[Path]) -> list[str]:
    """The folders' names, with as many of their parents' as it takes to tell them apart."""
    parts = [path.resolve().parts for path in paths]
    depth = 1
    while len({part[-depth:] for part in parts}) < len({*parts}):
        depth += 1
    return ["/".join(part[-depth:]) for part in parts]


def _text(value: Any) -> str:
    if value is None or value == {} or value == []:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)
