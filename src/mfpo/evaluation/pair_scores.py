"""Log-probabilities of both answers of preference rows, in batches."""

from __future__ import annotations

from typing import Any

import torch

from mfpo.models.load import VLM
from mfpo.models.logprobs import score_responses
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.collate import collate
from mfpo.preferences.encoding import EncodedRow, RowEncoder


class PairScorer:
    """Scores both answers of encoded rows in batches; the sums go into the rows' records.

    A record gets ``"<name> chosen"`` and ``"<name> rejected"``: log pi(y_w | m, x) and log pi(y_l | m, x) in
    nats.
    """

    def __init__(self, vlm: VLM, encoder: RowEncoder, rows_at_once: int) -> None:
        self.model, self.device = vlm.model, vlm.device
        self.images = ImageEncoder(vlm.model, cache_bytes=0)
        self.pad_token_id, self.rows_at_once = encoder.pad_token_id, rows_at_once
        self.waiting: list[tuple[EncodedRow, dict[str, Any], str]] = []

    def add(self, row: EncodedRow, record: dict[str, Any], name: str) -> None:
        """Let a row wait for its batch."""
        self.waiting.append((row, record, name))
        if len(self.waiting) == self.rows_at_once:
            self.flush()

    @torch.inference_mode()
    def flush(self) -> None:
        """Score what waits."""
        if not self.waiting:
            return
        rows = [row for row, _, _ in self.waiting]
        batch = collate(rows, ("chosen", "rejected"), self.pad_token_id).to(self.device)
        training = self.model.training
        self.model.eval()
        logps = score_responses(self.model, batch, self.images).logps.tolist()
        self.model.train(training)
        for position, (_, record, name) in enumerate(self.waiting):
            record[f"{name} chosen"] = logps[position]
            record[f"{name} rejected"] = logps[len(rows) + position]
        self.waiting.clear()
