"""What ``mfpo rank`` left beside a dataset: entropy and difficulty of its rows."""

from __future__ import annotations

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
    files = sorted((Path(folder) / "reference").glob("*.parquet"))
    if name is not None:
        files = [path for path in files if path.stem == name]
        if not files:
            raise UserError(
                f"no reference pass {name!r}",
                where=f"{folder}/reference",
                fix="leave --reference out to see the latest one, or run `mfpo rank`",
            )
    if not files:
        return Reference()
    path = max(files, key=lambda file: (file.stat().st_mtime_ns, file.name))
    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(
            f"not a Parquet file: {error}", where=str(path), fix="run `mfpo rank` again"
        ) from None
    names = [column.removeprefix(_ENTROPY) for column in table.column_names if column.startswith(_ENTROPY)]
    if estimator not in names or "id" not in table.column_names:
        raise UserError(
            f"no entropies of the estimator {estimator!r}",
            where=str(path),
            fix=f"--difficulty {' or '.join(names)}" if names else "run `mfpo rank` again",
        )
    columns = (table[name].to_pylist() for name in ("id", _ENTROPY + estimator, _DIFFICULTY + estimator))
    ranks = {identifier: Rank(entropy, level) for identifier, entropy, level in zip(*columns, strict=True)}
    return Reference(path.stem, estimator, ranks)
