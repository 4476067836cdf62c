"""From a row and what was found in its pictures to what the row gains: regions and noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from mfpo.data.layouts.table import of_rejected_images
from mfpo.errors import RowError, Skip
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.noise import draw_step
from mfpo.preferences.regions.select import select_regions
from mfpo.preferences.store import Picture
from mfpo.records import ImageSource, Keyword, Noise, Region, RegionStatus, Sample, row_seed


@dataclass(frozen=True, slots=True)
class Job:
    """A row on its way.

    Attributes:
        id: The row's id.
        sample: The row as its source has it, the images' bytes in memory.
        files: The images and the rejected images again, those that lie in files without their bytes.
        target: Which image is searched and perturbed.
        keywords: Keywords of its chosen answer.
    """

    id: str
    sample: Sample
    files: tuple[ImageSource, ...] = ()
    target: int = 0
    keywords: tuple[Keyword, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What a row gains.

    Attributes:
        regions: Where its keywords are.
        status: What became of each keyword.
        noise: How its rejected image is made.
        rejected_images: The rejected images, when they are stored.
    """

    regions: tuple[Region, ...]
    status: tuple[RegionStatus, ...]
    noise: Noise
    rejected_images: tuple[ImageSource, ...]


def assemble(job: Job, pictures: Sequence[Picture], config: BuildConfig) -> Finding | Skip:
    """The same row gets the same finding, whoever searched its pictures and when.

    Regions that are too small or too large are dropped. Where nothing is left the scope is ``global``.

    Args:
        job: The row.
        pictures: Its images, then its rejected images, as they were searched.
        config: The settings.
    """
    where = job.sample.where
    for index, picture in enumerate(pictures):
        if picture.problem is not None:
            error = RowError(*picture.problem)
            of_column = error if index < len(job.sample.images) else of_rejected_images(error)
            return Skip(where, of_column.reason, of_column.detail)
    target = pictures[job.target]
    if target.failure is not None or target.size is None:
        return Skip(where, *(target.failure or ("region-error", "the picture was not searched")))
    found = [region for keyword in job.keywords for region in target.regions[keyword.text]]
    regions, status = select_regions(
        [keyword.text for keyword in job.keywords],
        found,
        target.size,
        min_share=config.min_region,
        max_share=config.max_region,
        dilate=config.dilate,
    )
    try:
        noise = _noise(job, target.size, bool(regions), config)
    except RowError as error:
        return Skip(where, error.reason, error.detail)
    return Finding(tuple(regions), tuple(status), noise, job.sample.rejected_images)


def _noise(job: Job, size: tuple[int, int], has_regions: bool, config: BuildConfig) -> Noise:
    scope = config.noise_scope
    if scope in ("region", "erase") and not has_regions:
        scope = "global"
    if scope == "swap" and not job.sample.rejected_images:
        raise RowError("missing-rejected-image", "scope swap needs a column rejected_images")
    seed = row_seed(config.seed, job.id)
    noise = Noise(
        scope=scope,
        schedule=config.noise_schedule,
        step=draw_step(config.noise_step, config.noise_step_max, seed),
        seed=seed,
        fraction=config.noise_fraction,
        image=job.target,
        feather=config.noise_feather,
    )
    if scope == "crop":
        from mfpo.preferences.rejected import random_crop_box

        height, width = size
        noise = replace(noise, box=random_crop_box((width, height), noise.seed))
    return noise
