"""The layout a model is scored in: the fastest that gives the plain path's numbers on real rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mfpo.errors import RowError, UserError
from mfpo.models.head import changes_logits
from mfpo.models.logprobs import PLAIN, Layout, score_responses
from mfpo.models.packing import set_tree_attention
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.collate import collate
from mfpo.preferences.encoding import EncodedRow, EncodedRows, SequenceKind

CHECKED_ROWS = 2
"""Rows that the layouts are compared on."""
FLOAT32_TOLERANCE = 1e-4
"""Nats by which a token's log-probability may differ in float32."""
NOISE_FACTOR, ROUNDING = 4.0, 1e-2
"""In lower precision the mean difference over tokens may be the first times the plain path's own noise, which
is what other batch mates change, plus the second in nats."""


@dataclass(frozen=True, slots=True)
class LayoutChoice:
    """A layout, and a line for people on why it was chosen."""

    layout: Layout
    reason: str


def choose_layout(
    model: nn.Module,
    rows: EncodedRows,
    sequences: Sequence[SequenceKind],
    autocast: AbstractContextManager[Any],
    setting: str = "auto",
) -> LayoutChoice:
    """Try the layouts on the first rows that can be read, and set the model's attention to the one chosen.

    Args:
        model: The model as it will be scored; parameters are not changed.
        rows: The rows.
        sequences: The sequences that will be scored.
        autocast: Context of the precision that the model computes in; it must be enterable several times.
        setting: ``auto`` falls back to the plain layout where the shared one gives other numbers, ``on``
            refuses to go on there, ``off`` is the plain layout with the model's own logits.

    Raises:
        UserError: ``on``, and the shared layout gives other numbers.
    """
    set_tree_attention(model, False)
    if setting == "off":
        return LayoutChoice(PLAIN, "plain sequences, as set")
    check = _Check(model, _first_rows(rows), sequences, rows.encoder.pad_token_id, autocast)
    chunked = not changes_logits(model)
    problem = check.problem(Layout(shared=True, chunked=chunked))
    if problem is None:
        return LayoutChoice(Layout(True, chunked), "prompts shared by their responses, without padding")
    set_tree_attention(model, False)
    if setting == "on":
        raise UserError(
            f"this model cannot share prompts: {problem}", where="--shared_prefix on", fix="leave it at auto"
        )
    plain = Layout(chunked=chunked and check.problem(Layout(chunked=True)) is None)
    return LayoutChoice(plain, f"plain sequences, because prompts cannot be shared: {problem}")


def _first_rows(rows: EncodedRows) -> list[EncodedRow]:
    found: list[EncodedRow] = []
    for index in range(len(rows)):
        try:
            found.append(rows[index])
        except RowError:
            continue
        if len(found) == CHECKED_ROWS:
            break
    return found


class _Check:
    """Compares layouts with the plain one."""

    def __init__(
        self,
        model: nn.Module,
        rows: Sequence[EncodedRow],
        sequences: Sequence[SequenceKind],
        pad_token_id: int,
        autocast: AbstractContextManager[Any],
    ) -> None:
        self.model, self.rows, self.sequences = model, rows, sequences
        self.pad_token_id, self.autocast = pad_token_id, autocast
        self.images = ImageEncoder(model)
        self.expected = self._score(PLAIN, rows)
        self.allowed = FLOAT32_TOLERANCE
        self.exact = self.expected.dtype == torch.float32 and self._computes_in_float32()
        if not self.exact:
            # The same sums in another order: what padding and batch mates change.
            alone = [self._score(PLAIN, [row]) for row in rows]
            count = len(sequences)
            parts = [alone[i].view(count, -1)[kind] for kind in range(count) for i in range(len(rows))]
            differences = [
                (part - self.expected[number, : len(part)]).abs().sum() for number, part in enumerate(parts)
            ]
            noise = torch.stack(differences).sum() / (self.expected != 0).sum()
            self.allowed = NOISE_FACTOR * noise.item() + ROUNDING

    def problem(self, layout: Layout) -> str | None:
        """Why the layout must not be used, None if it may."""
        if not self.rows:
            return "no row can be read"
        set_tree_attention(self.model, layout.shared)
        try:
            found = self._score(layout, self.rows)
        except (ValueError, TypeError, RuntimeError, KeyError, NotImplementedError) as error:
            return str(error).strip().partition("\n")[0] or type(error).__name__
        difference = (found - self.expected).abs()
        size = difference.max() if self.exact else difference.sum() / (self.expected != 0).sum()
        if size <= self.allowed:
            return None
        return f"log-probabilities differ by {size:.2g} ({self.allowed:.2g} is allowed)"

    @torch.no_grad()
    def _score(self, layout: Layout, rows: Sequence[EncodedRow]) -> Tensor:
        training = self.model.training
        self.model.eval()
        device = next(self.model.parameters()).device
        batch = collate(rows, self.sequences, self.pad_token_id, layout).to(device)
        try:
            with self.autocast:
                return score_responses(self.model, batch, self.images).token_logps
        finally:
            self.model.train(training)

    def _computes_in_float32(self) -> bool:
        if any(p.is_floating_point() and p.dtype != torch.float32 for p in self.model.parameters()):
            return False
        with self.autocast:
            return not torch.is_autocast_enabled(next(self.model.parameters()).device.type)
