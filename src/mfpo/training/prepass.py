"""The reference scores of a training: stored ones, a pass before it, or those of a few rows for a dry run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from torch import nn

from mfpo.difficulty.config import Precision
from mfpo.difficulty.fingerprint import Fingerprint
from mfpo.difficulty.scores import compute_scores
from mfpo.difficulty.store import Stored, find_scores, obtain_scores
from mfpo.models.logprobs import PLAIN, Layout
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.encoding import EncodedRows, SequenceKind

if TYPE_CHECKING:
    from transformers import TrainingArguments


@dataclass(frozen=True, slots=True)
class ReferenceSource:
    """Where the scores of a training come from.

    Attributes:
        fingerprint: What they depend on.
        folders: Where they may be stored; new ones go to the first.
        sequences: The sequences that are needed.
        precision: What the model computes in.
        layout: How the sequences are laid out.
        tokens: Whether the log-probability of each token is needed.
    """

    fingerprint: Fingerprint
    folders: Sequence[Path]
    sequences: Sequence[SequenceKind]
    precision: Precision
    layout: Layout = PLAIN
    tokens: bool = False

    def obtain(
        self, model: nn.Module, rows: EncodedRows, images: ImageEncoder, args: TrainingArguments
    ) -> Stored:
        """Stored scores of all rows, or those of a reference pass."""
        return obtain_scores(
            model,
            rows,
            images,
            self.sequences,
            fingerprint=self.fingerprint,
            folders=self.folders,
            batch_size=args.per_device_train_batch_size,
            precision=self.precision,
            layout=self.layout,
            progress=not args.disable_tqdm,
            tokens=self.tokens,
        )

    def sample(
        self,
        model: nn.Module,
        rows: EncodedRows,
        images: ImageEncoder,
        by_length: Sequence[int],
        args: TrainingArguments,
    ) -> tuple[Stored, float | None]:
        """Stored scores, or those of the longest rows and a few others, and the seconds that all would take.

        Args:
            model: The model.
            rows: The rows.
            images: Encoder of its pictures.
            by_length: Indices of rows, the longest first.
            args: The training arguments.
        """
        found = find_scores(self.folders, self.fingerprint, self.sequences, tokens=self.tokens)
        if found is not None:
            return found, None
        size = args.per_device_train_batch_size
        spread = np.linspace(0, len(rows) - 1, min(size, len(rows))).astype(int).tolist()
        chosen = list(dict.fromkeys([*by_length[:size], *spread]))
        few = EncodedRows([rows.rows[row] for row in chosen], rows.encoder, cache_bytes=0)
        started = time.perf_counter()
        scores, skips = compute_scores(
            model,
            few,
            images,
            self.sequences,
            batch_size=size,
            precision=self.precision,
            layout=self.layout,
            progress=False,
            tokens=self.tokens,
        )
        seconds = (time.perf_counter() - started) * len(rows) / len(few) / args.world_size
        return Stored(scores, skips), seconds
