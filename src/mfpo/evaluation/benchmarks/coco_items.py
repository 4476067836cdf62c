"""Answers about COCO images as items with their ground truth, for the benchmarks that score any such file."""

from __future__ import annotations

from collections.abc import Callable, Sequence, Set
from pathlib import Path

from mfpo.errors import UserError
from mfpo.evaluation.benchmarks.base import Item
from mfpo.evaluation.mentions.coco import GroundTruth
from mfpo.records import Prediction


def answers_about(images: Set[str], predictions: Sequence[Prediction], path: str | Path) -> list[Prediction]:
    """The answers about some images.

    Args:
        images: Ids of the images that ``--num_samples`` leaves.
        predictions: All answers of a file.
        path: The file, for messages.

    Raises:
        UserError: There is none.
    """
    kept = [prediction for prediction in predictions if prediction.id in images]
    if not kept:
        raise UserError(
            f"none of the first {len(images)} images has an answer",
            where=str(path),
            fix="leave out --num_samples, or give a larger number",
        )
    return kept


def coco_items(
    predictions: Sequence[Prediction], truth_of: Callable[[Sequence[int]], GroundTruth], path: str | Path
) -> list[Item]:
    """The answers of a file as items, in its order.

    Args:
        predictions: The answers; each id is the number of a COCO image.
        truth_of: Ground truth of those images.
        path: The file, for messages.

    Raises:
        UserError: An image is none of COCO 2014's.
    """
    truth = truth_of([int(prediction.id) for prediction in predictions])
    unknown = [prediction.id for prediction in predictions if int(prediction.id) not in truth.objects]
    if unknown:
        raise UserError(
            f"{len(unknown)} of {len(predictions)} images have no ground truth, the first is {unknown[0]}",
            where=str(path),
            fix="`image_id` must be the number of a COCO 2014 image; take the others out of the file",
        )
    return [Item(p.id, p.question, p.image, "describe", p.id, truth.objects[int(p.id)]) for p in predictions]
