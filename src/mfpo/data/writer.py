"""Writes a dataset folder in whole shards, so that a build that was killed goes on after the last of them."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from mfpo.data.card import dataset_card
from mfpo.data.columns import ExtraTypes, extra_types, row_from_pair, schema
from mfpo.data.files import atomic_path, write_atomic, write_json, write_jsonl
from mfpo.data.folder import (
    MANIFEST,
    SKIPPED,
    STAGING,
    has_finished_shards,
    read_json,
    read_manifest,
    shard_files,
)
from mfpo.errors import Skip, UserError
from mfpo.records import PreferencePair

ROWS_PER_SHARD = 1000
BYTES_PER_SHARD = 256 * 2**20
ROWS_PER_GROUP = 16
"""Rows that are read together; few, so that a shuffled reader touches little."""
CARD, SETTINGS = "README.md", "config.yaml"
OWN_FILES = (CARD, SETTINGS, SKIPPED, MANIFEST)
"""Files of a dataset folder beside its shards; the settings are written by the commands."""
_STATE = "state.json"
_CURES = {
    "missing-image": "if the images lie elsewhere, name their folder with --image_dir",
    "outside-image-dir": "name the folder of the images with --image_dir",
    "remote-image": "fetch the images, and name their folder with --image_dir",
}
"""What to do about reasons for which rows are left out, where something can be done."""


@dataclass(frozen=True, slots=True)
class FinishedShard:
    """A shard that an interrupted run completed.

    Attributes:
        ids: Ids of its rows.
        position: [`DatasetWriter.position`] when it was completed.
        skipped: Rows left out since the shard before it.
    """

    ids: tuple[str, ...]
    position: int
    skipped: tuple[Skip, ...]


class DatasetWriter:
    """Writes a dataset folder; nothing appears under its final name before the block has ended well.

    Args:
        output_dir: The folder; created, and checked to be writable.
        extra_columns: Name and type of the further columns; found in the rows of the first shard when None.
        rejected_images: Whether rows carry rejected images; found likewise when None.
        fingerprint: Identifies what is written. A later writer with the same fingerprint goes on after the
            shards that an interrupted one completed, see [`finished`]; without one, it begins anew.
        overwrite: Whether a finished or half-finished folder with another fingerprint may be replaced.
        info: Further entries of ``manifest.json``.
        rows_per_shard: Rows after which a shard is complete.
        bytes_per_shard: Bytes of images after which a shard is complete.

    Attributes:
        position: How many items of the source lie behind what has been written; a resumed run starts there.
            The caller sets it before each ``write``.
        finished: Shards of an interrupted run; the rows in them must not be written again.
        info: Further entries of ``manifest.json``, of which some may become known while rows are written.

    Raises:
        UserError: The folder cannot be written, or holds something else.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        extra_columns: ExtraTypes | None = None,
        rejected_images: bool | None = None,
        fingerprint: str = "",
        overwrite: bool = False,
        info: Mapping[str, Any] | None = None,
        rows_per_shard: int = ROWS_PER_SHARD,
        bytes_per_shard: int = BYTES_PER_SHARD,
    ) -> None:
        self.folder = Path(output_dir)
        self.position = 0
        self._extra, self._rejected = extra_columns, rejected_images
        self._schema: pa.Schema | None = None
        self._fingerprint, self.info = fingerprint, dict(info or {})
        self._rows_per_shard, self._bytes_per_shard = rows_per_shard, bytes_per_shard
        self._rows: list[PreferencePair] = []
        self._bytes = 0
        self._skipped: list[Skip] = []
        check_writable(self.folder)
        self._prepare_staging(overwrite)
        self.finished = _finished_shards(self._staging)
        if self.finished:
            self.position = self.finished[-1].position
        self._shards = len(self.finished)

    @property
    def scratch(self) -> Path:
        """Folder for what a resumed run with the same fingerprint needs; gone when the dataset is done."""
        return self._staging

    @property
    def _staging(self) -> Path:
        return self.folder / STAGING

    def _prepare_staging(self, overwrite: bool) -> None:
        if self._fingerprint and _begun(self.folder) == self._fingerprint:
            return
        check_free(self.folder, self._fingerprint, overwrite=overwrite)
        shutil.rmtree(self._staging, ignore_errors=True)
        write_json(self._staging / _STATE, {"fingerprint": self._fingerprint})

    def __enter__(self) -> DatasetWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()
        elif not self._fingerprint:
            self.discard()  # nobody can go on with it

    def write(self, pair: PreferencePair) -> None:
        """Add a row; its images must be in memory or readable.

        Raises:
            RowError: An image cannot be read.
            ValueError: It has a column that the first shard did not have.
        """
        images = [source.read() for source in (*pair.images, *pair.rejected_images)]
        self._rows.append(pair)
        self._bytes += sum(len(data) for data in images)
        if len(self._rows) >= self._rows_per_shard or self._bytes >= self._bytes_per_shard:
            self._flush()

    def skip(self, skip: Skip) -> None:
        """Note a row that was left out; it goes to ``skipped.jsonl``."""
        self._skipped.append(skip)

    def close(self) -> None:
        """Give the shards their final names and write the pages that go with them.

        Raises:
            UserError: No row was written.
        """
        if self._rows:
            self._flush()
        if not self._shards:
            self.discard()
            raise _nothing_left(self.folder, self._skipped)
        last = self._staging / "last.json"
        if not last.is_file():
            write_json(last, {"skipped": [skip.to_dict() for skip in self._skipped]})
        self._publish(json.loads(last.read_text())["skipped"])

    def discard(self) -> None:
        """Remove what is unfinished."""
        shutil.rmtree(self._staging, ignore_errors=True)

    def _flush(self) -> None:
        if self._schema is None:
            self._extra = (
                extra_types(pair.extra for pair in self._rows) if self._extra is None else self._extra
            )
            if self._rejected is None:
                self._rejected = any(pair.rejected_images for pair in self._rows)
            self._schema = schema(self._extra, rejected_images=self._rejected)
        rows = [
            row_from_pair(pair, self._extra or {}, rejected_images=bool(self._rejected))
            for pair in self._rows
        ]
        table = pa.Table.from_pylist(rows, schema=self._schema)
        name = self._staging / f"{self._shards:05d}"
        with atomic_path(name.with_suffix(".parquet")) as path:
            # Nobody asks for the least and greatest value of a column, and they take a fourth of a file.
            pq.write_table(table, path, row_group_size=ROWS_PER_GROUP, write_statistics=False)
        # The record comes second: a shard without one is written again.
        write_json(
            name.with_suffix(".json"),
            {
                "ids": [pair.id for pair in self._rows],
                "position": self.position,
                "skipped": [skip.to_dict() for skip in self._skipped],
            },
        )
        self._shards += 1
        self._rows, self._bytes, self._skipped = [], 0, []

    def _publish(self, last_skipped: list[dict[str, str]]) -> None:
        """Move the shards into place. Killed in between, it is repeated and comes to the same end."""
        records = [read_json(path) for path in sorted(self._staging.glob("[0-9]*.json"))]
        (self.folder / MANIFEST).unlink(missing_ok=True)
        data = self.folder / "data"
        data.mkdir(exist_ok=True)
        count = len(records)
        names = [data / f"train-{index:05d}-of-{count:05d}.parquet" for index in range(count)]
        moved = {name for index, name in enumerate(names) if not self._staged(index).is_file()}
        for old in set(shard_files(self.folder)) - moved:
            old.unlink()
        for index, name in enumerate(names):
            if name not in moved:
                self._staged(index).replace(name)
        skipped = [entry for record in records for entry in record["skipped"]] + last_skipped
        write_jsonl(self.folder / SKIPPED, skipped)
        rows = sum(len(record["ids"]) for record in records)
        table_schema = pq.read_schema(names[0])
        write_atomic(self.folder / CARD, dataset_card(self.folder.resolve().name, rows, table_schema))
        manifest = {
            "fingerprint": self._fingerprint,
            "rows": rows,
            "skipped": len(skipped),
            "shards": [{"name": n.name, "rows": len(r["ids"])} for n, r in zip(names, records, strict=True)],
            **self.info,
        }
        write_json(self.folder / MANIFEST, manifest)
        self.discard()

    def _staged(self, index: int) -> Path:
        return self._staging / f"{index:05d}.parquet"


