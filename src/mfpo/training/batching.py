"""The order in which rows are trained on, and the batches they form."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from mfpo.difficulty.scores import ReferenceScores
from mfpo.difficulty.stages import Stage
from mfpo.errors import RowError, Skip, UserError
from mfpo.models.logprobs import PLAIN, Layout, ResponseBatch, ResponseScores
from mfpo.preferences.collate import collate, row_tokens
from mfpo.preferences.encoding import EncodedRow, EncodedRows, SequenceKind
from mfpo.training.objectives import Answers, BySequence, SequenceLogps
from mfpo.training.segments import changed_segments

MAX_UNREADABLE = 20
"""Rows in a row that may fail before training gives up: by then it is the disk, not the row."""


@dataclass(frozen=True, slots=True)
class ScheduledRow:
    """A row at its place in the training.

    Attributes:
        row: Index of the row.
        stage: 1-based number of the stage.
    """

    row: int
    stage: int


def plan_curriculum(
    stages: Sequence[Stage], *, num_passes: int = 1, num_examples: int | None = None, seed: int = 0
) -> list[ScheduledRow]:
    """Which row is trained on when: stage after stage, each pass over a stage in a new random order.

    A function of its arguments alone, so that a resumed training goes on with the row that would have been
    next.

    Args:
        stages: The stages in their order.
        num_passes: Passes over the rows of each stage.
        num_examples: Rows to train on in all, in place of ``num_passes``; shared among the stages by their
            sizes.
        seed: Seed of the orders.
    """
    sizes = [len(stage.rows) for stage in stages]
    if num_examples is None:
        lengths = [size * num_passes for size in sizes]
    else:
        bounds = [round(num_examples * sum(sizes[:number]) / sum(sizes)) for number in range(len(sizes) + 1)]
        lengths = [end - start for start, end in pairwise(bounds)]
    schedule: list[ScheduledRow] = []
    for number, (stage, length) in enumerate(zip(stages, lengths, strict=True), start=1):
        order: list[int] = []
        passes = 0
        while len(order) < length:
            shuffled = np.random.default_rng([seed, number, passes]).permutation(stage.rows)
            order.extend(int(row) for row in shuffled)
            passes += 1
        schedule.extend(ScheduledRow(row, number) for row in order[:length])
    return schedule


@dataclass(frozen=True, slots=True)
class CurriculumPlan:
    """What the order of a training follows from, see [`plan_curriculum`].

    Attributes:
        stages: The stages in their order.
        num_passes: Passes over the rows of each stage.
        num_examples: Rows to train on in all, in place of ``num_passes``.
        seed: Seed of the orders.
    """

    stages: tuple[Stage, ...]
    num_passes: int = 1
    num_examples: int | None = None
    seed: int = 0

    def schedule(self) -> list[ScheduledRow]:
        """The rows in the order of training."""
        return plan_curriculum(
            self.stages, num_passes=self.num_passes, num_examples=self.num_examples, seed=self.seed
        )


@dataclass(frozen=True, slots=True)
class Example:
    """A row that is trained on.

    Attributes:
        row: The encoded row.
        stage: 1-based number of the stage.
        reference: Its reference log-probabilities by sequence, None when they are computed during training or
            not needed.
        tokens: The same token by token, float32 ``[R_kind]`` each; None unless they are needed.
        skips: Rows that could not be read, in whose place it stands.
    """

    row: EncodedRow
    stage: int
    reference: dict[str, float] | None = None
    tokens: dict[str, Tensor] | None = None
    skips: tuple[Skip, ...] = ()


class CurriculumDataset(Dataset[Example]):
    """The order of training as a map-style dataset: item i is the row that is trained on i-th, encoded.

    A row that cannot be read any more gives its place to the next one that can, and is reported with it.

    Args:
        rows: The rows.
        schedule: The order of training.
        reference: Stored scores of the rows, if training uses them.
        sequences: Sequences whose stored log-probabilities are wanted.
        tokens: Whether they are wanted token by token too.
    """

    def __init__(
        self,
        rows: EncodedRows,
        schedule: Sequence[ScheduledRow],
        reference: ReferenceScores | None,
        sequences: Sequence[SequenceKind],
        *,
        tokens: bool = False,
    ) -> None:
        self.rows, self.schedule, self.reference, self.sequences = rows, schedule, reference, sequences
        self.tokens = tokens

    def __len__(self) -> int:
        return len(self.schedule)

    def __getitem__(self, index: int) -> Example:
        """The example at a place of the order.

        Raises:
            UserError: Many rows in a row cannot be read.
        """
        skips: list[Skip] = []
        for offset in range(min(MAX_UNREADABLE, len(self.schedule))):
            scheduled = self.schedule[(index + offset) % len(self.schedule)]
            try:
                row = self.rows[scheduled.row]
            except RowError as error:
                skips.append(Skip(f"row {self.rows.ids[scheduled.row]}", error.reason, error.detail))
                continue
            stored, reference, tokens = self.reference, None, None
            if stored is not None:
                reference = stored.logps_of(row.id, self.sequences)
                tokens = stored.tokens_of(row.id, self.sequences) if self.tokens else None
            return Example(row, self.schedule[index].stage, reference, tokens, tuple(skips))
        raise UserError(
            f"{len(skips)} rows one after the other cannot be read; the last: {skips[-1].detail}",
            where=skips[-1].where,
            fix="check that the dataset folder is complete and readable",
        )


@dataclass(slots=True)
class TrainingBatch:
    """B rows that are trained on together.

    Attributes:
        responses: The sequences of the rows, all of one kind first, then all of the next.
        sequences: The kinds, in that order.
        stages: 1-based number of the stage of each row, float32 ``[B]``.
        reference: Reference log-probabilities, None when they are computed during training.
        ids: The rows' ids.
        segments: Changed segments of the answers, int64 ``[B, R]`` each; None unless they are needed.
        eos_token_id: The token that ends an answer.
        skips: Rows that could not be read.
    """

    responses: ResponseBatch
    sequences: tuple[SequenceKind, ...]
    stages: Tensor
    reference: SequenceLogps | None
    ids: list[str]
    segments: BySequence | None = None
    eos_token_id: int = -1
    skips: list[Skip] = field(default_factory=list)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TrainingBatch:
        """The batch on a device."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return replace(
            self,
            responses=self.responses.to(device, non_blocking),
            stages=move(self.stages),
            reference=None if self.reference is None else self.reference.to(device, non_blocking),
            segments=None if self.segments is None else self.segments.map(move),
        )

    def pin_memory(self) -> TrainingBatch:
        """The batch in memory that is copied to a GPU while other work goes on; the data loader calls it."""
        return replace(
            self,
            responses=self.responses.pin_memory(),
            stages=self.stages.pin_memory(),
            reference=None if self.reference is None else self.reference.pin_memory(),
            segments=None if self.segments is None else self.segments.map(Tensor.pin_memory),
        )

    def by_sequence(self, values: Tensor) -> BySequence:
        """Values ``[S, ...]`` of all sequences as those of each kind, ``[B, ...]``."""
        return BySequence(**dict(zip(self.sequences, values.chunk(len(self.sequences)), strict=True)))

    def split(self, scores: ResponseScores) -> SequenceLogps:
        """A model's scores of all sequences as those of each kind."""
        sums = self.by_sequence(scores.logps)
        logits = None if scores.logits is None else self.by_sequence(scores.logits)
        tokens = self.by_sequence(scores.token_logps)
        return SequenceLogps(sums.chosen, sums.rejected, sums.image_rejected, tokens, logits)

    def answers(self, mask: Tensor) -> Answers:
        """The answers as objectives see them.

        Args:
            mask: Where a response has a token, bool ``[S, R]``.
        """
        labels = self.by_sequence(self.responses.labels)
        return Answers(self.by_sequence(mask), labels, self.segments, self.eos_token_id)


