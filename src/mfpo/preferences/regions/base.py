"""What finds keywords in a picture: one small protocol, and the table of backends.

A backend of one's own is any class with the method of [`RegionBackend`], named as ``package.module:Class``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from PIL import Image

from mfpo.data.plugins import load_object
from mfpo.errors import UserError, nearest
from mfpo.records import Region

if TYPE_CHECKING:
    from mfpo.data.annotation_files import BoxFormat
    from mfpo.preferences.regions.checkpoints import Checkpoint


@runtime_checkable
class RegionBackend(Protocol):
    """Finds the regions of keywords in a picture."""

    def segment(
        self, image: Image.Image, keywords: Sequence[str], *, name: str | None = None
    ) -> list[Region]:
        """The regions of all keywords that are found; one keyword may have several, or none.

        Args:
            image: An upright RGB picture.
            keywords: Phrases to find.
            name: The picture's path in its source, for backends that look it up.

        Returns:
            Regions whose ``keyword`` is one of ``keywords``, with boxes and masks in pixels of ``image``.

        Raises:
            RowError: The row cannot be used.
        """
        ...


@dataclass(frozen=True, slots=True)
class RegionOptions:
    """What backends may need.

    Attributes:
        annotations: Annotation file.
        box_format: What its boxes are; recognised when None.
        embedding_model: Sentence embeddings that compare keywords with labels.
        model: Checkpoint instead of the backend's own; ``DETECTOR,SEGMENTER`` for two models.
        revision: Revision of the checkpoint, likewise.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1``, ``mps``.
        dtype: ``auto``, ``float32``, ``bfloat16``, ``float16``.
        box_threshold: Score from which a box counts; the backend's own when None.
        mask_threshold: Probability from which a pixel counts; the backend's own when None.
    """

    annotations: str | None = None
    box_format: BoxFormat | None = None
    embedding_model: str | None = None
    model: str | None = None
    revision: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    box_threshold: float | None = None
    mask_threshold: float | None = None


def load_backend(spec: str, options: RegionOptions | None = None) -> RegionBackend:
    """The backend of that name.

    Args:
        spec: A name of [`BACKENDS`], or ``package.module:Class``, which is called without arguments.
        options: What the backend may need.

    Raises:
        UserError: There is no such backend, it cannot be imported, or it lacks what it needs.
    """
    options = options or RegionOptions()
    check_backend(spec, options)
    return _load_class(spec) if ":" in spec else BACKENDS[spec](options)


def check_backend(spec: str, options: RegionOptions) -> None:
    """Complain about what can be known to be wrong before a backend is loaded.

    Args:
        spec: See [`load_backend`].
        options: What the backend may need.

    Raises:
        UserError: There is no such backend, or it needs a file that is not named.
    """
    if ":" not in spec and spec not in BACKENDS:
        raise UserError(
            f"unknown region backend {spec!r}",
            where="--regions",
            fix=f"{nearest(spec, BACKENDS)} (a class of your own is written package.module:Class)",
        )
    if spec == "annotations" and options.annotations is None:
        raise UserError(
            "the region backend `annotations` needs a file of boxes or masks",
            where="--regions annotations",
            fix="pass --annotations FILE (JSON Lines of image and boxes, or COCO instances)",
        )


def auto_backend() -> str:
    """The model backend that ``auto`` takes on this machine: two large models on a GPU, else a small one."""
    import torch

    return "grounded-sam2" if torch.cuda.is_available() else "clipseg"


def backend_fingerprint(backend: RegionBackend) -> str | None:
    """Identifies everything but picture and keyword that a backend's results depend on.

    Results of a backend with an attribute ``fingerprint`` (a string) are kept for later builds; without one,
    or with None, they are kept only until the dataset is finished.
    """
    return getattr(backend, "fingerprint", None)


def _load_class(spec: str) -> RegionBackend:
    where = f"--regions {spec}"
    backend = load_object(spec, where)()
    if not isinstance(backend, RegionBackend):
        raise UserError(
            f"{spec.partition(':')[2]} has no method `segment`",
            where=where,
            fix="segment(image, keywords, *, name=None) -> list[Region]",
        )
    return backend


def _annotations(options: RegionOptions) -> RegionBackend:
    from mfpo.data.annotation_files import load_annotations
    from mfpo.preferences.regions.given import GivenRegions

    assert options.annotations is not None, "checked before a backend is loaded"
    annotations = load_annotations(options.annotations, options.box_format)
    return GivenRegions(annotations, embedding_model=options.embedding_model)


def _grounded_sam2(options: RegionOptions) -> RegionBackend:
    from mfpo.preferences.regions.boxes_and_masks import grounded_sam2

    return grounded_sam2(options)


def _owlv2_sam(options: RegionOptions) -> RegionBackend:
    from mfpo.preferences.regions.boxes_and_masks import owlv2_sam

    return owlv2_sam(options)


def _sam3(options: RegionOptions) -> RegionBackend:
    from mfpo.preferences.regions.sam3 import Sam3

    return Sam3(options)


def _clipseg(options: RegionOptions) -> RegionBackend:
    from mfpo.preferences.regions.clipseg import ClipSeg

    return ClipSeg(options)


def _auto(options: RegionOptions) -> RegionBackend:
    """What suits the machine."""
    return BACKENDS[auto_backend()](options)


def default_checkpoints() -> dict[str, list[Checkpoint]]:
    """The checkpoints that each model backend takes unless others are named."""
    from mfpo.preferences.regions import clipseg, grounding_dino, owlv2, sam2, sam3

    return {
        "grounded-sam2": [grounding_dino.DEFAULT, sam2.DEFAULT],
        "sam3": [sam3.DEFAULT],
        "clipseg": [clipseg.DEFAULT],
        "owlv2-sam": [owlv2.DEFAULT, sam2.DEFAULT],
    }


BACKENDS: Mapping[str, Callable[[RegionOptions], RegionBackend]] = {
    "auto": _auto,
    "annotations": _annotations,
    "grounded-sam2": _grounded_sam2,
    "sam3": _sam3,
    "clipseg": _clipseg,
    "owlv2-sam": _owlv2_sam,
}
"""Name of each backend that comes along, and what makes it."""
