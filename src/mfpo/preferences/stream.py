"""Rows on their way through the build: read, freed of duplicates, given keywords, searched, put together."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from typing import TYPE_CHECKING

from mfpo.data.layouts.table import of_rejected_images
from mfpo.errors import RowError, Skip
from mfpo.preferences.assemble import Finding, Job, assemble
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.engine import Engine
from mfpo.preferences.pool import WorkerDied
from mfpo.preferences.search import RegionSearch, Wait
from mfpo.preferences.worker import Drawing, Request
from mfpo.records import ImageSource, Keyword, Sample, row_id, text_of

if TYPE_CHECKING:
    from mfpo.preferences.keywords import KeywordExtractor

WINDOW_BYTES = 128 * 2**20
"""Bytes of images after which a window is full, see [`Engine.window_rows`]."""


@dataclass(frozen=True, slots=True)
class Made:
    """A row that went through.

    Attributes:
        position: Its place in the source, from 0.
        job: The row; None if it was left out before.
        outcome: What it gained, or why it was left out.
    """

    position: int
    job: Job | None
    outcome: Finding | Skip


@dataclass(frozen=True, slots=True)
class _Row:
    """A row between its keywords and its finding."""

    position: int
    job: Job | Skip
    requests: tuple[Request, ...] = ()


class RowStream:
    """Makes rows; while the pictures of one window are searched, the keywords of the next are found here.

    Args:
        config: The settings.
        engine: Works on pictures.
        search: Searches them, with that engine.
        extractor: Finds the keywords; None for none.
        backend: Fingerprint of the region backend.

    Attributes:
        backend: The same.
    """

    def __init__(
        self,
        config: BuildConfig,
        engine: Engine,
        search: RegionSearch,
        extractor: KeywordExtractor | None,
        backend: str | None = None,
    ) -> None:
        self.backend = backend
        self._config, self._engine, self._search, self._extractor = config, engine, search, extractor

    def rows(self, items: Iterable[tuple[int, Sample | Skip]], seen: set[str]) -> Iterator[Made]:
        """The rows in their order.

        Args:
            items: Position and row.
            seen: Ids that are there already; a row with one of these is a duplicate. The id of a new row is
                added when it went through: an equal row after one that was left out is no duplicate.

        Raises:
            UserError: The region backend cannot be set up, or fails on one picture after the other.
        """
        waiting: deque[tuple[list[_Row], Wait]] = deque()
        jobs = ((position, self._job(item, seen)) for position, item in items)
        for window in _windows(jobs, self._engine.window_rows):
            waiting.append(self._begin(window))
            if len(waiting) > 1:
                yield from _without_duplicates(self._finish(*waiting.popleft()), seen)
        while waiting:
            yield from _without_duplicates(self._finish(*waiting.popleft()), seen)

    def _job(self, item: Sample | Skip, seen: set[str]) -> Job | Skip:
        """The row with its images in memory, unless they cannot be read or an equal row is there already."""
        if isinstance(item, Skip):
            return item
        try:
            target = target_image(len(item.images), self._config.noise_image)
            images = tuple(ImageSource(source.path, source.read()) for source in item.images)
            rejected = _read_rejected(item)
        except RowError as error:
            return Skip(item.where, error.reason, error.detail)
        identifier = row_id([source.read() for source in images], item.prompt, item.chosen, item.rejected)
        if identifier in seen:
            return _duplicate(item, identifier)
        files = (*item.images, *item.rejected_images)
        return Job(identifier, replace(item, images=images, rejected_images=rejected), files, target)

    def _begin(self, window: Sequence[tuple[int, Job | Skip]]) -> tuple[list[_Row], Wait]:
        jobs = [job for _, job in window if isinstance(job, Job)]
        keywords: Iterable[tuple[Keyword, ...]] = repeat(())
        if self._extractor is not None:
            texts = [text_of(job.sample.chosen) for job in jobs]
            keywords = self._extractor.extract(texts, [job.sample.keywords for job in jobs])
        found = iter(keywords)
        rows: list[_Row] = []
        for position, job in window:
            if isinstance(job, Job):
                job = replace(job, keywords=next(found))
                rows.append(_Row(position, job, self._requests(job)))
            else:
                rows.append(_Row(position, job))
        return rows, self._search.submit([request for row in rows for request in row.requests])

    def _requests(self, job: Job) -> tuple[Request, ...]:
        pictures = (*job.sample.images, *job.sample.rejected_images)
        wanted = tuple(dict.fromkeys(keyword.text for keyword in job.keywords))
        return tuple(
            Request(self._search.key(picture), self._sent(job, index), wanted if index == job.target else ())
            for index, picture in enumerate(pictures)
        )

    def _sent(self, job: Job, index: int) -> ImageSource:
        """What a worker gets: another process reads files itself."""
        pictures = (*job.sample.images, *job.sample.rejected_images)
        return job.files[index] if self._engine.reads_files else pictures[index]

    def _finish(self, rows: Sequence[_Row], wait: Wait) -> Iterator[Made]:
        wait()
        made = [
            Made(row.position, None, row.job)
            if isinstance(row.job, Skip)
            else Made(row.position, row.job, self._outcome(row.job, row.requests))
            for row in rows
        ]
        yield from self._drawn(made) if self._config.materialize else made

    def _outcome(self, job: Job, requests: Sequence[Request]) -> Finding | Skip:
        return assemble(job, [self._search.picture(request) for request in requests], self._config)

    def _drawn(self, made: Sequence[Made]) -> Iterator[Made]:
        """The rows with their rejected image as a picture; the other images of a row stay as they are."""
        drawings = [
            Drawing(f"{job.id}.png", self._sent(job, job.target), finding.regions, finding.noise)
            for job, finding in map(_to_be_drawn, made)
            if job is not None and finding is not None
        ]
        results = self._engine.map("draw", drawings)
        for row in made:
            job, finding = _to_be_drawn(row)
            if job is None or finding is None:
                yield row
            else:
                yield replace(row, outcome=_with_drawing(job, finding, next(results)))


def _read_rejected(sample: Sample) -> tuple[ImageSource, ...]:
    try:
        return tuple(ImageSource(source.path, source.read()) for source in sample.rejected_images)
    except RowError as error:
        raise of_rejected_images(error) from None


def _without_duplicates(made: Iterable[Made], seen: set[str]) -> Iterator[Made]:
    """The rows, those left out that are equal to one that went through before.

    Two windows are open at once, so that such a row may be read before the other went through. It is a
    duplicate whatever its own outcome: where a build was interrupted must not show.
    """
    for row in made:
        if row.job is not None and row.job.id in seen:
            row = replace(row, job=None, outcome=_duplicate(row.job.sample, row.job.id))
        elif row.job is not None and isinstance(row.outcome, Finding):
            seen.add(row.job.id)
        yield row


def _duplicate(sample: Sample, identifier: str) -> Skip:
    return Skip(sample.where, "duplicate", f"the same images and texts as row {identifier}")


def _to_be_drawn(row: Made) -> tuple[Job | None, Finding | None]:
    """The row and its finding, None where it has no drawing."""
    if isinstance(row.outcome, Finding) and row.outcome.noise.scope != "swap":
        return row.job, row.outcome
    return row.job, None


def _with_drawing(job: Job, finding: Finding, result: ImageSource | RowError | WorkerDied) -> Finding | Skip:
    if isinstance(result, RowError):
        return Skip(job.sample.where, result.reason, result.detail)
    if isinstance(result, WorkerDied):
        return Skip(
            job.sample.where, "worker-died", "the process that drew its rejected image died each time"
        )
    images = list(job.sample.images)
    images[job.target] = result
    return replace(finding, rejected_images=tuple(images))


def target_image(count: int, wanted: int) -> int:
    """Index of the image that is perturbed; negative settings count from the end.

    Raises:
        RowError: The row has no such image.
    """
    index = wanted + count if wanted < 0 else wanted
    if not 0 <= index < count:
        raise RowError("image-count", f"--noise_image {wanted}, and the row has {count} images")
    return index


def _windows(jobs: Iterable[tuple[int, Job | Skip]], rows: int) -> Iterator[list[tuple[int, Job | Skip]]]:
    window: list[tuple[int, Job | Skip]] = []
    size = 0
    for position, job in jobs:
        window.append((position, job))
        if isinstance(job, Job):
            size += sum(len(source.read()) for source in job.sample.images)
        if len(window) >= rows or size >= WINDOW_BYTES:
            yield window
            window, size = [], 0
    if window:
        yield window
