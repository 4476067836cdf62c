"""How a build would understand a source, for people at a terminal: ``mfpo build --inspect``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

from rich.console import Console, Group
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table

from mfpo.data.images import open_image
from mfpo.data.layouts.table import DERIVED_COLUMNS, Layout, extra_columns, image_column
from mfpo.data.layouts.values import Row
from mfpo.data.recognition import why
from mfpo.data.sources import Source
from mfpo.errors import RowError, Skip
from mfpo.preferences.assemble import Finding, Job
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.keywords import KeywordExtractor
from mfpo.preferences.pipeline import open_loaded_engine, open_row_stream
from mfpo.preferences.regions.base import auto_backend
from mfpo.preferences.stream import target_image
from mfpo.records import Keyword, Message, Sample, in_one_line, row_id, text_of

SHOWN_ROWS = 5
CHECKED_ROWS = 100
_LONGEST_CELL = 60
_LONGEST_TEXT = 600

_MEANINGS = {
    "prompt": "prompt",
    "question": "prompt",
    "query": "prompt",
    "instruction": "prompt",
    "input": "prompt, after the instruction",
    "conversations": "prompt, and chosen where it ends with an answer",
    "messages": "prompt, and chosen where it ends with an answer",
    "system": "system turn",
    "history": "earlier turns",
    "chosen": "chosen",
    "response": "chosen",
    "rejected": "rejected",
    "reject": "rejected",
    "rejected_response": "rejected",
    "rejected_messages": "rejected",
    "rejected_conversations": "rejected",
    "text": "prompt, chosen and rejected (a JSON text)",
    "completions": "chosen and rejected: the best and the worst rated",
    "output_1": "chosen or rejected, as preference says",
    "output_2": "chosen or rejected, as preference says",
    "preference": "which output is chosen",
    "correct": "rows where it is true are left out",
    "keywords": "keywords, with --keywords given",
    "rejected_images": "rejected images, with --noise_scope swap",
}


@dataclass(frozen=True, slots=True)
class _Looked:
    """A row whose images were opened.

    Attributes:
        where: Its place in the source.
        sample: The row; None if it would be left out.
        sizes: (width, height) of its images.
        skip: Why it would be left out.
    """

    where: str
    sample: Sample | None
    sizes: tuple[tuple[int, int], ...] = ()
    skip: Skip | None = None


def inspect_source(config: BuildConfig, source: Source, console: Console | None = None) -> None:
    """Print which layout was recognised and why, the columns, the first rows, and what would be left out.

    No region model is loaded; given boxes are shown. Nothing is written.

    Args:
        config: The settings.
        source: The source they name.
        console: Where to print; the terminal when None.

    Raises:
        UserError: The source cannot be read, or its columns fit no layout, or several.
    """
    console = console or Console()
    items = list(islice(source.items(), CHECKED_ROWS))
    looked = _look(items)
    _show_head(config, source, len(items), console)
    keywords = _keywords(config, [row.sample for row in looked[:SHOWN_ROWS] if row.sample is not None])
    findings = _findings(config, items[:SHOWN_ROWS])
    for position, row in enumerate(looked[:SHOWN_ROWS]):
        found = next(keywords) if row.sample is not None else ()
        _show_row(config, source, row, found, findings.get(position), console)
    _show_skips(looked, console)


def _look(items: Sequence[Sample | Skip]) -> list[_Looked]:
    seen: set[str] = set()
    looked = []
    for item in items:
        if isinstance(item, Skip):
            looked.append(_Looked(item.where, None, skip=item))
            continue
        try:
            identifier = row_id([s.read() for s in item.images], item.prompt, item.chosen, item.rejected)
            sizes = tuple(open_image(picture).size for picture in item.images)
        except RowError as error:
            skip = Skip(item.where, error.reason, error.detail)
            looked.append(_Looked(item.where, None, skip=skip))
            continue
        if identifier in seen:
            skip = Skip(item.where, "duplicate", f"the same images and texts as row {identifier}")
            looked.append(_Looked(item.where, None, skip=skip))
        else:
            looked.append(_Looked(item.where, item, sizes))
        seen.add(identifier)
    return looked


def _keywords(config: BuildConfig, samples: Sequence[Sample]) -> Iterator[tuple[Keyword, ...]]:
    texts = [text_of(sample.chosen) for sample in samples]
    if not texts:
        return iter(())
    extractor = KeywordExtractor(config.keyword_config())
    return iter(extractor.extract(texts, [sample.keywords for sample in samples]))


def _findings(config: BuildConfig, items: Sequence[Sample | Skip]) -> dict[int, tuple[Job, Finding]]:
    """What given boxes say; a model would take long to load, and its weights may not be here."""
    if config.backend != "annotations":
        return {}
    config = replace(config, materialize=False)
    extractor = KeywordExtractor(config.keyword_config())
    with open_loaded_engine(config) as loaded, open_row_stream(config, loaded, extractor, None) as stream:
        return {
            made.position: (made.job, made.outcome)
            for made in stream.rows(enumerate(items), set())
            if made.job is not None and isinstance(made.outcome, Finding)
        }


def _show_head(config: BuildConfig, source: Source, seen: int, console: Console) -> None:
    found = _first_recognised(source)
    facts = Table.grid(padding=(0, 2))
    facts.add_row("source", escape(config.dataset))
    facts.add_row("kind", escape(source.kind))
    count = seen if seen < CHECKED_ROWS else source.count()
    facts.add_row("rows", f"at least {seen}" if count is None else f"{count:,}")
    if found is not None:
        layout, row = found
        facts.add_row("layout", f"[bold]{escape(layout.title)}[/bold] (--layout {layout.name})")
        facts.add_row("because", escape(why(layout, [str(name) for name in row])))
    if source.mapping.names:
        facts.add_row("renamed", escape(f"by {source.mapping.origin}"))
    facts.add_row("image folder", escape(str(source.images.root)))
    console.print(Panel(facts, title="source", title_align="left"))
    if found is not None:
        console.print(_column_table(*found, source))


def _first_recognised(source: Source) -> tuple[Layout, Row] | None:
    recogniser = source.recogniser()
    for raw in islice(source.raw_rows(), CHECKED_ROWS):
        layout = None if isinstance(raw, Skip) else recogniser.layout(raw[1])
        if layout is not None and not isinstance(raw, Skip):
            return layout, raw[1]
    return None


def _column_table(layout: Layout, row: Row, source: Source) -> Table:
    table = Table("column", "becomes", "in the first row", title="columns", title_justify="left")
    kept = extra_columns(layout, row)
    for name, value in row.items():
        theirs = source.mapping.names.get(name)
        shown = f"{theirs} (as {name})" if theirs is not None else str(name)
        table.add_row(escape(shown), escape(_becomes(str(name), layout, row, kept)), escape(_short(value)))
    return table


def _becomes(name: str, layout: Layout, row: Row, kept: dict[str, Any]) -> str:
    if name == image_column(layout, row):
        return "images"
    if name in layout.columns or name in layout.optional or name in ("keywords", "rejected_images"):
        return _MEANINGS.get(name, "read")
    if name in DERIVED_COLUMNS:
        return "kept as source_id" if name == "id" and "source_id" in kept else "made anew"
    return "kept" if name in kept else "left out (only simple values are kept)"


def _short(value: object) -> str:
    if isinstance(value, (bytes, bytearray)):
        return f"{len(value):,} bytes"
    if isinstance(value, dict):
        return _cut("{" + ", ".join(f"{key}: {_short(item)}" for key, item in list(value.items())[:6]) + "}")
    if isinstance(value, (list, tuple)):
        return (
            f"{len(value)} {'item' if len(value) == 1 else 'items'}: {_short(value[0])}"
            if value
            else "empty list"
        )
    return _cut(str(value))


def _cut(text: str, length: int = _LONGEST_CELL) -> str:
    return text if len(text) <= length else f"{text[:length]}..."


def _show_row(
    config: BuildConfig,
    source: Source,
    row: _Looked,
    keywords: Sequence[Keyword],
    found: tuple[Job, Finding] | None,
    console: Console,
) -> None:
    where = escape(row.where)
    if row.sample is None:
        reason = "" if row.skip is None else f"{row.skip.reason}: {row.skip.detail}"
        console.print(
            Panel(
                f"[red]left out[/red]  {escape(_cut(reason, _LONGEST_TEXT))}", title=where, title_align="left"
            )
        )
        return
    sample = row.sample
    facts = Table.grid(padding=(0, 2))
    facts.add_row("images", "\n".join(_image_lines(config, source, row)))
    for turn in sample.prompt:
        facts.add_row(turn["role"], escape(_cut(_with_places(turn), _LONGEST_TEXT)))
    facts.add_row("chosen", f"[green]{escape(_cut(text_of(sample.chosen), _LONGEST_TEXT))}[/green]")
    facts.add_row("rejected", f"[red]{escape(_cut(text_of(sample.rejected), _LONGEST_TEXT))}[/red]")
    if sample.extra:
        kept = ", ".join(f"{name}={_short(value)}" for name, value in sample.extra.items())
        facts.add_row("kept", escape(_cut(kept, _LONGEST_TEXT)))
    scope = found[1].noise.scope if found is not None else config.noise_scope
    last = "" if config.noise_step_max is None else f" to {config.noise_step_max}"
    facts.add_row("noise", f"{scope}, {config.noise_schedule} step {config.noise_step}{last}")
    table = Table("keyword", "score", "regions (xyxy)")
    for keyword in keywords:
        table.add_row(escape(keyword.text), f"{keyword.score:.2f}", _boxes(config, keyword, found))
    title = where if found is None else f"{where}  {found[0].id}"
    console.print(Panel(Group(facts, table), title=title, title_align="left"))


def _image_lines(config: BuildConfig, source: Source, row: _Looked) -> list[str]:
    assert row.sample is not None, "only rows that are kept are shown"
    try:
        target = target_image(len(row.sizes), config.noise_image)
    except RowError as error:
        return [f"[red]left out[/red]  {escape(str(error))}"]
    lines = []
    for index, (picture, (width, height)) in enumerate(zip(row.sample.images, row.sizes, strict=True)):
        mark = "  <- searched and noised" if index == target else ""
        name = (picture.path or "(embedded)").removeprefix(f"{source.images.root}/")
        lines.append(f"{index}: {escape(name)}, {width} x {height}{mark}")
    return lines


def _with_places(turn: Message) -> str:
    return in_one_line("[image]" if part["type"] == "image" else part["text"] for part in turn["content"])


def _boxes(config: BuildConfig, keyword: Keyword, found: tuple[Job, Finding] | None) -> str:
    if found is None:
        by = f"{auto_backend()} (auto)" if config.backend == "auto" else config.backend
        return f"searched by {escape(by)} when built"
    boxes = [region.box for region in found[1].regions if region.keyword == keyword.text]
    return "; ".join(" ".join(f"{value:.0f}" for value in box) for box in boxes) or "-"


def _show_skips(looked: Sequence[_Looked], console: Console) -> None:
    skips = [row.skip for row in looked if row.skip is not None]
    usable = len(looked) - len(skips)
    console.print(f"Of the first {len(looked)} rows {usable} can be used and {len(skips)} would be left out.")
    if not skips:
        return
    table = Table("left out", "rows", "the first of them")
    for reason, count in Counter(skip.reason for skip in skips).most_common():
        first = next(skip for skip in skips if skip.reason == reason)
        table.add_row(reason, str(count), escape(f"{first.where}: {_cut(first.detail, 120)}"))
    console.print(table)
