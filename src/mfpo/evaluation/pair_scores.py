"""Log-probabilities of both answers of preference rows, in batches."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple, TypeVar

import torch

from mfpo.models.load import VLM
from mfpo.models.logprobs import score_responses
from mfpo.models.mode import evaluating
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.collate import collate
from mfpo.preferences.encoding import EncodedRow, RowEncoder

Key = TypeVar("Key")


class PairLogps(NamedTuple):
    """What a model thinks of both answers of a row, in nats.

    Attributes:
        chosen: log pi(y_w | m, x).
        rejected: log pi(y_l | m, x).
    """

    chosen: float
    rejected: float


def score_pairs(
    vlm: VLM, encoder: RowEncoder, rows: Iterable[tuple[Key, EncodedRow]], *, batch_size: int
) -> Iterator[tuple[Key, PairLogps]]:
    """Score both answers of rows, which are taken as they are needed.

    Args:
        vlm: The model, which is in evaluation mode meanwhile.
        encoder: What encoded the rows.
        rows: The rows, each with what tells it from the others.
        batch_size: Sequences scored at once; a row is two.

    Yields:
        What came with each row, in their order, and its log-probabilities.
    """
    images = ImageEncoder(vlm.model, cache_bytes=0)
    waiting = iter(rows)
    while batch := list(islice(waiting, max(1, batch_size // 2))):
        logps = _score(vlm, [row for _, row in batch], images, encoder.pad_token_id)
        yield from zip((key for key, _ in batch), logps, strict=True)


@torch.inference_mode()
def _score(vlm: VLM, rows: Sequence[EncodedRow], images: ImageEncoder, pad_token_id: int) -> list[PairLogps]:
    batch = collate(rows, ("chosen", "rejected"), pad_token_id).to(vlm.device)
    with evaluating(vlm.model):
        logps = score_responses(vlm.model, batch, images).logps.tolist()
    return [PairLogps(*pair) for pair in zip(logps[: len(rows)], logps[len(rows) :], strict=True)]
