"""The layout a model is scored in: the fastest that gives the plain path's numbers on real rows."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from mfpo.errors import RowError, UserError
from mfpo.models.head import changes_logits
from mfpo.models.logprobs import PLAIN, Layout, score_responses
from mfpo.models.mode import evaluating
from mfpo.models.packing import allow_recompiling, set_tree_attention
from mfpo.models.vision import ImageEncoder, unwrap
from mfpo.preferences.collate import collate
from mfpo.preferences.encoding import EncodedRow, EncodedRows, SequenceKind

CHECKED_ROWS = 2
"""Rows that the layouts are compared on."""
TRIED_ROWS = 100
"""Rows among which they are looked for."""
FLOAT32_TOLERANCE = 1e-4
"""Nats by which a token's log-probability may differ in float32."""
NOISE_FACTORS = (1.5, 2.0)
"""In lower precision the mean and the largest difference over tokens may be so many times the plain path's
own noise: what other batch mates change, or one rounding of the decoder's inputs, if that is more. Rounding
errors grow with depth and width, so that no constant in nats fits a small model and a large one. A mistake at
one token of an answer shows in the largest difference only."""
ROUNDING = 2.0**-8
"""Largest relative error of one rounding to bfloat16, half the distance of neighbouring numbers."""


Sizes: TypeAlias = tuple[float, float]
"""Mean and largest difference of log-probabilities over tokens, in nats."""


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
    allow_recompiling(model)
    if setting == "off":
        return LayoutChoice(PLAIN, "plain sequences, as set")
    first = _first_rows(rows)
    if not first:
        # Whoever asked finds that out as well, with the reason of every row.
        return LayoutChoice(PLAIN, "plain sequences, because the first rows cannot be read")
    check = LayoutCheck(model, first, sequences, rows.encoder.pad_token_id, autocast)
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
    for index in range(min(len(rows), TRIED_ROWS)):
        try:
            found.append(rows[index])
        except RowError:
            continue
        if len(found) == CHECKED_ROWS:
            break
    return found


class LayoutCheck:
    """Compares layouts with the plain one.

    Args:
        model: The model.
        rows: Rows that are scored.
        sequences: Their sequences.
        pad_token_id: Fills plain sequences up.
        autocast: Context of the precision that the model computes in.

    Attributes:
        allowed: Mean and largest difference that a layout may have, in nats.
    """

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
        self.allowed: Sizes = (FLOAT32_TOLERANCE, FLOAT32_TOLERANCE)
        self.exact = self.expected.dtype == torch.float32 and self._computes_in_float32()
        if not self.exact:
            mean, largest = map(max, self._company_noise(), self._rounding_noise())
            self.allowed = (NOISE_FACTORS[0] * mean, NOISE_FACTORS[1] * largest)

    def _company_noise(self) -> Sizes:
        """What padding and batch mates change: the same sums in another order."""
        alone = [self._score(PLAIN, [row]) for row in self.rows]
        count = len(self.sequences)
        parts = [alone[i].view(count, -1)[kind] for kind in range(count) for i in range(len(self.rows))]
        found = self.expected.clone()
        for number, part in enumerate(parts):
            found[number, : len(part)] = part
        return self._differences(found)

    def _rounding_noise(self) -> Sizes:
        """What a rounding of the decoder's inputs changes; nothing if it has none."""
        generator = torch.Generator().manual_seed(0)

        def rounded(_module: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            inputs = kwargs.get("inputs_embeds")
            if inputs is not None:
                error = torch.rand(inputs.shape, generator=generator).mul_(2 * ROUNDING).add_(1 - ROUNDING)
                kwargs = {**kwargs, "inputs_embeds": (inputs * error.to(inputs.device)).to(inputs.dtype)}
            return args, kwargs

        hook = unwrap(self.model).get_decoder().register_forward_pre_hook(rounded, with_kwargs=True)
        try:
            return self._differences(self._score(PLAIN, self.rows))
        finally:
            hook.remove()

    def _differences(self, found: Tensor) -> Sizes:
        """Mean and largest difference over tokens, in nats."""
        sizes = (found - self.expected).abs()
        return float(sizes.sum() / (self.expected != 0).sum()), float(sizes.max())

    def differences(self, layout: Layout) -> Sizes:
        """What a layout makes of the log-probabilities; the model's attention is set to it."""
        set_tree_attention(self.model, layout.shared)
        return self._differences(self._score(layout, self.rows))

    def problem(self, layout: Layout) -> str | None:
        """Why the layout must not be used, None if it may."""
        try:
            mean, largest = self.differences(layout)
        except (ValueError, TypeError, RuntimeError, KeyError, NotImplementedError) as error:
            return str(error).strip().partition("\n")[0] or type(error).__name__
        # Not `>`, which NaN is not either.
        if not largest <= self.allowed[1]:
            return f"log-probabilities differ by {largest:.2g} ({self.allowed[1]:.2g} is allowed)"
        if not mean <= self.allowed[0]:
            return f"log-probabilities differ by {mean:.2g} in the mean ({self.allowed[0]:.2g} is allowed)"
        return None

    @torch.no_grad()
    def _score(self, layout: Layout, rows: Sequence[EncodedRow]) -> Tensor:
        device = next(self.model.parameters()).device
        batch = collate(rows, self.sequences, self.pad_token_id, layout).to(device)
        with evaluating(self.model), self.autocast:
            return score_responses(self.model, batch, self.images).token_logps

    def _computes_in_float32(self) -> bool:
        if any(p.is_floating_point() and p.dtype != torch.float32 for p in self.model.parameters()):
            return False
        with self.autocast:
            return not torch.is_autocast_enabled(next(self.model.parameters()).device.type)
