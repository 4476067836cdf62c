"""Settings of a text preference source; no heavy imports."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SourceConfig:
    """Source of the text preferences."""

    @property
    def uses_keywords(self) -> bool:
        """Whether the rows' own keywords are used, so that a row whose keywords are none cannot be."""
        return False

    dataset: str = ""
    """Text preferences: a JSONL, JSON, CSV, Parquet or Arrow file (JSON and CSV also as .gz), a folder, or a
    name on the Hub."""
    image_dir: str | None = None
    """Folder that relative image names are in; the dataset's own folder by default. Rows from the Hub may
    name no file outside of it."""
    split: str | None = None
    """Split of a folder or of a dataset on the Hub; train by default."""
    subset: str | None = None
    """Subset (configuration) of a dataset on the Hub or of a folder with a dataset card."""
    revision: str | None = None
    """Revision of a dataset on the Hub: branch, tag or commit."""
    streaming: bool = False
    """Read through `datasets` without downloading the whole dataset first."""
    layout: str = "auto"
    """How rows are written, see docs/data.md; recognised by the columns by default."""
    columns: dict[str, str] = field(default_factory=dict)
    """Your names for the columns of a layout, for example question=prompt chosen=win rejected=lose."""
    limit: int | None = None
    """Use only the first rows of the source."""