def check_free(
    folder: str | Path, fingerprint: str, *, overwrite: bool = False, files: Sequence[str] = OWN_FILES
) -> None:
    """Complain if a writer with these settings would refuse the folder; nothing is written.

    Args:
        folder: The dataset folder.
        fingerprint: See [`DatasetWriter`].
        overwrite: See [`DatasetWriter`].
        files: Names of the files that are written into it beside the shards.

    Raises:
        UserError: It holds a dataset, or finished rows of an unfinished one, with other settings, or files of
            these names and no dataset that they belong to.
    """
    begun = _begun(Path(folder))
    if overwrite or (fingerprint and begun == fingerprint):
        return
    if begun and has_finished_shards(folder):
        raise UserError(
            "an unfinished dataset with other settings is here",
            where=str(folder),
            fix="repeat the settings to finish it, or pass --overwrite to begin anew",
        )
    if shard_files(folder):
        raise UserError(
            "a dataset is already here",
            where=str(folder),
            fix="choose another --output_dir, or pass --overwrite to replace it",
        )
    if begun is None and read_manifest(folder) is None:
        _check_files(Path(folder), files)


def _check_files(folder: Path, files: Sequence[str]) -> None:
    """Complain about files that somebody else wrote, and that a dataset would replace."""
    there = [name for name in files if (folder / name).exists()]
    if there:
        raise UserError(
            f"{' and '.join(there)} would be replaced, and no dataset is here that they belong to",
            where=str(folder),
            fix="choose another --output_dir, or pass --overwrite to replace them",
        )


