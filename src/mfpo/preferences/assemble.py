"""What is done to one row, here or in a worker: open the pictures, find the regions, set up the noise."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from PIL import Image

from mfpo.data.images import open_image
from mfpo.errors import RowError, Skip, UserError
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.regions.base import RegionBackend, RegionOptions, load_backend
from mfpo.records import ImageSource, Keyword, Noise, Region, Sample, row_seed


@dataclass(frozen=True, slots=True)
class Job:
    """A row on its way.

    Attributes:
        id: The row's id.
        sample: The row as its source has it, the images' bytes in memory.
        keywords: Keywords of its chosen answer.
    """

    id: str
    sample: Sample
    keywords: tuple[Keyword, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What a row gains.

    Attributes:
        regions: Where its keywords are.
        noise: How its rejected image is made.
        rejected_images: The rejected images, when they are stored.
    """

    regions: tuple[Region, ...]
    noise: Noise
    rejected_images: tuple[ImageSource, ...]


class RowMaker:
    """Makes a [`Finding`] of each row; the same one in any process.

    Args:
        config: The settings.

    Raises:
        UserError: The region backend cannot be loaded.
    """

    def __init__(self, config: BuildConfig) -> None:
        self.config = config
        self.backend: RegionBackend = load_backend(
            config.regions,
            RegionOptions(config.annotations, config.box_format, config.embedding_model),
        )

    def make(self, job: Job) -> Finding | Skip:
        """Open the row's pictures and find its keywords.

        Of several pictures the first is searched and perturbed. Where no keyword is found the scope is
        ``global``.
        """
        sample = job.sample
        try:
            pictures = [open_image(source) for source in sample.images]
            for source in sample.rejected_images:
                open_image(source)
            if self.config.dry_run:
                return Finding((), Noise(), ())
            regions = self._regions(pictures[0], job)
            noise = self._noise(pictures[0], job, regions)
            rejected = self._rejected_images(pictures[0], job, regions, noise)
        except RowError as error:
            return Skip(sample.where, error.reason, error.detail)
        return Finding(regions, noise, rejected)

    def _regions(self, picture: Image.Image, job: Job) -> tuple[Region, ...]:
        wanted = [keyword.text for keyword in job.keywords]
        if not wanted:
            return ()
        regions = tuple(self.backend.segment(picture, wanted, name=job.sample.images[0].path))
        size = picture.height, picture.width
        for region in regions:
            if region.keyword not in wanted or tuple(region.size) != size:
                raise UserError(
                    f"a region of {region.keyword!r}, size {tuple(region.size)} in a picture of {size}",
                    where=f"--regions {self.config.regions}",
                    fix="a backend returns regions of the keywords it was given, with size (height, width)",
                )
        return regions

    def _noise(self, picture: Image.Image, job: Job, regions: tuple[Region, ...]) -> Noise:
        config = self.config
        scope = config.noise_scope
        if scope in ("region", "erase") and not regions:
            scope = "global"
        if scope == "swap" and not job.sample.rejected_images:
            raise RowError("missing-rejected-image", "scope swap needs a column rejected_images")
        noise = Noise(
            scope=scope,
            schedule=config.noise_schedule,
            step=config.noise_step,
            seed=row_seed(config.seed, job.id),
            fraction=config.noise_fraction,
        )
        if scope == "crop":
            from mfpo.preferences.rejected import random_crop_box

            noise = replace(noise, box=random_crop_box(picture.size, noise.seed))
        return noise

    def _rejected_images(
        self, picture: Image.Image, job: Job, regions: tuple[Region, ...], noise: Noise
    ) -> tuple[ImageSource, ...]:
        """Those of the source; with ``materialize`` the first one perturbed, the others as they are."""
        if not self.config.materialize or noise.scope == "swap":
            return job.sample.rejected_images
        from mfpo.preferences.rejected import picture_of, rejected_inputs

        inputs = rejected_inputs(self._image_processor, picture, regions, noise).inputs
        data = io.BytesIO()
        picture_of(self._image_processor, inputs).save(data, format="PNG")
        drawn = ImageSource(path=f"{job.id}.png", data=data.getvalue())
        return (drawn, *job.sample.images[1:])

    @cached_property
    def _image_processor(self) -> Any:
        from mfpo.models.load import load_processor

        assert self.config.model_name_or_path is not None, "checked before any row is read"
        return load_processor(self.config.model_name_or_path).image_processor


_MAKER: RowMaker | None = None


def start_worker(config: BuildConfig) -> None:
    """Set up a worker process; the processes share the cores, so each computes in one thread."""
    global _MAKER
    os.environ["OMP_NUM_THREADS"] = "1"
    _MAKER = RowMaker(config)


def make_row(job: Job) -> Finding | Skip:
    """[`RowMaker.make`] in a worker process."""
    assert _MAKER is not None, "start_worker comes first"
    return _MAKER.make(job)
