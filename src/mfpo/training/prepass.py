"""The reference scores of a training: stored ones, a pass before it, or those of a few rows for a dry run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from mfpo.difficulty.config import Precision
from mfpo.difficulty.fingerprint import Fingerprint
from mfpo.difficulty.scores import ReferenceScores, compute_scores
from mfpo.difficulty.semantic import SemanticEntropies
from mfpo.difficulty.store import find_scores, obtain_scores
from mfpo.errors import Skip, UserError
from mfpo.models.logprobs import Layout
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.encoding import EncodedRows, SequenceKind

if TYPE_CHECKING:
    from transformers import TrainingArguments


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the reference before training.

    Attributes:
        scores: Scores of all rows, or in a dry run of some; None where none are needed.
        skips: Rows that could not be read.
        seconds: What the pass over all rows would take; None if it is done or not needed.
    """

    scores: ReferenceScores | None = None
    skips: list[Skip] = field(default_factory=list)
    seconds: float | None = None


@dataclass(frozen=True, slots=True)
class ReferenceSource:
    """Where the scores of a training come from.

    Attributes:
        fingerprint: What they depend on.
        folders: Where they may be stored; new ones go to the first.
        sequences: The sequences that are needed.
        precision: What the model computes in.
        layout: How the sequences are laid out.
        tokens: Whether scores are needed token by token.
    """

    fingerprint: Fingerprint
    folders: Sequence[Path]
    sequences: Sequence[SequenceKind]
    precision: Precision
    layout: Layout
    tokens: bool

    @property
    def weights(self) -> str:
        """Digest of the model's weights."""
        return self.fingerprint.parts["model weights"]

    def known(
        self,
        model: nn.Module,
        rows: EncodedRows,
        images: ImageEncoder,
        args: TrainingArguments,
        *,
        sample: Sequence[int] | None = None,
    ) -> Known:
        """Stored scores of all rows, or those of a reference pass.

        Args:
            model: The model.
            rows: The rows.
            images: Encoder of its pictures.
            args: The training arguments.
            sample: Score these rows only, where none are stored; None for all.
        """
        if sample is not None:
            return self._sample(model, rows, images, args, sample)
        stored = obtain_scores(
            model,
            rows,
            images,
            self.sequences,
            fingerprint=self.fingerprint,
            folders=self.folders,
            batch_size=args.per_device_train_batch_size,
            precision=self.precision,
            layout=self.layout,
            tokens=self.tokens,
            progress=not args.disable_tqdm,
        )
        return Known(stored.scores, stored.skips)

    def semantic(self) -> SemanticEntropies:
        """Stored semantic entropies.

        Raises:
            UserError: There are none of this model and these rows.
        """
        for folder in self.folders:
            found = SemanticEntropies.load(folder, self.fingerprint.digest)
            if found is not None:
                return found
        raise UserError(
            "there are no semantic entropies of this model and these rows",
            where="--difficulty semantic",
            fix="run `mfpo rank --semantic` first, with the same model, noise, max_length and precision",
        )

    def _sample(
        self,
        model: nn.Module,
        rows: EncodedRows,
        images: ImageEncoder,
        args: TrainingArguments,
        sample: Sequence[int],
    ) -> Known:
        stored = find_scores(self.folders, self.fingerprint, self.sequences, tokens=self.tokens)
        if stored is not None:
            return Known(stored.scores, stored.skips)
        few = EncodedRows([rows.rows[row] for row in dict.fromkeys(sample)], rows.encoder, cache_bytes=0)
        started = time.perf_counter()
        scores, skips = compute_scores(
            model,
            few,
            images,
            self.sequences,
            batch_size=args.per_device_train_batch_size,
            precision=self.precision,
            layout=self.layout,
            tokens=self.tokens,
            progress=False,
        )
        seconds = (time.perf_counter() - started) * len(rows) / len(few) / args.world_size
        return Known(scores, skips, seconds)
