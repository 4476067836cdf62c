"""Pictures of benchmark items, small enough for a page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePath
from typing import Any

from mfpo.errors import RowError, UserError
from mfpo.evaluation.benchmarks import load_benchmark
from mfpo.evaluation.benchmarks.base import BenchmarkSettings, Item
from mfpo.evaluation.results import ScoreResult
from mfpo.report.page import data_uri

SIDE = 320
# Below this size JPEG artefacts are as large as what is drawn.
_SMALL = 160


class ItemPictures:
    """Opens pictures as the benchmark of a score file does, each once.

    Args:
        result: The score file, whose settings say where its data is.
        data_dir: Where its data is looked for before the place that the settings name.
    """

    def __init__(self, result: ScoreResult, data_dir: str | None = None) -> None:
        self._result, self._data_dir = result, data_dir
        self._known: dict[tuple[str, str], tuple[int, str]] = {}
        self.uris: list[str] = []

    def find(self, record: Mapping[str, Any]) -> tuple[int, str]:
        """Place of an item's picture in ``uris``; or -1, and why there is none."""
        key = str(record.get("image", "")), str(record.get("group", record["id"]))
        if key not in self._known:
            self._known[key] = self._opened(record)
        return self._known[key]

    def _opened(self, record: Mapping[str, Any]) -> tuple[int, str]:
        names = {name: str(record.get(name, "")) for name in ("id", "question", "image", "kind", "group")}
        image = PurePath(names["image"])
        # A name comes from an answer file and must not reach for pictures that are no part of the benchmark.
        if image.is_absolute() or ".." in image.parts:
            return -1, "its name leads out of the benchmark's folder"
        problem = "not found"
        for settings in self._settings():
            try:
                picture = load_benchmark(self._result.name, settings).open_image(Item(**names))
            except RowError as error:
                problem = error.reason
            except (UserError, OSError, LookupError, ValueError):
                continue
            else:
                self.uris.append(data_uri(picture, SIDE, lossless=max(picture.size) <= _SMALL, quality=76))
                return len(self.uris) - 1, ""
        return -1, problem

    def _settings(self) -> Iterator[BenchmarkSettings]:
        """What the benchmark is opened with: where the user says that its pictures are, then as scored."""
        names = ("data_dir", "split", "num_samples", "variant")
        kept = {name: self._result.settings[name] for name in names if self._result.settings.get(name)}
        if self._data_dir is not None:
            yield BenchmarkSettings(**{**kept, "data_dir": self._data_dir})
        yield BenchmarkSettings(**kept)
