"""What a build did, for people at a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from mfpo.data.annotations import AnnotatedImage, Annotations
from mfpo.data.files import read_jsonl
from mfpo.data.folder import SKIPPED, shard_files
from mfpo.errors import RowError


@dataclass
class Summary:
    """Counts of a dataset.

    Attributes:
        rows: Rows that are in it.
        skipped: How many were left out, by reason; ``duplicate`` is one of them.
        keywords: Keywords of all rows.
        found: Keywords with at least one region.
        without_region: Rows none of whose keywords was found.
        scopes: Rows by the scope of their noise.
    """

    rows: int = 0
    skipped: Counter[str] = field(default_factory=Counter)
    keywords: int = 0
    found: int = 0
    without_region: int = 0
    scopes: Counter[str] = field(default_factory=Counter)

    @property
    def found_share(self) -> float:
        """Share of the keywords that have a region; 0 without keywords."""
        return self.found / self.keywords if self.keywords else 0.0

    @classmethod
    def of_folder(cls, folder: str | Path) -> Summary:
        """The counts of a finished dataset folder."""
        summary = cls(skipped=Counter(entry["reason"] for entry in read_jsonl(Path(folder) / SKIPPED)))
        for row in _rows(folder, ["keywords", "regions", "noise"]):
            summary._add(row)
        return summary

    def _add(self, row: dict) -> None:
        located = {region["keyword"] for region in row["regions"]}
        self.rows += 1
        self.keywords += len(row["keywords"])
        self.found += sum(keyword["text"] in located for keyword in row["keywords"])
        self.without_region += not located
        self.scopes[row["noise"]["scope"]] += 1


def why_none_found(folder: str | Path, annotations: Annotations | None) -> str:
    """What a dataset none of whose rows has a region says of the reason.

    Args:
        folder: The dataset folder.
        annotations: The boxes and masks that its regions were to be taken from; None if a model searched.
    """
    status: Counter[str] = Counter()
    pictures: list[str] = []
    words: dict[str, None] = {}
    for row in _rows(
        folder,
        [
            "images.list.element.path",
            "noise.image",
            "keywords.list.element.text",
            "region_status.list.element.status",
        ],
    ):
        status.update(entry["status"] for entry in row["region_status"])
        pictures.append(row["images"][row["noise"]["image"]]["path"] or "")
        words.update(dict.fromkeys(keyword["text"] for keyword in row["keywords"]))
    dropped = ", ".join(f"{status[name]} {name}" for name in ("too-small", "too-large") if status[name])
    if dropped:
        return f"What was found was dropped: {dropped}; --min_region and --max_region say from where on."
    if annotations is None:
        return "No keyword of any row was found; --box_threshold and --mask_threshold say what counts."
    named = [image for image in (_annotated(annotations, name) for name in pictures) if image is not None]
    if not named:
        one = next(iter(annotations)).name
        return (
            f"No image of a row is named in {annotations.where}: it names {one!r} and others, "
            f"the first row has {pictures[0]!r}."
        )
    labels = dict.fromkeys(label for image in named for label in image.labels)
    told = (
        f"their labels, such as {_some(labels)}, fit" if labels else "there are no boxes or masks, which fit"
    )
    return (
        f"No keyword of any row was found: {len(named)} of {len(pictures)} images are annotated, and {told} "
        f"no keyword, such as {_some(words)}."
    )


def show_summary(summary: Summary, *, title: str, hint: str = "", console: Console | None = None) -> None:
    """Print the counts as a table.

    Args:
        summary: The counts.
        title: What they are of.
        hint: A line below the table.
        console: Where to; the terminal when None.
    """
    console = console or Console()
    console.print(title, soft_wrap=True, highlight=False, markup=False)
    table = Table(show_header=False)
    table.add_column(justify="left")
    table.add_column(justify="right")
    table.add_row("rows", str(summary.rows))
    for reason, count in sorted(summary.skipped.items(), key=lambda entry: (-entry[1], entry[0])):
        table.add_row("duplicates" if reason == "duplicate" else f"left out: {reason}", str(count))
    if summary.scopes:
        share = f"{summary.found} of {summary.keywords} ({summary.found_share:.0%})"
        table.add_row("keywords with a region", share)
        table.add_row("rows without a region", str(summary.without_region))
        for scope, count in summary.scopes.most_common():
            table.add_row(f"noise scope {scope}", str(count))
    console.print(table)
    if hint:
        console.print(hint, soft_wrap=True, highlight=False, markup=False)


def _rows(folder: str | Path, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    for path in shard_files(folder):
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(columns=list(columns)):
                yield from batch.to_pylist()


def _annotated(annotations: Annotations, name: str) -> AnnotatedImage | None:
    try:
        return annotations.find(name)
    except RowError:
        return None


def _some(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in islice(names, 3))
