"""The score file: metrics, the item records they come from, and what was scored how."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mfpo.data.files import write_json
from mfpo.errors import UserError
from mfpo.evaluation.statistics import Metric, estimates, tabulate

INTERVAL = "percentile bootstrap over groups of items, 95%"


@dataclass(slots=True)
class ScoreResult:
    """What a benchmark or a probe found, as it stands in ``scores/<name>.json``.

    Attributes:
        metrics: Value of each metric; NaN (``null`` in the file) where it is undefined.
        items: One record per item with every count that the metrics are made of.
        settings: What was scored how. ``benchmark`` is the name, ``definitions`` says how each metric follows
            from the items, so that intervals and paired tests need nothing but this file.
        intervals: Ends of each metric's 95% interval.
    """

    metrics: dict[str, float]
    items: list[dict[str, Any]] = field(repr=False)
    settings: dict[str, Any] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the benchmark or probe."""
        return str(self.settings["benchmark"])

    @property
    def definitions(self) -> dict[str, Metric]:
        """How each metric follows from the items."""
        return {name: Metric(**definition) for name, definition in self.settings["definitions"].items()}

    def save(self, path: str | Path) -> None:
        """Write the score file, atomically."""
        write_json(
            path,
            {
                "metrics": {name: finite(value) for name, value in self.metrics.items()},
                "intervals": {
                    name: [finite(low), finite(high)] for name, (low, high) in self.intervals.items()
                },
                "items": self.items,
                "settings": self.settings,
            },
        )

    @classmethod
    def load(cls, path: str | Path) -> ScoreResult:
        """Read a score file.

        Raises:
            UserError: The file cannot be read or is no score file.
        """
        fix = "score files are written by `mfpo score`, `mfpo eval` and `mfpo probe`"
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"the score file cannot be read: {error.strerror}", where=str(path), fix=fix
            ) from None
        except ValueError as error:
            raise UserError(f"broken JSON: {error}", where=str(path), fix=fix) from None
        try:
            result = cls(
                metrics={name: _number(value) for name, value in content["metrics"].items()},
                items=list(content["items"]),
                settings=dict(content["settings"]),
                intervals={
                    name: (_number(low), _number(high))
                    for name, (low, high) in content.get("intervals", {}).items()
                },
            )
            tabulate(result.items, result.definitions)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise UserError(f"no score file of this program: {error!r}", where=str(path), fix=fix) from None
        return result


def load_scores(folder: Path) -> dict[str, ScoreResult]:
    """The score files of a folder, by their names without ending."""
    return {file.stem: ScoreResult.load(file) for file in sorted(folder.glob("*.json"))}


def by_benchmark(runs: Sequence[Mapping[str, ScoreResult]]) -> list[dict[str, ScoreResult]]:
    """Scores of runs under the names by which they compare.

    That is the benchmark or probe; the file where any of the runs has several files of it, such as
    ``pope_random`` and ``pope_popular``, or scores of both modes.

    Args:
        runs: Of each run, its scores by file.
    """
    files: dict[str, set[str]] = {}
    for run in runs:
        times = Counter(result.name for result in run.values())
        for stem, result in run.items():
            if times[result.name] > 1:
                files.setdefault(result.name, set()).add(stem)
    return [
        {stem if stem in files.get(one.name, ()) else one.name: one for stem, one in run.items()}
        for run in runs
    ]


def score_result(
    name: str, records: Sequence[dict[str, Any]], metrics: Mapping[str, Metric], settings: Mapping[str, Any]
) -> ScoreResult:
    """Metrics with intervals from item records.

    Args:
        name: Name of the benchmark or probe.
        records: One per item, see [`mfpo.evaluation.statistics.tabulate`].
        metrics: How each metric follows from them.
        settings: What was scored how, to be kept with the result.
    """
    found = estimates(tabulate(records, metrics))
    definitions = {metric: definition.to_dict() for metric, definition in metrics.items()}
    return ScoreResult(
        metrics={metric: estimate.value for metric, estimate in found.items()},
        items=list(records),
        settings={"benchmark": name, **settings, "interval": INTERVAL, "definitions": definitions},
        intervals={metric: (estimate.low, estimate.high) for metric, estimate in found.items()},
    )


def finite(value: float) -> float | None:
    """A metric as it stands in a file: JSON has no NaN, so None where it is undefined."""
    return None if math.isnan(value) else value


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
