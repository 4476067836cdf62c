"""Answers about COCO images as items with their ground truth, for the benchmarks that score any such file."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from pathlib import Path

from mfpo.errors import UserError
from mfpo.evaluation.benchmarks.base import Item
from mfpo.evaluation.mentions.coco import GroundTruth
from mfpo.records import Prediction


def coco_items(
    predictions: Sequence[Prediction],
    truth_of: Callable[[Sequence[int]], GroundTruth],
    path: str | Path,
    images: Set[str] | None = None,
) -> list[Item]:
    """The answers of a file as items, in its order.

    Args:
        predictions: The answers; each id is the number of a COCO image.
        truth_of: Ground truth of those images.
        path: The file, for messages.
        images: The images that ``--num_samples`` leaves; all of them when None.

    Raises:
        UserError: An image is none of COCO 2014's, or none of ``images`` has an answer.
    """
    kept = {p.id: at for at, p in enumerate(predictions, start=1) if images is None or p.id in images}
    if images is not None and not kept:
        raise UserError(
            f"none of the first {len(images)} images has an answer",
            where=str(path),
            fix="leave out --num_samples, or give a larger number",
        )
    truth = truth_of([int(image) for image in kept])
    unknown = [image for image in kept if int(image) not in truth.objects]
    if unknown:
        raise UserError(
            f"{len(unknown)} of {len(kept)} images have no ground truth, the first is {unknown[0]}",
            where=f"{path}, answer {kept[unknown[0]]}",
            fix="`image_id` must be the number of a COCO 2014 image; take the others out of the file",
        )
    return [
        Item(p.id, p.question, p.image, "describe", p.id, truth.objects[int(p.id)])
        for p in predictions
        if p.id in kept
    ]
