"""What a build did, for people at a terminal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from mfpo.data.files import read_jsonl
from mfpo.data.folder import SKIPPED, shard_files


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
        for path in shard_files(folder):
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=["keywords", "regions", "noise"]):
                    for row in batch.to_pylist():
                        summary._add(row)
        return summary

    def _add(self, row: dict) -> None:
        located = {region["keyword"] for region in row["regions"]}
        self.rows += 1
        self.keywords += len(row["keywords"])
        self.found += sum(keyword["text"] in located for keyword in row["keywords"])
        self.without_region += not located
        self.scopes[row["noise"]["scope"]] += 1


def show_summary(summary: Summary, *, title: str, console: Console | None = None) -> None:
    """Print the counts as a table.

    Args:
        summary: The counts.
        title: What they are of.
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
    if summary.rows and summary.without_region == summary.rows and summary.keywords:
        console.print(
            "No keyword of any row was found: with annotations, do their image names fit those of the rows?"
        )
