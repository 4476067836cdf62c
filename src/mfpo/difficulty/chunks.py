"""Long passes over the rows of a dataset in chunks: shared among processes, resumed after a kill."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import gather_object
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from mfpo.data.files import atomic_path
from mfpo.errors import Skip

CHUNK_ROWS = 64
"""Rows after which what was computed is brought to the disk. Chunks begin at multiples of it whatever the
batch size and the number of processes are, so that neither changes what a chunk holds."""


@dataclass
class Chunk:
    """What a pass found out about consecutive rows.

    Attributes:
        ids: Ids of the n rows that could be used.
        columns: Numbers of these rows by name, first dimension n or, for ragged ones, what they need.
        skips: The rows that could not be used.
        notes: One JSON object for each of the n rows, or nothing.
    """

    ids: list[str]
    columns: dict[str, Tensor]
    skips: list[Skip] = field(default_factory=list)
    notes: list[dict[str, Any]] = field(default_factory=list)

    def save(self, path: Path, wanted: Sequence[str]) -> None:
        """Write the chunk atomically.

        Args:
            path: The file.
            wanted: Ids of all rows that it is about, by which [`load`] recognises it.
        """
        texts = {
            "wanted": list(wanted),
            "ids": self.ids,
            "skips": [skip.to_dict() for skip in self.skips],
            "notes": self.notes,
        }
        with atomic_path(path) as temporary:
            save_file(self.columns, temporary, {"chunk": json.dumps(texts)})

    @classmethod
    def load(cls, path: Path, wanted: Sequence[str]) -> Chunk | None:
        """The chunk in a file; None if there is none, or it is about other rows."""
        try:
            with safe_open(path, framework="pt") as file:
                texts = json.loads((file.metadata() or {})["chunk"])
                columns = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        if texts["wanted"] != list(wanted):
            return None
        return cls(texts["ids"], columns, [Skip(**entry) for entry in texts["skips"]], texts["notes"])


def compute_in_chunks(
    ids: Sequence[str],
    compute: Callable[[Sequence[range]], Generator[Chunk, None, None]],
    *,
    folder: Path | None,
    label: str,
    progress: bool = True,
) -> list[Chunk]:
    """Run a pass over rows, chunk by chunk.

    Process p of P takes the chunks p, p + P, ...; a chunk that an earlier run stored is not computed again.
    A chunk depends on its rows alone, so that an interrupted pass ends with the bits of an uninterrupted one.

    Args:
        ids: Ids of all rows.
        compute: Makes the chunk of each of these ranges of rows, in their order, when it is asked for.
        folder: Where chunks are stored as they are done; None stores nothing.
        label: What the progress bar is called.
        progress: Whether to show one.

    Returns:
        All chunks in the order of the rows, in every process.
    """
    state = PartialState()
    starts = range(0, len(ids), CHUNK_ROWS)[state.process_index :: state.num_processes]
    mine = [range(start, min(start + CHUNK_ROWS, len(ids))) for start in starts]
    done: dict[int, Chunk] = {}
    if folder is not None:
        for rows in mine:
            chunk = Chunk.load(_file(folder, rows), ids[rows.start : rows.stop])
            if chunk is not None:
                done[rows.start] = chunk
    missing = [rows for rows in mine if rows.start not in done]
    known = min(sum(len(rows) for rows in mine if rows.start in done) * state.num_processes, len(ids))
    show = progress and state.is_main_process
    with (
        tqdm(total=len(ids), initial=known, desc=label, unit="row", disable=not show) as bar,
        closing(compute(missing)) as chunks,
    ):
        for rows, chunk in zip(missing, chunks, strict=True):
            if folder is not None:
                chunk.save(_file(folder, rows), ids[rows.start : rows.stop])
            done[rows.start] = chunk
            bar.update(min(len(rows) * state.num_processes, len(ids) - bar.n))
    return [chunk for _, chunk in sorted(gather_object(list(done.items())), key=lambda item: item[0])]


def _file(folder: Path, rows: range) -> Path:
    return folder / f"{rows.start:09d}.safetensors"


def discard_chunks(folder: Path) -> None:
    """Remove stored chunks, once what they add up to is stored; every process calls it."""
    state = PartialState()
    state.wait_for_everyone()
    if state.is_local_main_process:
        shutil.rmtree(folder, ignore_errors=True)
