"""Reference scores that are there already, or computed now and kept."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object
from torch import nn

from mfpo.data.files import read_jsonl, write_jsonl
from mfpo.difficulty.chunks import discard_chunks
from mfpo.difficulty.config import Precision
from mfpo.difficulty.fingerprint import Fingerprint, refused
from mfpo.difficulty.scores import ReferenceScores, compute_scores
from mfpo.errors import Skip
from mfpo.models.logprobs import PLAIN, Layout
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.encoding import EncodedRows, Rows, SequenceKind

FOLDER = "reference"
"""Folder of a dataset, or of a training run, that holds scores."""


def scores_folder(rows: Rows) -> Path | None:
    """Where ``mfpo rank`` stores the scores of rows that are a dataset folder; None of any others."""
    folder: Path | None = getattr(rows, "folder", None)
    return None if folder is None else folder / FOLDER


@dataclass(frozen=True, slots=True)
class Stored:
    """Scores, and where they come from.

    Attributes:
        scores: The scores.
        skips: Rows that could not be read.
        reused: Whether they were there already.
    """

    scores: ReferenceScores
    skips: list[Skip] = field(default_factory=list)
    reused: bool = False


def find_scores(
    folders: Sequence[Path], wanted: Fingerprint, sequences: Sequence[SequenceKind], *, tokens: bool = False
) -> Stored | None:
    """Scores with that fingerprint of all the sequences, and of their tokens if asked."""
    found = None
    for folder in folders:
        scores = ReferenceScores.load(folder, wanted.digest)
        if scores is not None and set(sequences) <= set(scores.tokens if tokens else scores.logps):
            skipped = _skipped_file(folder, wanted)
            skips = [Skip(**entry) for entry in read_jsonl(skipped)] if skipped.is_file() else []
            found = Stored(scores, skips, reused=True)
            break
    # On machines without a common disk one of them may have what another lacks.
    return found if all(gather_object([found is not None])) else None


def obtain_scores(
    model: nn.Module,
    rows: EncodedRows,
    images: ImageEncoder,
    sequences: Sequence[SequenceKind],
    *,
    fingerprint: Fingerprint,
    folders: Sequence[Path],
    batch_size: int,
    precision: Precision,
    layout: Layout = PLAIN,
    progress: bool = True,
    overwrite: bool = False,
    tokens: bool = False,
) -> Stored:
    """Stored scores if they fit, else those of a reference pass, which is stored as it goes.

    Args:
        model: The frozen model.
        rows: The rows.
        images: Encoder of the model's pictures.
        sequences: Sequences to score.
        fingerprint: What the scores depend on.
        folders: Where scores may be; new ones are stored in the first.
        batch_size: Rows at once.
        precision: What the model computes in.
        layout: How the sequences are laid out.
        progress: Whether to show a bar.
        overwrite: Compute in any case.
        tokens: Whether the log-probability of each token is needed.
    """
    own = folders[0]
    parts = own / f"{fingerprint.digest}.{len(sequences)}{'.tokens' if tokens else ''}.parts"
    state = PartialState()
    if overwrite:
        discard_chunks(parts)
    elif (found := find_scores(folders, fingerprint, sequences, tokens=tokens)) is not None:
        return found
    elif state.is_main_process and not parts.is_dir():
        for line in refused(folders, fingerprint):
            print(f"stored scores are not used: {line}", file=sys.stderr)
    scores, skips = compute_scores(
        model,
        rows,
        images,
        sequences,
        batch_size=batch_size,
        precision=precision,
        layout=layout,
        progress=progress,
        tokens=tokens,
        folder=parts,
    )
    if scores.ids:
        if state.is_local_main_process:
            write_jsonl(_skipped_file(own, fingerprint), (skip.to_dict() for skip in skips))
            fingerprint.save(own)
            scores.save(own, fingerprint.digest)
        discard_chunks(parts)
    return Stored(scores, skips)


def _skipped_file(folder: Path, fingerprint: Fingerprint) -> Path:
    return folder / f"{fingerprint.digest}.skipped.jsonl"
