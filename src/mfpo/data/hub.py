"""Sources that are read through ``datasets``: the Hub, saved datasets, folders with a card, streams."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mfpo.data.source_config import SourceConfig
from mfpo.data.tables import BATCH, RawRow, batch_rows
from mfpo.errors import Skip, UserError

_NOT_FOUND = "neither a local path nor a dataset of the Hub that can be loaded"
_KINDS = {"string": str, "large_string": str, "bool": bool}


class HubTable:
    """Rows of a dataset that ``datasets`` loads; images stay encoded.

    Args:
        config: The source; its ``dataset`` is a name on the Hub or a folder.

    Attributes:
        kind: What it is, for people.

    Raises:
        UserError: It cannot be loaded.
    """

    def __init__(self, config: SourceConfig) -> None:
        self._name = config.dataset
        self.kind = f"dataset read through datasets, split {config.split or 'train'}"
        self._data = _load(config)

    def rows(self, *, images: bool = True) -> Iterator[RawRow | Skip]:
        """The rows, see `mfpo.data.tables.table_rows`; images are always there."""
        try:
            batches = self._data.with_format("arrow").iter(batch_size=BATCH)
            yield from batch_rows(batches, Path(self._name).name)
        except (OSError, ValueError, RuntimeError) as error:
            raise UserError(
                f"the dataset cannot be read to its end: {_first_line(error)}",
                where=f"--dataset {self._name}",
            ) from None

    def count(self) -> int | None:
        """Number of rows, where it is known before they are read."""
        if hasattr(self._data, "__len__"):
            return len(self._data)
        splits = self._data.info.splits or {}
        known = splits.get(str(self._data.split))
        return None if known is None else known.num_examples

    def types(self) -> Mapping[str, type] | None:
        """Columns of simple values and their types; None if only the rows tell."""
        features = self._data.features
        if features is None:
            return None
        kinds = {name: _simple(getattr(feature, "dtype", None)) for name, feature in features.items()}
        return {name: kind for name, kind in kinds.items() if kind is not None}

    def column_names(self) -> list[str] | None:
        """All columns; None if only the rows tell."""
        names = self._data.column_names
        return None if names is None else list(names)

    @property
    def stamp(self) -> str:
        """Changes when the dataset does, as far as ``datasets`` can tell."""
        return str(getattr(self._data, "_fingerprint", "")) if hasattr(self._data, "__len__") else ""

    @property
    def licence(self) -> str:
        """The licence that the dataset states, or nothing."""
        return str(self._data.info.license or "")


def cache_folders() -> list[Path]:
    """Where ``datasets`` puts what it downloads."""
    from datasets import config
    from huggingface_hub import constants

    return [Path(config.HF_DATASETS_CACHE), Path(constants.HF_HUB_CACHE)]


def _load(config: SourceConfig) -> Any:
    from datasets import load_dataset, load_from_disk

    folder = Path(config.dataset)
    try:
        if is_saved(folder):
            return load_from_disk(str(_saved_split(folder, config.split)))
        return load_dataset(
            config.dataset,
            name=config.subset,
            split=config.split or "train",
            revision=config.revision,
            streaming=config.streaming,
        )
    except UserError:
        raise
    except Exception as error:  # whatever the network, the Hub and the dataset's own files can raise
        what = "datasets cannot load it" if folder.exists() else _NOT_FOUND
        raise UserError(
            f"{what}: {_first_line(error)}",
            where=f"--dataset {config.dataset}",
            fix="check the name, --subset, --split and the network, or give a local file or folder",
        ) from None


def _saved_split(folder: Path, split: str | None) -> Path:
    if not (folder / "dataset_dict.json").is_file():
        return folder
    splits = sorted(item.name for item in folder.iterdir() if (item / "state.json").is_file())
    if (split or "train") not in splits:
        raise UserError(
            f"there is no split {split or 'train'}",
            where=str(folder),
            fix=f"name one with --split: {', '.join(splits)}",
        )
    return folder / (split or "train")


def is_saved(folder: Path) -> bool:
    """Whether ``save_to_disk`` wrote the folder."""
    one = (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file()
    return one or (folder / "dataset_dict.json").is_file()


def _simple(dtype: Any) -> type | None:
    """The type that holds all values of a column; integers that may exceed 63 bits become text."""
    if not isinstance(dtype, str):
        return None
    if dtype == "uint64":
        return str
    if dtype.startswith(("int", "uint")):
        return int
    return float if dtype.startswith("float") else _KINDS.get(dtype)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
