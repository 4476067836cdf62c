"""The reference pass: every row scored once by the frozen model, kept under a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from mfpo.data.files import atomic_path
from mfpo.data.fingerprint import code_digest, library_versions
from mfpo.difficulty.config import ESTIMATORS, Precision
from mfpo.difficulty.entropy import paper_entropy, token_mean_entropy
from mfpo.difficulty.ragged import Ragged, is_ragged, ragged_from_tensors, ragged_to_tensors
from mfpo.difficulty.stages import levels
from mfpo.errors import RowError, Skip
from mfpo.models.logprobs import PLAIN, Layout, score_responses
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.collate import collate
from mfpo.preferences.encoding import EncodedRow, EncodedRows, SequenceKind
from mfpo.records import PreferencePair

if TYPE_CHECKING:
    from mfpo.preferences.encoding import RowEncoder

CODE = (
    "difficulty/entropy.py",
    "difficulty/scores.py",
    "models",
    "preferences/collate.py",
    "preferences/encoding.py",
    "preferences/erase.py",
    "preferences/noise.py",
    "preferences/rejected.py",
)
"""Source that scores depend on."""
UNRELATED = frozenset({"_name_or_path", "use_cache", "bos_token_id", "eos_token_id", "pad_token_id"})
"""Entries of a model's configuration that change no score; a trainer sets some of them."""


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
        """What was saved under that fingerprint, None if nothing was."""
        table_path = Path(folder) / f"{fingerprint}.parquet"
        if not table_path.is_file():
            return None
        table = pq.read_table(table_path).to_pydict()
        tensors = load_file(table_path.with_suffix(".safetensors"))
        logps = {name: values for name, values in tensors.items() if not is_ragged(name)}
        return cls(
            ids=table["id"],
            logps=logps,
            tokens=ragged_from_tensors(tensors, logps),
            entropies={
                name: torch.tensor(table[f"entropy_{name}"], dtype=torch.float64) for name in ESTIMATORS
            },
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
) -> tuple[ReferenceScores, list[Skip]]:
    """Score every row with the model as it is, in evaluation mode; the work is shared among processes.

    Args:
        model: The frozen model.
        rows: The rows.
        images: Encoder of the model's pictures.
        sequences: Sequences to score; ``chosen`` must be the first.
        batch_size: Rows at once.
        precision: ``mixed`` computes in bfloat16 whatever the weights are.
        layout: How the sequences are laid out.
        progress: Whether to show a bar.
        tokens: Whether the log-probability of each token is kept.

    Returns:
        Scores of the rows that could be read, in their order, and a record of each row that could not.
    """
    assert sequences[0] == "chosen"
    state = PartialState()
    indices = range(state.process_index, len(rows), state.num_processes)
    hidden = not (progress and state.is_main_process)
    device = next(model.parameters()).device
    mine: list[tuple[int, RowScores]] = []
    skips: list[Skip] = []
    training = model.training
    model.eval()
    with (
        autocast_context(precision, device),
        tqdm(total=len(indices), desc="reference pass", unit="row", disable=hidden) as bar,
    ):
        for start in range(0, len(indices), batch_size):
            wanted = indices[start : start + batch_size]
            encoded = _encode(rows, wanted, skips)
            if encoded:
                scored = _score_rows(
                    model,
                    list(encoded.values()),
                    images,
                    sequences,
                    rows.encoder.pad_token_id,
                    layout,
                    tokens,
                )
                mine.extend(zip(encoded, scored, strict=True))
            bar.update(len(wanted))
    model.train(training)
    found = sorted(gather_object(mine), key=lambda item: item[0])
    columns = {name: [row.numbers[name] for _, row in found] for name in (*sequences, *ESTIMATORS)}
    scores = ReferenceScores(
        ids=[rows.ids[index] for index, _ in found],
        logps={name: torch.tensor(columns[name], dtype=torch.float32) for name in sequences},
        entropies={name: torch.tensor(columns[name], dtype=torch.float64) for name in ESTIMATORS},
        tokens={name: Ragged.of([row.tokens[name] for _, row in found]) for name in sequences if tokens},
    )
    return scores, gather_object(skips)


