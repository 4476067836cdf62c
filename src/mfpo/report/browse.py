"""``mfpo browse``: a dataset folder as one HTML file that opens anywhere."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from mfpo import __version__
from mfpo.data.files import write_atomic
from mfpo.data.folder import open_dataset
from mfpo.errors import UserError
from mfpo.report.config import BrowseConfig
from mfpo.report.page import render
from mfpo.report.rows import NOISE_STEPS, RowView, default_image_processor, row_view


def run(config: BrowseConfig) -> None:
    """Write the page that the settings describe.

    Raises:
        UserError: The folder is no dataset, is empty, or the model cannot be opened.
    """
    target = Path(config.output_file) if config.output_file else Path(config.dataset) / "browse.html"
    processor = default_image_processor(config.model_name_or_path)
    views, total = dataset_rows(config.dataset, processor, config.max_rows, progress=True)
    if not views:
        raise UserError(
            "the dataset has no rows", where=config.dataset, fix="see skipped.jsonl beside it for the reasons"
        )
    write_atomic(
        target, browse_page(views, total, title=Path(config.dataset).resolve().name, processor=processor)
    )
    print(f"{target}: {len(views):,} of {total:,} rows")


def dataset_rows(
    folder: str | Path,
    image_processor: Any,
    max_rows: int,
    *,
    steps: Sequence[int] = NOISE_STEPS,
    progress: bool = False,
) -> tuple[list[RowView], int]:
    """Rows of a dataset folder ready for the page, spread evenly over the dataset.

    Args:
        folder: Dataset folder.
        image_processor: Renders the rejected images.
        max_rows: Rows at most.
        steps: Noise steps to show.
        progress: Show a progress bar on a terminal.

    Returns:
        The rows, and how many the dataset has.
    """
    dataset = open_dataset(folder)
    total = len(dataset)
    count = min(total, max(0, max_rows))
    picked = [index * total // count for index in range(count)]
    views = [
        row_view(dataset[index], image_processor, number=index + 1, steps=steps)
        for index in _tracked(picked, progress)
    ]
    return views, total


def browse_page(views: Sequence[RowView], total: int, *, title: str, processor: Any) -> str:
    """The page as HTML.

    Args:
        views: The rows to show.
        total: How many rows the dataset has.
        title: Heading.
        processor: The image processor that rendered the rejected images, to be named.
    """
    steps = {frame.label for view in views for frame in view.frames if frame.label.isdecimal()}
    return render(
        "browse.html.j2",
        {
            "title": title,
            "version": __version__,
            "rows": views,
            "facts": _facts(views, total),
            "scopes": sorted({view.scope for view in views}),
            "steps": sorted(steps, key=int),
            "processor": type(processor).__name__,
        },
    )


def _facts(views: Sequence[RowView], total: int) -> dict[str, str]:
    """What the rows shown are like, in words by name."""
    keywords = [keyword for view in views for keyword in view.keywords]
    found = sum(keyword.confidence is not None for keyword in keywords)
    scopes = Counter(view.scope for view in views)
    noise = Counter(
        f"{view.settings['schedule']}, t = {view.settings['step']}"
        for view in views
        if "step" in view.settings
    )
    facts = {
        "rows in the dataset": f"{total:,}",
        "rows shown": f"{len(views):,}",
        "scope": ", ".join(f"{name} {count:,}" for name, count in scopes.most_common()),
    }
    if noise:
        facts["noise"] = noise.most_common(1)[0][0] + (" (mostly)" if len(noise) > 1 else "")
    if keywords:
        facts["keywords a row"] = f"{len(keywords) / len(views):.1f}"
        facts["keywords with a region"] = f"{found / len(keywords):.0%}"
    shares = [view.share for view in views if view.share]
    if shares:
        facts["median area of the regions"] = f"{median(shares):.0%}"
    return facts


def _tracked(indices: Sequence[int], progress: bool) -> Any:
    if not progress or not sys.stderr.isatty():
        return indices
    from rich.console import Console
    from rich.progress import track

    return track(indices, description="rendering rows", console=Console(stderr=True))
