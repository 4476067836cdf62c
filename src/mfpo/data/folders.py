"""Which files of a folder are the data of a split."""

from __future__ import annotations

from pathlib import Path

from mfpo.data.tables import FILE_KINDS, file_kind
from mfpo.errors import UserError

_COMPANIONS = frozenset(
    {"dataset_info.json", "dataset_infos.json", "manifest.json", "skipped.jsonl", "state.json"}
)
"""Files that lie beside data and are none."""


def split_files(folder: Path, split: str | None) -> list[Path]:
    """The data files of a split: Parquet shards in ``data`` or in the folder itself, else one file.

    A file belongs to the split that its name begins with. Where nothing is named train, and no split is asked
    for, the shards are taken together; of other files there must be only one.

    Raises:
        UserError: There are no data files, none of the split, or several that could be meant.
    """
    for place in (folder / "data", folder):
        shards = sorted(place.glob("*.parquet"))
        if shards:
            named = [shard for shard in shards if _belongs(shard, split or "train")]
            if named or split is None:
                return named or shards
            raise _no_such_split(folder, split, shards)
    plain = sorted(
        item
        for item in folder.iterdir()
        if file_kind(item) in FILE_KINDS and item.name not in _COMPANIONS and item.is_file()
    )
    if not plain:
        raise UserError(
            "no data in this folder",
            where=str(folder),
            fix=f"a file of one of these types is needed: {', '.join(FILE_KINDS)}",
        )
    named = [item for item in plain if _belongs(item, split or "train")]
    if split is not None and not named:
        raise _no_such_split(folder, split, plain)
    chosen = named or plain
    if len(chosen) > 1:
        names = ", ".join(item.name for item in chosen[:8])
        raise UserError(
            "the folder holds several data files", where=str(folder), fix=f"name one of them: {names}"
        )
    return chosen


def needs_datasets(folder: Path) -> bool:
    """Whether the card of a folder, or the folders in it, may say which files are which split or subset."""
    below = [item for item in folder.glob("[!.]*/*") if file_kind(item) in FILE_KINDS]
    if below and not any(folder.glob("data/*.parquet")):
        return True
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return text.startswith("---") and "\nconfigs:" in text


def _belongs(file: Path, split: str) -> bool:
    return file.name.startswith((f"{split}-", f"{split}.", f"{split}_"))


def _no_such_split(folder: Path, split: str, files: list[Path]) -> UserError:
    names = ", ".join(item.name for item in files[:8])
    return UserError(
        f"no file here belongs to a split {split}",
        where=str(folder),
        fix=f"the name of a split's files begins with it; here are {names}",
    )
