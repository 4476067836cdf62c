"""``mfpo browse``: a dataset folder as one HTML file, or a folder for many rows, that opens anywhere."""

from __future__ import annotations

import hashlib
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from mfpo.data.folder import PreferenceDataset, open_dataset
from mfpo.errors import UserError
from mfpo.preferences.noise import alpha_bars
from mfpo.records import SCHEDULES, PreferencePair
from mfpo.report.browser.pages import (
    PICTURES_PER_CHUNK,
    ROWS_PER_CHUNK,
    Folder,
    PageWriter,
    SingleFile,
    render_page,
)
from mfpo.report.browser.records import BrowseRow, PageSettings, RowPictures
from mfpo.report.browser.reference import Reference, load_reference
from mfpo.report.browser.rows import RowMaker
from mfpo.report.browser.statistics import collect, difficulty_charts, skipped_chart
from mfpo.report.browser.verdicts import Verdict, load_verdicts
from mfpo.report.config import BrowseConfig
from mfpo.report.page import KEYWORD_COLOURS, tell_written
from mfpo.report.rows import default_image_processor, spread

MOST_ROWS_IN_A_FILE = 500
_THREADS = 2


def run(config: BrowseConfig) -> None:
    """Write the page that the settings describe.

    Raises:
        UserError: A setting is out of range, the folder is no dataset or empty, or the model, the verdicts or
            the reference pass cannot be read.
    """
    _check(config)
    dataset = open_dataset(config.dataset)
    if not len(dataset):
        raise UserError(
            "the dataset has no rows", where=config.dataset, fix="see skipped.jsonl beside it for the reasons"
        )
    processor = default_image_processor(config.model_name_or_path)
    verdicts = load_verdicts(config.verdicts) if config.verdicts else {}
    reference = load_reference(config.dataset, config.difficulty, config.reference)
    picked = _picked(dataset.ids, config.max_rows or len(dataset), verdicts)
    as_folder = config.output_dir is not None or (
        config.output_file is None and len(picked) > MOST_ROWS_IN_A_FILE
    )
    asked = _asked_scope(config.dataset)
    page = _page(config, dataset, processor, verdicts, reference, len(picked), as_folder)
    maker = RowMaker(processor, config.image_size, config.exact_images, asked, reference.ranks)
    writer: PageWriter
    if as_folder:
        target = Path(config.output_dir or Path(config.dataset) / "browse")
        writer = Folder(target, page)
        target = target / "index.html"
    else:
        target = Path(config.output_file or Path(config.dataset) / "browse.html")
        writer = SingleFile(target, page)
    broken = 0
    with writer:
        for row, pictures in _made(dataset, picked, maker, writer):
            writer.write(row, pictures)
            broken += bool(row.problem)
    tell_written(target, f"{len(picked):,} of {len(dataset):,} rows")
    if broken:
        print(f"{broken:,} of them have pictures that cannot be read or perturbed")


def _check(config: BrowseConfig) -> None:
    if config.output_file is not None and config.output_dir is not None:
        raise UserError(
            "both a file and a folder are given", where="--output_file, --output_dir", fix="give one"
        )
    if config.max_rows < 0:
        raise UserError(
            f"{config.max_rows} rows cannot be shown",
            where="--max_rows",
            fix="0 shows all, 200 is the default",
        )
    if not 32 <= config.image_size <= 4096:
        raise UserError(
            f"{config.image_size} pixels", where="--image_size", fix="give a number from 32 to 4096"
        )


def _picked(ids: Sequence[str], most: int, verdicts: Mapping[str, Verdict]) -> list[int]:
    """Positions of the rows to show, in their order: those with a verdict, and others up to ``most``."""
    judged = [index for index, identifier in enumerate(ids) if identifier in verdicts]
    others = [index for index in range(len(ids)) if ids[index] not in verdicts] if judged else range(len(ids))
    room = max(0, most - len(judged))
    return sorted([*judged, *(others[place] for place in spread(len(others), room))])


def _page(
    config: BrowseConfig,
    dataset: PreferenceDataset,
    processor: Any,
    verdicts: Mapping[str, Verdict],
    reference: Reference,
    rows: int,
    as_folder: bool,
) -> str:
    """The page with the statistics of all rows, and without the rows."""
    statistics = collect(dataset, _asked_scope(config.dataset))
    skipped = skipped_chart(config.dataset)
    charts = [
        *statistics.charts(),
        *difficulty_charts(reference, dataset.ids),
        *([skipped] if skipped is not None else []),
    ]
    mean, spread_ = _pixel_scale(processor)
    settings = PageSettings(
        title=Path(config.dataset).resolve().name,
        key=hashlib.sha256("\n".join(dataset.ids).encode()).hexdigest()[:16],
        total=len(dataset),
        rows=rows,
        chunk=ROWS_PER_CHUNK if as_folder else 0,
        pictures_chunk=PICTURES_PER_CHUNK,
        signal={name: [round(float(bar) ** 0.5, 4) for bar in alpha_bars(name)] for name in SCHEDULES},
        mean=mean,
        spread=spread_,
        colours=KEYWORD_COLOURS,
        verdicts=tuple((entry.id, entry.verdict, entry.note) for entry in verdicts.values()),
    )
    footer = (
        f"Exact rejected images are rendered by {type(processor).__name__}, as training does, and stored as "
        "JPEG for viewing. The slider's preview is drawn by the page after the resize."
    )
    return render_page(settings, statistics.facts(), charts, footer, folder=as_folder)


def _made(
    dataset: PreferenceDataset, picked: Sequence[int], maker: RowMaker, writer: PageWriter
) -> Iterator[tuple[BrowseRow, RowPictures]]:
    """Records of the rows in their order; a few are made at a time, so that memory does not grow."""

    def make(position: int, index: int, pair: PreferencePair) -> tuple[BrowseRow, RowPictures]:
        return maker.make(pair, index + 1, lambda picture, name: writer.embed(position, picture, name))

    waiting: deque[Future[tuple[BrowseRow, RowPictures]]] = deque()
    with ThreadPoolExecutor(_THREADS) as threads:
        for position, index in enumerate(_tracked(picked)):
            waiting.append(threads.submit(make, position, index, dataset[index]))
            if len(waiting) > 2 * _THREADS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _pixel_scale(processor: Any) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation by which the processor normalises, in 8-bit pixel values, by colour."""
    one = 1 / processor.rescale_factor if processor.do_rescale else 1.0
    mean = processor.image_mean if processor.do_normalize else (0.0, 0.0, 0.0)
    std = processor.image_std if processor.do_normalize else (1.0, 1.0, 1.0)
    red, green, blue = ((float(m) * one, float(s) * one) for m, s in zip(mean, std, strict=True))
    return (red[0], green[0], blue[0]), (red[1], green[1], blue[1])


def _asked_scope(folder: str) -> str:
    """The scope that the build was asked for, from its saved settings; empty where they are not there."""
    try:
        settings = yaml.safe_load((Path(folder) / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return ""
    return str(settings.get("noise_scope") or "") if isinstance(settings, dict) else ""


def _tracked(indices: Sequence[int]) -> Iterator[int]:
    if not sys.stderr.isatty():
        return iter(indices)
    from rich.console import Console
    from rich.progress import track

    return iter(track(indices, description="rendering rows", console=Console(stderr=True)))