def _begun(folder: Path) -> str | None:
    """Fingerprint of what is unfinished in a folder."""
    state = folder / STAGING / _STATE
    return read_json(state)["fingerprint"] if state.is_file() else None


def check_writable(folder: str | Path, *, keep: bool = True) -> None:
    """Create a folder and a file in it, and remove the file again.

    Args:
        folder: The folder.
        keep: Whether the folder stays where it was not there before.

    Raises:
        UserError: It cannot be done.
    """
    folder = Path(folder)
    probe = folder / f".write-test-{os.getpid()}"
    try:
        created = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
        for path in () if keep else created:
            with suppress(OSError):  # somebody else may use it by now
                path.rmdir()
    except OSError as error:
        raise UserError(
            f"the folder cannot be written: {error.strerror}",
            where=f"--output_dir {folder}",
            fix="choose a folder you may write to",
        ) from None


def _nothing_left(folder: Path, skipped: Sequence[Skip]) -> UserError:
    if not skipped:
        return UserError("there are no rows to write", where=str(folder), fix="check the source")
    reasons = Counter(skip.reason for skip in skipped)
    counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
    first = next((skip for skip in skipped if skip.reason != "duplicate"), skipped[0])
    cures = [_CURES[reason] for reason, _ in reasons.most_common() if reason in _CURES]
    example = f"the first one left out is {first.where}: {first.reason}, {first.detail}"
    return UserError(
        f"no row can be used ({counts})", where=str(folder), fix="; ".join([*cures[:1], example])
    )


def _finished_shards(staging: Path) -> list[FinishedShard]:
    """Shards with their record, up to the first gap."""
    shards: list[FinishedShard] = []
    while (path := staging / f"{len(shards):05d}.json").is_file():
        record = read_json(path)
        skipped = tuple(Skip(**entry) for entry in record["skipped"])
        shards.append(FinishedShard(tuple(record["ids"]), record["position"], skipped))
    return shards