@dataclass(frozen=True, slots=True)
class PreferenceCollator:
    """Examples to the batches of one step.

    Attributes:
        sequences: The kinds of sequences the objective needs.
        pad_token_id: Token that fills up shorter sequences.
        layout: How the sequences are laid out.
        max_tokens: Tokens of a forward pass; examples that are more become several batches. None sets no
            limit.
        eos_token_id: Token that ends an answer.
        segments: Whether the objective needs the changed segments of the answers.
    """

    sequences: tuple[SequenceKind, ...]
    pad_token_id: int
    layout: Layout = PLAIN
    max_tokens: int | None = None
    eos_token_id: int = -1
    segments: bool = False

    def __call__(self, examples: Sequence[Example]) -> dict[str, Any]:
        """``{"batch": ...}`` of B examples, or of a part of them, with the other parts under ``"more"``."""
        first, *more = (self._batch(part) for part in self._parts(examples))
        return {"batch": first, "more": more} if more else {"batch": first}

    def _parts(self, examples: Sequence[Example]) -> list[list[Example]]:
        """The examples in as few parts within the limit as first-fit decreasing finds."""
        if self.max_tokens is None:
            return [list(examples)]
        parts: list[list[Example]] = []
        used: list[int] = []
        for example in sorted(examples, key=self._tokens, reverse=True):
            tokens = self._tokens(example)
            fits = (number for number, sum_ in enumerate(used) if sum_ + tokens <= self.max_tokens)
            number = next(fits, len(parts))
            if number == len(parts):
                parts.append([])
                used.append(0)
            parts[number].append(example)
            used[number] += tokens
        return parts

    def _tokens(self, example: Example) -> int:
        return row_tokens(example.row, self.sequences, self.layout)

    def _batch(self, examples: Sequence[Example]) -> TrainingBatch:
        rows = [example.row for example in examples]
        responses = collate(rows, self.sequences, self.pad_token_id, self.layout)
        return TrainingBatch(
            responses=responses,
            sequences=self.sequences,
            stages=torch.tensor([float(example.stage) for example in examples]),
            reference=self._reference(examples, responses.labels.shape[1]),
            ids=[row.id for row in rows],
            segments=self._segments(rows, responses.labels.shape[1]) if self.segments else None,
            eos_token_id=self.eos_token_id,
            skips=[skip for example in examples for skip in example.skips],
        )

    def _reference(self, examples: Sequence[Example], length: int) -> SequenceLogps | None:
        """Stored log-probabilities of the examples; those of tokens padded with 0 to ``length``."""
        stored = [example.reference for example in examples if example.reference is not None]
        if not stored:
            return None
        sums: dict[str, Tensor] = {
            name: torch.tensor([row[name] for row in stored]) for name in self.sequences
        }
        details = [example.tokens for example in examples if example.tokens is not None]
        tokens = None
        if details:
            tokens = BySequence(
                **{name: _padded([row[name] for row in details], length) for name in self.sequences}
            )
        return SequenceLogps(sums["chosen"], sums.get("rejected"), sums.get("image_rejected"), tokens)

    def _segments(self, rows: Sequence[EncodedRow], length: int) -> BySequence:
        pairs = [changed_segments(row.chosen.tolist(), row.rejected.tolist()) for row in rows]
        chosen, rejected = (_padded([torch.tensor(pair[side]) for pair in pairs], length) for side in (0, 1))
        return BySequence(chosen, rejected, chosen if "image_rejected" in self.sequences else None)


def _padded(rows: Sequence[Tensor], length: int) -> Tensor:
    """Rows of different lengths, filled up with 0."""
    out = rows[0].new_zeros(len(rows), length)
    for line, row in zip(out, rows, strict=True):
        line[: len(row)] = row
    return out