@dataclass(frozen=True, slots=True)
class RowScores:
    """What the pass finds out about one row.

    Attributes:
        numbers: Log-probability by sequence and entropy by estimator.
        tokens: Log-probability of each token by sequence; empty unless asked for.
    """

    numbers: dict[str, float]
    tokens: dict[str, Tensor]


def _encode(rows: EncodedRows, indices: Sequence[int], skips: list[Skip]) -> dict[int, EncodedRow]:
    encoded = {}
    for index in indices:
        try:
            encoded[index] = rows[index]
        except RowError as error:
            skips.append(Skip(f"row {rows.ids[index]}", error.reason, error.detail))
    return encoded


def _score_rows(
    model: nn.Module,
    rows: Sequence[EncodedRow],
    images: ImageEncoder,
    sequences: Sequence[SequenceKind],
    pad_token_id: int,
    layout: Layout,
    tokens: bool,
) -> list[RowScores]:
    """Log-probability of each sequence and entropy by each estimator, for every row of one batch."""
    batch = collate(rows, sequences, pad_token_id, layout).to(next(model.parameters()).device)
    scores = score_responses(model, batch, images, entropies=True)
    columns: dict[str, Tensor] = dict(zip(sequences, scores.logps.chunk(len(sequences)), strict=True))
    chosen = scores.first(len(rows))
    columns |= {"paper": paper_entropy(chosen), "token-mean": token_mean_entropy(chosen)}
    listed = {name: values.tolist() for name, values in columns.items()}
    details: list[dict[str, Tensor]] = [{} for _ in rows]
    if tokens:
        for number, (values, mask) in enumerate(
            zip(scores.token_logps.cpu(), scores.mask.cpu(), strict=True)
        ):
            details[number % len(rows)][sequences[number // len(rows)]] = values[mask]
    return [
        RowScores({name: values[row] for name, values in listed.items()}, details[row])
        for row in range(len(rows))
    ]


def autocast_context(precision: Precision, device: torch.device) -> AbstractContextManager[Any]:
    """The context in which a model of that precision runs."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if precision == "mixed" else nullcontext()


def fingerprint(
    model: nn.Module,
    encoder: RowEncoder,
    rows: Iterable[PreferencePair],
    precision: Precision,
    layout: Layout = PLAIN,
) -> str:
    """Sixteen hex digits that change with anything the scores depend on.

    That is every weight of the model and its configuration, the processor's template, tokens and image
    settings, the length limit, the precision, the layout, each row with the noise it gets, the code and the
    libraries; not the order of the rows.
    """
    processor: Any = encoder.processor
    config: Any = model.config
    settings = {
        "code": code_digest(CODE),
        "libraries": library_versions(),
        "config": _without(config.to_dict(), UNRELATED),
        "attention": getattr(config, "_attn_implementation", None),
        "template": getattr(processor, "chat_template", None) or processor.tokenizer.chat_template,
        "tokenizer": _tokenizer_digest(processor.tokenizer),
        "image_processor": processor.image_processor.to_json_string(),
        "max_length": encoder.max_length,
        "precision": precision,
        "layout": asdict(layout),
        "rows": sorted(_row_digest(pair, encoder) for pair in rows),
    }
    digest = hashlib.sha256(weights_digest(model))
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    return digest.hexdigest()[:16]


def _without(settings: Any, names: frozenset[str]) -> Any:
    """Nested settings without the entries of those names."""
    if not isinstance(settings, dict):
        return settings
    return {name: _without(value, names) for name, value in settings.items() if name not in names}


def _tokenizer_digest(tokenizer: Any) -> str:
    """SHA-256 over everything a fast tokenizer does, or over the vocabulary of another one."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    text = backend.to_str() if backend is not None else json.dumps(tokenizer.get_vocab(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def weights_digest(model: nn.Module) -> bytes:
    """SHA-256 over the names, shapes, dtypes and values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.detach().contiguous().cpu().view(-1).view(torch.uint8).numpy().data)
    return digest.digest()


def _row_digest(pair: PreferencePair, encoder: RowEncoder) -> str:
    noise = encoder.noise.apply(pair.noise)
    regions = [(region.rle, region.box) for region in pair.regions]
    stored = [hashlib.sha256(source.read()).hexdigest() for source in pair.rejected_images]
    return json.dumps([pair.id, asdict(noise), regions, stored])
