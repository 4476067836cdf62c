"""How the scores of a benchmark were made: settings, caveats, and what each mode gives."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mfpo.evaluation.results import ScoreResult
from mfpo.evaluation.score import caveats, mode_differences

_LEFT_OUT = {
    "benchmark",
    "definitions",
    "interval",
    "modes",
    "quirks",
    "layers",
    "skipped",
    "unverified",
    "spread",
    "repeats",
    "predictions",
    "judgements",
    "data_dir",
}
# What makes scores of two runs incomparable, among the settings that may differ.
_DECISIVE = (
    "mode",
    "variant",
    "split",
    "similarity",
    "tools",
    "official_tools",
    "synonyms",
    "ground_truth",
    "data",
    "singularize",
    "analyser",
    "judged_by",
    "judge.model",
    "judge.temperature",
    "schedules",
)


@dataclass(frozen=True, slots=True)
class ModeRow:
    """A metric to which the modes give other values.

    Attributes:
        metric: Its name.
        values: For each run its official and its strict value, as texts.
    """

    metric: str
    values: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Scoring:
    """How the scores of a benchmark were made.

    Attributes:
        caveats: What must be known, with the runs' names where it isn't true of all.
        clash: Settings that make the runs' scores incomparable.
        settings: For each setting one text per run.
        modes: The metrics to which the modes give other values in any run.
        labels: The runs that have the benchmark.
    """

    caveats: tuple[str, ...]
    clash: tuple[str, ...]
    settings: Mapping[str, tuple[str, ...]]
    modes: tuple[ModeRow, ...]
    labels: tuple[str, ...]


def scoring(results: Sequence[tuple[str, ScoreResult]]) -> Scoring:
    """How a benchmark was scored.

    Args:
        results: Name and scores of each run that has it.
    """
    flat = [dict(_flat(result.settings)) for _, result in results]
    names = dict.fromkeys(name for settings in flat for name in settings)
    table = {name: tuple(settings.get(name, "") for settings in flat) for name in names}
    clash = [name for name, texts in table.items() if len(set(texts)) > 1 and _is_decisive(name)]
    return Scoring(
        caveats=tuple(_shared_lines([(label, caveats(result)) for label, result in results])),
        clash=tuple(clash),
        settings=table,
        modes=tuple(_mode_rows([result for _, result in results])),
        labels=tuple(label for label, _ in results),
    )


def _flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings with the names of those that contain them before theirs, without empty ones."""
    for name, value in settings.items():
        if name in _LEFT_OUT or value is None or value in ("", [], {}):
            continue
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, (list, tuple)):
            yield prefix + name, ", ".join(map(str, value))
        else:
            yield prefix + name, f"{value:g}" if isinstance(value, float) else str(value)


def _is_decisive(name: str) -> bool:
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in _DECISIVE)


def _shared_lines(found: Sequence[tuple[str, Sequence[str]]]) -> Iterator[str]:
    """Each line once, with the names of the runs that it is about unless it is about all."""
    for line in dict.fromkeys(line for _, lines in found for line in lines):
        labels = [label for label, lines in found if line in lines]
        yield line.strip() if len(labels) == len(found) else f"{', '.join(labels)}: {line.strip()}"


def _mode_rows(results: Sequence[ScoreResult]) -> Iterator[ModeRow]:
    modes = [result.settings.get("modes", {}) for result in results]
    for name in dict.fromkeys(name for result in results for name in mode_differences(result)):
        yield ModeRow(
            name,
            tuple(
                (_shown(mode.get("official", {}).get(name)), _shown(mode.get("strict", {}).get(name)))
                for mode in modes
            ),
        )


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}".replace("-", "−")
