"""What ``mfpo rank`` left beside a dataset: entropy and difficulty of its rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mfpo.errors import UserError
from mfpo.report.browser.rows import Rank

_ENTROPY, _DIFFICULTY = "entropy_", "difficulty_"


@dataclass(frozen=True, slots=True)
class Reference:
    """A finished reference pass.

    Attributes:
        name: Its fingerprint; empty without one.
        estimator: Estimator of the entropies.
        ranks: By id of the row.
    """

    name: str = ""
    estimator: str = ""
    ranks: dict[str, Rank] = field(default_factory=dict)


def load_reference(folder: str | Path, estimator: str, name: str | None = None) -> Reference:
    """Read a reference pass of a dataset.

    Args:
        folder: The dataset folder.
        estimator: Which entropies.
        name: Fingerprint of the pass; the latest when None.

    Returns:
        The pass; an empty one where the dataset was not ranked.

    Raises:
        UserError: There is no pass of that name, it has no such estimator, or its file cannot be read.
    """
    passes = _passes(Path(folder) / "reference")
    if name is not None and name not in passes:
        raise UserError(
            f"no reference pass {name!r}",
            where=f"{folder}/reference",
            fix="leave --reference out to see the latest one, or run `mfpo rank`",
        )
    if not passes:
        return Reference()
    name = name or max(passes, key=lambda one: (_changed(passes[one]), one))
    table = _table_with(passes[name], estimator)
    columns = (table[column].to_pylist() for column in ("id", _ENTROPY + estimator, _DIFFICULTY + estimator))
    ranks = {identifier: Rank(entropy, level) for identifier, entropy, level in zip(*columns, strict=True)}
    return Reference(name, estimator, ranks)


def _passes(folder: Path) -> dict[str, list[Path]]:
    """Files of each pass by its fingerprint: that of the scores first, then those with further entropies.

    ``mfpo rank --semantic`` writes ``<fingerprint>.semantic.parquet`` beside ``<fingerprint>.parquet``.
    """
    passes: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.parquet"), key=lambda file: (len(file.suffixes), file.name)):
        passes.setdefault(path.name.partition(".")[0], []).append(path)
    return passes


def _changed(files: Sequence[Path]) -> int:
    """When the newest of the files was written, in nanoseconds."""
    return max(file.stat().st_mtime_ns for file in files)


def _table_with(files: Sequence[Path], estimator: str) -> pa.Table:
    """The first table that has the entropies of an estimator."""
    names: list[str] = []
    for path in files:
        table = _read(path)
        own = [name.removeprefix(_ENTROPY) for name in table.column_names if name.startswith(_ENTROPY)]
        if estimator in own and "id" in table.column_names:
            return table
        names += own
    raise UserError(
        f"no entropies of the estimator {estimator!r}",
        where=str(files[0]),
        fix=_cure(estimator, names),
    )


def _cure(estimator: str, names: Sequence[str]) -> str:
    """What to do about entropies that a pass lacks."""
    run = "run `mfpo rank --semantic`" if estimator == "semantic" else "run `mfpo rank` again"
    others = [name for name in names if name != estimator]
    return f"--difficulty {' or '.join(others)}, or {run}" if others else run


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"not a Parquet file: {error}", where=str(path), fix="run `mfpo rank` again"
        ) from None
