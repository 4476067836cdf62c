"""What is done to one picture, here or in a worker: open it, search it, draw its rejected image."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

from PIL import Image

from mfpo.data.images import open_image
from mfpo.errors import RowError, UserError
from mfpo.models.threads import one_thread
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.regions.base import RegionBackend, backend_fingerprint, load_backend
from mfpo.preferences.regions.masks import union_share
from mfpo.preferences.store import Picture
from mfpo.records import ImageSource, Noise, Region

Task: TypeAlias = Literal["describe", "search", "draw"]


@dataclass(frozen=True, slots=True)
class Request:
    """A picture to be opened, and searched for keywords if there are any.

    Attributes:
        key: Identifies the picture, and its name where the backend goes by names.
        image: The encoded image, or the file it is in.
        keywords: Phrases to find.
    """

    key: str
    image: ImageSource
    keywords: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drawing:
    """A rejected image to be drawn, at the resolution of a model.

    Attributes:
        name: Its name in the row.
        image: The picture that is perturbed.
        regions: Regions in it.
        noise: How it is perturbed.
    """

    name: str
    image: ImageSource
    regions: tuple[Region, ...]
    noise: Noise


class Worker:
    """Does the work on pictures; the same bits in any process.

    Args:
        config: The settings.
    """

    def __init__(self, config: BuildConfig) -> None:
        self.config = config

    def do(self, task: Task, item: Any) -> Any:
        """One task by its name."""
        tasks: dict[Task, Callable[[Any], Any]] = {
            "describe": self.describe,
            "search": self.search,
            "draw": self.draw,
        }
        return tasks[task](item)

    def describe(self, _: None = None) -> str | None:
        """Fingerprint of the region backend, None if what it finds must not be kept for later builds.

        Raises:
            UserError: The backend cannot be loaded.
        """
        return backend_fingerprint(self._backend)

    def search(self, request: Request) -> Picture:
        """Open a picture and find its keywords.

        Raises:
            UserError: The backend breaks its contract.
        """
        try:
            data = request.image.read()
        except RowError as error:
            # It could be read when its row was: this says something about the machine, not about the picture.
            return Picture(request.key, failure=("region-error", f"{error.reason}: {error.detail}"))
        try:
            picture = open_image(ImageSource(request.image.path, data))
        except RowError as error:
            return Picture(request.key, problem=(error.reason, error.detail))
        found = Picture(request.key, (picture.height, picture.width))
        if not request.keywords:
            return found
        with one_thread():
            return self._segment(picture, request, found)

    def _segment(self, picture: Image.Image, request: Request, found: Picture) -> Picture:
        """All keywords at once; where that fails, one by one, so that each row has only its own failures."""
        name = request.image.path
        try:
            regions = self._backend.segment(picture, request.keywords, name=name)
        except UserError:
            raise
        except Exception as error:  # whatever a model or a class of the user's can raise on one picture
            failure = (
                (error.reason, error.detail)
                if isinstance(error, RowError)
                else ("region-error", f"{type(error).__name__}: {error}")
            )
            if len(request.keywords) == 1:
                return replace(found, failure=failure)
            parts = [
                self._segment(picture, replace(request, keywords=(word,)), found) for word in request.keywords
            ]
            together = {word: places for part in parts for word, places in part.regions.items()}
            return replace(found, regions=together, failure=failure)
        return replace(found, regions=self._by_keyword(regions, request.keywords, picture))

    def draw(self, drawing: Drawing) -> ImageSource | RowError:
        """A rejected image as PNG, or why there is none."""
        from mfpo.preferences.rejected import picture_of, rejected_inputs

        try:
            picture = open_image(drawing.image)
            inputs = rejected_inputs(self._image_processor, picture, drawing.regions, drawing.noise).inputs
        except RowError as error:
            return error
        except ValueError as error:
            # Image processors refuse some shapes, Qwen's a picture 200 times as wide as high.
            return RowError("unusable-image", f"{drawing.image.path or 'image'}: {error}")
        data = io.BytesIO()
        picture_of(self._image_processor, inputs).save(data, format="PNG")
        return ImageSource(path=drawing.name, data=data.getvalue())

    def _by_keyword(
        self, regions: Any, keywords: Sequence[str], picture: Image.Image
    ) -> dict[str, tuple[Region, ...]]:
        problem = _broken_contract(regions, keywords, (picture.height, picture.width))
        if problem is not None:
            raise UserError(
                problem,
                where=f"--regions {self.config.regions}",
                fix="it returns regions of the keywords that it was given, with size (height, width)",
            )
        return {word: tuple(region for region in regions if region.keyword == word) for word in keywords}

    @cached_property
    def _backend(self) -> RegionBackend:
        return load_backend(self.config.backend, self.config.region_options())

    @cached_property
    def _image_processor(self) -> Any:
        from mfpo.models.load import load_processor

        assert self.config.model_name_or_path is not None, "checked before any row is read"
        return load_processor(self.config.model_name_or_path).image_processor


def _broken_contract(regions: Any, keywords: Sequence[str], size: tuple[int, int]) -> str | None:
    """What is wrong with what a backend returned, None if nothing is."""
    if not isinstance(regions, Sequence) or not all(isinstance(region, Region) for region in regions):
        return "it returned something else than a list of regions"
    for region in regions:
        if region.keyword not in keywords:
            return f"a region of {region.keyword!r}, which was not asked for"
        try:
            union_share([region], size)
        except (ValueError, TypeError, AttributeError) as error:
            return f"a region of {region.keyword!r}: {error}"
    return None
