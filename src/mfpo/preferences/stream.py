"""Rows on their way through the build: read, freed of duplicates, given keywords, made here or by workers."""

from __future__ import annotations

import multiprocessing
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from mfpo.errors import RowError, Skip, UserError
from mfpo.preferences.assemble import Finding, Job, RowMaker, make_row, start_worker
from mfpo.records import ImageSource, Sample, row_id, text_of

if TYPE_CHECKING:
    from mfpo.preferences.keywords import KeywordExtractor

BATCH_ROWS = 64
BATCH_BYTES = 64 * 2**20
"""Rows and bytes of images of a batch; two batches are in memory at once."""

Outcome: TypeAlias = Callable[[], "Finding | Skip"]
"""Gives, or waits for, what became of a row."""

Submit: TypeAlias = Callable[[Job], Outcome]


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


@contextmanager
def row_engine(maker: RowMaker) -> Iterator[Submit]:
    """What makes rows: this process when it is asked for them, or worker processes as soon as they can.

    Args:
        maker: The maker of this process; its configuration says how many workers there are.
    """
    config = maker.config
    if config.num_workers == 1:
        yield lambda job: partial(maker.make, job)
        return
    # Not forked: this process has threads (BLAS, Arrow, tokenizers) that a fork would leave behind locked.
    pool = ProcessPoolExecutor(
        config.num_workers,
        mp_context=multiprocessing.get_context("spawn"),
        initializer=start_worker,
        initargs=(config,),
    )
    try:
        yield lambda job: pool.submit(make_row, job).result
    finally:
        pool.shutdown(cancel_futures=True)


def made_rows(
    items: Iterable[tuple[int, Sample | Skip]],
    seen: set[str],
    extractor: KeywordExtractor | None,
    submit: Submit,
) -> Iterator[Made]:
    """The rows in their order; while workers make one batch, the keywords of the next are found here.

    Args:
        items: Position and row.
        seen: Ids that are there already; a row with one of these is a duplicate. Ids of new rows are added.
        extractor: Finds the keywords; None for none.
        submit: Gives a row to the engine.

    Raises:
        UserError: A worker process died.
        RuntimeError: A region backend failed on a row.
    """
    waiting: deque[list[tuple[int, Job | Skip, Outcome | None]]] = deque()
    for batch in _batches((position, _job(item, seen)) for position, item in items):
        waiting.append(_submit_batch(batch, extractor, submit))
        if len(waiting) > 1:
            yield from _collect(waiting.popleft())
    while waiting:
        yield from _collect(waiting.popleft())


def _job(item: Sample | Skip, seen: set[str]) -> Job | Skip:
    """The row with its images in memory, unless they cannot be read or an equal row came before."""
    if isinstance(item, Skip):
        return item
    try:
        images = tuple(ImageSource(source.path, source.read()) for source in item.images)
        rejected = tuple(ImageSource(source.path, source.read()) for source in item.rejected_images)
    except RowError as error:
        return Skip(item.where, error.reason, error.detail)
    identifier = row_id([source.read() for source in images], item.prompt, item.chosen, item.rejected)
    if identifier in seen:
        return Skip(item.where, "duplicate", f"the same images and texts as row {identifier}")
    seen.add(identifier)
    return Job(identifier, replace(item, images=images, rejected_images=rejected))


def _batches(jobs: Iterable[tuple[int, Job | Skip]]) -> Iterator[list[tuple[int, Job | Skip]]]:
    batch: list[tuple[int, Job | Skip]] = []
    size = 0
    for position, job in jobs:
        batch.append((position, job))
        if isinstance(job, Job):
            size += sum(len(source.read()) for source in job.sample.images)
        if len(batch) >= BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _submit_batch(
    batch: list[tuple[int, Job | Skip]], extractor: KeywordExtractor | None, submit: Submit
) -> list[tuple[int, Job | Skip, Outcome | None]]:
    chosen = [text_of(job.sample.chosen) for _, job in batch if isinstance(job, Job)]
    keywords = iter(extractor.extract(chosen) if extractor is not None else [()] * len(chosen))
    result: list[tuple[int, Job | Skip, Outcome | None]] = []
    for position, job in batch:
        if isinstance(job, Job):
            job = replace(job, keywords=next(keywords))
            result.append((position, job, submit(job)))
        else:
            result.append((position, job, None))
    return result


def _collect(batch: list[tuple[int, Job | Skip, Outcome | None]]) -> Iterator[Made]:
    for position, job, outcome in batch:
        if isinstance(job, Skip):
            yield Made(position, None, job)
        elif outcome is not None:
            yield Made(position, job, _finish(job, outcome))


def _finish(job: Job, outcome: Outcome) -> Finding | Skip:
    try:
        return outcome()
    except UserError:
        raise
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, most likely for lack of memory",
            where=f"at or before {job.sample.where}",
            fix="use fewer --num_workers; what was finished is kept and the next run goes on after it",
        ) from None
    except Exception as error:
        raise RuntimeError(f"{job.sample.where}: {type(error).__name__}: {error}") from error
