"""The dataset contract on disk: Parquet shards that ``datasets.load_dataset`` opens, read lazily.

A finished folder holds ``data/train-00000-of-0000N.parquet``, ``skipped.jsonl``, ``manifest.json`` and
``README.md``. While it is written, whole shards wait in ``.build``; a run that was killed goes on after the
last of them.
"""

from __future__ import annotations

import json
import os
import shlex
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mfpo.data.columns import pair_from_row
from mfpo.errors import UserError
from mfpo.records import PreferencePair

MANIFEST = "manifest.json"
SKIPPED = "skipped.jsonl"
STAGING = ".build"
"""Where whole shards wait while a folder is written."""


class PreferenceDataset:
    """Rows of a dataset folder, read when they are asked for; images stay encoded.

    It can be pickled and used in worker processes. ``len``, integer indexing and iteration are what it has.

    Args:
        folder: A folder in the dataset contract.

    Attributes:
        ids: Ids of the rows, in their order.

    Raises:
        UserError: There is no (finished) dataset in the folder, or one of its files cannot be read.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._files = shard_files(self.folder)
        # Killed while the shards got their names, a folder holds some of them.
        half_named = (self.folder / STAGING).is_dir() and read_manifest(self.folder) is None
        if not self._files or half_named:
            raise _no_dataset(self.folder)
        self.ids: list[str] = []
        self._groups: list[tuple[int, int, int, int]] = []
        for number, path in enumerate(self._files):
            try:
                self._index(number, path)
            except pa.ArrowInvalid as error:
                raise UserError(
                    f"not a Parquet file: {error}", where=str(path), fix="build the dataset again"
                ) from None
        self._starts = [start for start, *_ in self._groups]
        self._reset()

    def _index(self, number: int, path: Path) -> None:
        with pq.ParquetFile(path) as file:
            if "id" not in file.schema_arrow.names:
                raise UserError(
                    "the dataset has no column `id`",
                    where=str(path),
                    fix="make it with `mfpo build --dataset ...`",
                )
            for group in range(file.num_row_groups):
                ids = file.read_row_group(group, columns=["id"])["id"].to_pylist()
                self._groups.append((len(self.ids), len(ids), number, group))
                self.ids.extend(ids)

    def _reset(self) -> None:
        self._pid = os.getpid()
        # What a file says of its groups takes two megabytes in memory.
        self._open = lru_cache(maxsize=16)(
            lambda number: pq.ParquetFile(self._files[number], memory_map=True)
        )
        self._read = lru_cache(maxsize=4)(
            lambda number, group: self._open(number).read_row_group(group, use_threads=False)
        )

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_open", "_read")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._reset()

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> PreferencePair:
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"row {index} of {len(self)}")
        if self._pid != os.getpid():
            # A forked worker must not share file handles with its parent.
            self._reset()
        position = bisect_right(self._starts, index) - 1
        start, _, number, group = self._groups[position]
        return pair_from_row(self._read(number, group).slice(index - start, 1).to_pylist()[0])

    def __iter__(self) -> Iterator[PreferencePair]:
        return (self[index] for index in range(len(self)))

    def without_images(self, *, rejected: bool = True) -> Iterator[PreferencePair]:
        """All rows in their order, with ``images`` empty: what fills most of the files is not read.

        Args:
            rejected: Whether stored rejected images are read.
        """
        left_out = {"images"} if rejected else {"images", "rejected_images"}
        for _, _, number, group in self._groups:
            file = self._open(number)
            columns = [name for name in file.schema_arrow.names if name not in left_out]
            for row in file.read_row_group(group, columns=columns, use_threads=False).to_pylist():
                yield pair_from_row(row)


def open_dataset(folder: str | Path) -> PreferenceDataset:
    """Open a dataset folder, see [`PreferenceDataset`]."""
    return PreferenceDataset(folder)


def read_manifest(folder: str | Path) -> dict[str, Any] | None:
    """``manifest.json`` of a finished dataset folder, or None; also where it is another program's."""
    path = Path(folder) / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = read_json(path)
    except ValueError:
        return None
    return manifest if isinstance(manifest, dict) and "fingerprint" in manifest else None


def shard_files(folder: str | Path) -> list[Path]:
    """The finished shards of a dataset folder, in order."""
    return sorted((Path(folder) / "data").glob("train-*.parquet"))


def stored_columns(folder: str | Path) -> set[str]:
    """Names of the columns of a dataset folder's finished shards; empty where there are none."""
    return set().union(*(pq.read_schema(path).names for path in shard_files(folder)[:1]))


def has_finished_shards(folder: str | Path) -> bool:
    """Whether an unfinished dataset folder holds rows that a resumed run need not make again."""
    return any((Path(folder) / STAGING).glob("[0-9]*.json"))


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of the folder."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return record


def _no_dataset(folder: Path) -> UserError:
    if folder.is_file():
        return _a_file(folder)
    if (folder / STAGING).is_dir() and not has_finished_shards(folder):
        return UserError(
            "no dataset in this folder: what was begun here finished no rows",
            where=str(folder),
            fix="run the command that was to make it once more; its settings may be others",
        )
    if (folder / STAGING).is_dir():
        return UserError(
            "the dataset in this folder is unfinished",
            where=str(folder),
            fix="run the command that made it once more",
        )
    what = "no dataset in this folder" if folder.is_dir() else "no such folder"
    return UserError(what, where=f"--dataset {folder}", fix="make one with `mfpo build` or `mfpo scenes`")


def _a_file(path: Path) -> UserError:
    """A source that is not built yet, or a shard in the place of its folder."""
    folder = path.absolute().parent.parent
    if path.parent.name == "data" and path in shard_files(path.parent.parent):
        fix = f"give its folder: --dataset {shlex.quote(str(folder))}"
    else:
        name = path.name.partition(".")[0] or "mine"
        command = shlex.join(["mfpo", "build", "--dataset", str(path), "--output_dir", f"data/{name}"])
        fix = f"make a dataset folder of it with `{command}`, and give --dataset that folder"
    return UserError("a file, and not a dataset folder", where=f"--dataset {path}", fix=fix)
