"""The reference pass: every row scored once by the frozen model, kept under a fingerprint."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mfpo.data.files import atomic_path
from mfpo.difficulty.chunks import Chunk, compute_in_chunks
from mfpo.difficulty.config import ESTIMATORS, Precision
from mfpo.difficulty.entropy import paper_entropy, token_mean_entropy
from mfpo.difficulty.prefetch import prefetch
from mfpo.difficulty.ragged import Ragged, is_ragged, ragged_from_tensors, ragged_to_tensors
from mfpo.difficulty.stages import levels
from mfpo.errors import RowError, Skip
from mfpo.models.logprobs import PLAIN, Layout, score_responses
from mfpo.models.mode import evaluating
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.collate import collate
from mfpo.preferences.encoding import EncodedRow, EncodedRows, SequenceKind

_Encoded: TypeAlias = tuple[list[EncodedRow], list[Skip]]
"""The rows of a batch that can be encoded, and a record of each of the others."""


@dataclass
class ReferenceScores:
    """What the reference model thinks of N rows.

    Attributes:
        ids: The rows' ids.
        logps: Summed response log-probabilities by sequence (``chosen``, ``rejected`` and, if it was scored,
            ``image_rejected``), float32 ``[N]`` each, on the CPU.
        entropies: Entropy of the chosen answer by estimator, float64 ``[N]`` each, on the CPU.
        tokens: Log-probability of each response token by sequence; empty unless they were asked for.
    """

    ids: list[str]
    logps: dict[str, Tensor]
    entropies: dict[str, Tensor]
    tokens: dict[str, Ragged] = field(default_factory=dict)

    @classmethod
    def of(cls, chunks: Sequence[Chunk], sequences: Sequence[SequenceKind]) -> ReferenceScores:
        """The scores that chunks of consecutive rows add up to."""

        def column(name: str, dtype: torch.dtype) -> Tensor:
            parts = [chunk.columns[name] for chunk in chunks if chunk.ids]
            return torch.cat(parts).to(dtype) if parts else torch.zeros(0, dtype=dtype)

        names = {name for chunk in chunks for name in chunk.columns}
        ragged = {
            name: column(name, torch.int64 if name.endswith("lengths") else torch.float32)
            for name in names
            if is_ragged(name)
        }
        return cls(
            ids=[identifier for chunk in chunks for identifier in chunk.ids],
            logps={name: column(name, torch.float32) for name in sequences},
            entropies={name: column(name, torch.float64) for name in ESTIMATORS},
            tokens=ragged_from_tensors(ragged, sequences),
        )

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of each id."""
        return {identifier: position for position, identifier in enumerate(self.ids)}

    def logps_of(self, identifier: str, sequences: Sequence[SequenceKind]) -> dict[str, float]:
        """Log-probabilities of a row by sequence."""
        return {name: self.logps[name][self.index[identifier]].item() for name in sequences}

    def tokens_of(self, identifier: str, sequences: Sequence[SequenceKind]) -> dict[str, Tensor]:
        """Log-probability of each token of a row, float32 ``[R]``, by sequence."""
        return {name: self.tokens[name][self.index[identifier]] for name in sequences}

    def save(self, folder: str | Path, fingerprint: str) -> None:
        """Write ``<fingerprint>.safetensors`` and ``<fingerprint>.parquet``, each atomically."""
        columns: dict[str, Any] = {"id": self.ids}
        for name, values in self.entropies.items():
            columns[f"entropy_{name}"] = values.tolist()
            columns[f"difficulty_{name}"] = levels(values.tolist())
        # The Parquet file comes last: where it is, both are.
        with atomic_path(Path(folder) / f"{fingerprint}.safetensors") as path:
            save_file(self.logps | ragged_to_tensors(self.tokens), path)
        with atomic_path(Path(folder) / f"{fingerprint}.parquet") as path:
            pq.write_table(pa.table(columns), path)

    @classmethod
    def load(cls, folder: str | Path, fingerprint: str) -> ReferenceScores | None:
        """What was saved under that fingerprint, None if nothing was; log-probabilities are memory-mapped."""
        table_path = Path(folder) / f"{fingerprint}.parquet"
        if not table_path.is_file():
            return None
        table = pq.read_table(table_path)
        tensors = load_file(table_path.with_suffix(".safetensors"))
        logps = {name: values for name, values in tensors.items() if not is_ragged(name)}
        return cls(
            ids=table["id"].to_pylist(),
            logps=logps,
            tokens=ragged_from_tensors(tensors, logps),
            entropies={name: torch.tensor(table[f"entropy_{name}"].to_numpy()) for name in ESTIMATORS},
        )


