"""Semantic entropy: how many things the model says about a picture (Farquhar et al., Nature 2024)."""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from mfpo.data.files import atomic_path
from mfpo.data.fingerprint import code_digest
from mfpo.data.images import open_image
from mfpo.difficulty.chunks import Chunk, compute_in_chunks
from mfpo.difficulty.stages import levels
from mfpo.errors import RowError, Skip, UserError
from mfpo.models.generation import generate
from mfpo.models.load import VLM
from mfpo.preferences.embeddings import load_embedder
from mfpo.preferences.encoding import Rows, row_ids
from mfpo.preferences.entailment import Entailment
from mfpo.preferences.keyword_config import KeywordConfig
from mfpo.records import PreferencePair, text_of

if TYPE_CHECKING:
    from PIL import Image

Same: TypeAlias = Callable[[str, str, Sequence[str]], list[bool]]
"""Of a question, an answer and other answers: which of these mean the same."""
CODE = (
    "difficulty/semantic.py",
    "models/generation.py",
    "preferences/embeddings.py",
    "preferences/entailment.py",
)
"""Source that semantic entropies depend on, beside that of the scores whose fingerprint names them."""
_SETTINGS = b"mfpo.semantic"


@dataclass(frozen=True, slots=True)
class SemanticSettings:
    """How answers are sampled and compared.

    Attributes:
        samples: Answers for each row, at least 2.
        max_new_tokens: Tokens after which an answer is cut.
        temperature: Temperature of the samples; 1 samples what the model thinks.
        seed: Seed; a row's own is a hash of it and the row's id.
        similarity: Cosine of sentence embeddings from which two answers mean the same, -1 to 1.
        embedding_model: Sentence embeddings.
        entailment_model: A classifier of natural-language inference: two answers mean the same where each
            entails the other; None to compare embeddings.
    """

    samples: int = 10
    max_new_tokens: int = 64
    temperature: float = 1.0
    seed: int = 0
    similarity: float = 0.9
    embedding_model: str = KeywordConfig.embedding_model
    entailment_model: str | None = None

    @property
    def digest(self) -> str:
        """Eight hex digits that change with any setting, and with the code."""
        parts = asdict(self) | {"code": code_digest(CODE)}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class SemanticEntropies:
    """Semantic entropies of N rows.

    Attributes:
        ids: The rows' ids.
        entropies: Nats, float64 ``[N]``, between 0 and log(samples).
        answers: The sampled answers of each row.
        clusters: Number of the meaning of each answer, from 0.
        skips: Rows that could not be answered.
        settings: How they were made.
    """

    ids: list[str]
    entropies: Tensor
    answers: list[list[str]]
    clusters: list[list[int]]
    skips: list[Skip]
    settings: SemanticSettings

    def save(self, folder: Path, fingerprint: str) -> None:
        """Write ``<fingerprint>.semantic.parquet`` atomically."""
        values = self.entropies.tolist()
        columns: dict[str, Any] = {
            "id": self.ids,
            "entropy_semantic": values,
            "difficulty_semantic": levels(values),
            "answers": self.answers,
            "clusters": self.clusters,
        }
        settings = asdict(self.settings) | {"code": code_digest(CODE)}
        table = pa.table(columns).replace_schema_metadata({_SETTINGS: json.dumps(settings)})
        with atomic_path(_file(folder, fingerprint)) as path:
            pq.write_table(table, path)

    @classmethod
    def load(cls, folder: Path, fingerprint: str) -> SemanticEntropies | None:
        """What was saved for that model and these rows, None if nothing was, or by other code."""
        path = _file(folder, fingerprint)
        if not path.is_file():
            return None
        table = pq.read_table(path)
        settings = json.loads(table.schema.metadata[_SETTINGS])
        if settings.pop("code", "") != code_digest(CODE):
            return None
        columns = {name: table[name].to_pylist() for name in ("id", "answers", "clusters")}
        return cls(
            ids=columns["id"],
            entropies=torch.tensor(table["entropy_semantic"].to_numpy()),
            answers=columns["answers"],
            clusters=columns["clusters"],
            skips=[],
            settings=SemanticSettings(**settings),
        )


def cluster_entropy(clusters: Sequence[int]) -> float:
    """H = -sum_c (n_c / N) log(n_c / N) over the meanings c of N sampled answers, in nats.

    The discrete estimator of Farquhar et al.: how often a meaning was sampled stands for its probability.
    """
    counts = Counter(clusters).values()
    return sum(count / len(clusters) * math.log(len(clusters) / count) for count in counts)


def cluster_meanings(question: str, answers: Sequence[str], same: Same) -> list[int]:
    """Number of the meaning of each answer: that of the first earlier answer, one a meaning, it agrees with.

    Algorithm 1 of Farquhar et al.: an answer is compared with the first answer of each meaning found so far.
    """
    clusters: list[int] = []
    firsts: list[str] = []
    for answer in answers:
        agrees = same(question, answer, firsts) if firsts else []
        number = agrees.index(True) if True in agrees else len(firsts)
        if number == len(firsts):
            firsts.append(answer)
        clusters.append(number)
    return clusters


def same_embedding(settings: SemanticSettings) -> Same:
    """Answers mean the same where the cosine of their sentence embeddings is large enough."""
    embedder = load_embedder(settings.embedding_model)

    def same(question: str, answer: str, others: Sequence[str]) -> list[bool]:
        vectors = embedder.embed([answer, *others])
        cosines = vectors[1:] @ vectors[0]
        return [bool(cosine >= settings.similarity) for cosine in cosines]

    return same


def same_entailment(model: Entailment) -> Same:
    """Answers mean the same where each, read after the question, entails the other."""

    def same(question: str, answer: str, others: Sequence[str]) -> list[bool]:
        mine, theirs = f"{question} {answer}", [f"{question} {other}" for other in others]
        found = model.entails([(mine, other) for other in theirs] + [(other, mine) for other in theirs])
        return [
            there and back for there, back in zip(found[: len(others)], found[len(others) :], strict=True)
        ]

    return same


def semantic_entropies(
    vlm: VLM,
    rows: Rows,
    settings: SemanticSettings,
    *,
    batch_size: int,
    folder: Path | None = None,
    progress: bool = True,
) -> SemanticEntropies:
    """Sample answers to every row's prompt, cluster them by meaning, and take the entropy of the meanings.

    Processes share the rows, and an interrupted pass goes on, as [`compute_in_chunks`] says.

    Args:
        vlm: The model.
        rows: The rows, of one image each; others are skipped.
        settings: How answers are sampled and compared.
        batch_size: Answers generated at once.
        folder: Where chunks are stored; for this model, these rows and settings only.
        progress: Whether to show a bar.

    Raises:
        UserError: A setting is out of range, or a model cannot be loaded.
    """
    if settings.samples < 2:
        raise UserError("at least 2 answers are needed", where=f"--semantic_samples {settings.samples}")
    name = settings.entailment_model
    device = next(vlm.model.parameters()).device
    same = same_entailment(Entailment(name, device)) if name else same_embedding(settings)
    # Answers embedded one by one cost a whole batch each; the vectors stay in the embedder's cache.
    prepare = None if name else load_embedder(settings.embedding_model).embed

    def compute(chunks: Sequence[range]) -> Generator[Chunk, None, None]:
        for indices in chunks:
            pairs, images, skips = _answerable([rows[index] for index in indices])
            answers = _sample_answers(vlm, pairs, images, settings, batch_size)
            if prepare is not None:
                prepare([answer for row in answers for answer in row])
            notes: list[dict[str, Any]] = [
                {"answers": mine, "clusters": cluster_meanings(text_of(pair.prompt), mine, same)}
                for pair, mine in zip(pairs, answers, strict=True)
            ]
            entropies = [cluster_entropy(note["clusters"]) for note in notes]
            columns = {"semantic": torch.tensor(entropies, dtype=torch.float64)}
            yield Chunk([pair.id for pair in pairs], columns, skips, notes)

    chunks = compute_in_chunks(
        row_ids(rows), compute, folder=folder, label="semantic entropy", progress=progress
    )
    notes = [note for chunk in chunks for note in chunk.notes]
    return SemanticEntropies(
        ids=[identifier for chunk in chunks for identifier in chunk.ids],
        entropies=torch.cat([torch.zeros(0, dtype=torch.float64), *(c.columns["semantic"] for c in chunks)]),
        answers=[note["answers"] for note in notes],
        clusters=[note["clusters"] for note in notes],
        skips=[skip for chunk in chunks for skip in chunk.skips],
        settings=settings,
    )


def _answerable(
    pairs: Sequence[PreferencePair],
) -> tuple[list[PreferencePair], list[Image.Image], list[Skip]]:
    """The rows whose one picture can be opened, their pictures, and a record of each other row."""
    used: list[PreferencePair] = []
    images: list[Image.Image] = []
    skips: list[Skip] = []
    for pair in pairs:
        try:
            if len(pair.images) != 1:
                raise RowError("image-count", f"answers are sampled for one image, not {len(pair.images)}")
            images.append(open_image(pair.images[0]))
            used.append(pair)
        except RowError as error:
            skips.append(Skip(f"row {pair.id}", error.reason, error.detail))
    return used, images, skips


def _sample_answers(
    vlm: VLM,
    pairs: Sequence[PreferencePair],
    images: Sequence[Image.Image],
    settings: SemanticSettings,
    batch_size: int,
) -> list[list[str]]:
    """The sampled answers of each row."""
    answers = generate(
        vlm,
        images,
        [pair.prompt for pair in pairs],
        max_new_tokens=settings.max_new_tokens,
        batch_size=batch_size,
        temperature=settings.temperature,
        seed=settings.seed,
        num_return_sequences=settings.samples,
        ids=[pair.id for pair in pairs],
    )
    return [answers[start : start + settings.samples] for start in range(0, len(answers), settings.samples)]


def _file(folder: Path, fingerprint: str) -> Path:
    return folder / f"{fingerprint}.semantic.parquet"