@torch.no_grad()
def compute_scores(
    model: nn.Module,
    rows: EncodedRows,
    images: ImageEncoder,
    sequences: Sequence[SequenceKind],
    *,
    batch_size: int,
    precision: Precision = "float32",
    layout: Layout = PLAIN,
    progress: bool = True,
    tokens: bool = False,
    folder: Path | None = None,
) -> tuple[ReferenceScores, list[Skip]]:
    """Score every row with the model as it is, in evaluation mode; the work is shared among processes.

    Args:
        model: The frozen model.
        rows: The rows.
        images: Encoder of the model's pictures.
        sequences: Sequences to score; ``chosen`` must be the first.
        batch_size: Rows at once.
        precision: What the model computes in; all but ``float32`` is under autocast, as training is.
        layout: How the sequences are laid out.
        progress: Whether to show a bar.
        tokens: Whether the log-probability of each token is kept.
        folder: Where what is done is stored every [`CHUNK_ROWS`] rows, so that a pass that is killed goes on
            from there; nowhere when None. For these rows, this model and these sequences only.

    Returns:
        Scores of the rows that could be read, in their order, and a record of each row that could not.
    """
    assert sequences[0] == "chosen"
    device = next(model.parameters()).device
    # Only one thread at a time may use the tokenizer.
    pad = rows.encoder.pad_token_id
    encode = partial(_encode, rows)

    def compute(chunks: Sequence[range]) -> Generator[Chunk, None, None]:
        batches = [[part[i : i + batch_size] for i in range(0, len(part), batch_size)] for part in chunks]
        ahead = batches_ahead(device)
        with closing(prefetch(encode, chain.from_iterable(batches), ahead=ahead)) as encoded:
            for parts in batches:
                yield score(islice(encoded, len(parts)))

    def score(batches: Iterable[_Encoded]) -> Chunk:
        skips: list[Skip] = []
        ids: list[str] = []
        found: list[dict[str, Tensor]] = []
        for batch, skipped in batches:
            skips += skipped
            if batch:
                ids += [row.id for row in batch]
                found.append(_score_rows(model, batch, images, sequences, pad, layout, tokens))
        columns = {name: torch.cat([part[name] for part in found]) for name in (found[0] if found else ())}
        return Chunk(ids, columns, skips)

    with evaluating(model), autocast_context(precision, device):
        chunks = compute_in_chunks(
            rows.ids, compute, folder=folder, label="reference pass", progress=progress
        )
    return ReferenceScores.of(chunks, sequences), [skip for chunk in chunks for skip in chunk.skips]


def batches_ahead(device: torch.device) -> int:
    """How many batches are encoded before the model is ready for them: 0 where both need the same cores."""
    return int(device.type != "cpu")


def _encode(rows: EncodedRows, indices: Sequence[int]) -> _Encoded:
    encoded: list[EncodedRow] = []
    skips: list[Skip] = []
    for index in indices:
        try:
            encoded.append(rows[index])
        except RowError as error:
            skips.append(Skip(f"row {rows.ids[index]}", error.reason, error.detail))
    return encoded, skips


def _score_rows(
    model: nn.Module,
    rows: Sequence[EncodedRow],
    images: ImageEncoder,
    sequences: Sequence[SequenceKind],
    pad_token_id: int,
    layout: Layout,
    tokens: bool,
) -> dict[str, Tensor]:
    """Log-probability of each sequence and entropy by each estimator, ``[B]`` on the CPU, of one batch.

    With ``tokens`` also the log-probabilities of all tokens, as [`Ragged`] columns.
    """
    batch = collate(rows, sequences, pad_token_id, layout).to(next(model.parameters()).device)
    scores = score_responses(model, batch, images, entropies=True)
    columns: dict[str, Tensor] = dict(zip(sequences, scores.logps.chunk(len(sequences)), strict=True))
    chosen = scores.first(len(rows))
    columns |= {"paper": paper_entropy(chosen), "token-mean": token_mean_entropy(chosen)}
    found = {name: values.cpu() for name, values in columns.items()}
    if tokens:
        lines = zip(scores.token_logps.cpu(), scores.mask.cpu(), strict=True)
        kept = [values[mask] for values, mask in lines]
        ragged: dict[str, Ragged] = {
            name: Ragged.of(kept[number * len(rows) : (number + 1) * len(rows)])
            for number, name in enumerate(sequences)
        }
        found |= ragged_to_tensors(ragged)
    return found


def autocast_context(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a model of that precision runs, in training and outside of it.

    Also with bfloat16 weights, since training has it there too: it computes layer norms in float32.
    """
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
