"""OPERA, beam search that distrusts summary tokens (Huang et al., 2024).

"Alleviating Hallucination in Multi-Modal Large Language Models via Over-Trust Penalty and
Retrospection-Allocation". A token that all later ones attend to strongly shows as a column in the attention
map among the answer's tokens. The last layer's weights omega (largest head, each row normalised) give every
column j a score over the rows since,

    phi_j = 1e-7 * prod_{i >= j} sigma * omega_ij,

and each beam's likeliest candidates are penalised by the largest of them, ``logit - alpha * max_j phi_j``
(the over-trust penalty). When the largest column stays the same for more than ``threshold`` steps in all
beams, the search returns to just after that token and excludes what it chose there
(retrospection-allocation).

Where paper and code differ, this follows the code (shikiw/OPERA): the factor 1e-7, column scores kept in
half precision, the first ten tokens rewarded by their attention to the image instead, no return before the
tenth token, and at most ``num_attn_candidates`` returns to a place. Deviations, which matter to no ordinary
answer: products are summed as logarithms and cut off at half precision's largest number instead of becoming
infinite; excluded choices are ruled out altogether; what was excluded after the place of a return is
forgotten; hypotheses are compared by log-probability per *generated* token, as `transformers` does today.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mfpo.errors import UserError
from mfpo.models.decoding.beams import Beams, best_answer, first_beams, grow
from mfpo.models.decoding.forward import CachedForward
from mfpo.models.generation import PromptBatch, image_tokens
from mfpo.models.vision import unwrap

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from mfpo.models.load import VLM

FIRST_TOKENS = 10
"""Tokens that are rewarded by their attention to the image, and before which the search never returns."""

_LOG_FACTOR = math.log(1e-7)
_LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True, slots=True)
class OperaDecoding:
    """A decoder by OPERA; takes one prompt at a time and two forward passes a step.

    The published code reads every candidate in a pass of its own, ``num_attn_candidates + 1`` a step.

    Attributes:
        num_beams: Beams K.
        scale_factor: sigma, applied to the attention weights.
        threshold: Steps that the largest column may stay the same.
        num_attn_candidates: Likeliest tokens C of each beam that are considered; at least 2.
        penalty_weights: alpha, strength of the penalty.
    """

    num_beams: int = 5
    scale_factor: float = 50.0
    threshold: int = 15
    num_attn_candidates: int = 5
    penalty_weights: float = 1.0

    def __call__(self, vlm: VLM, batch: PromptBatch) -> Tensor:
        """Tokens ``[1, T]`` after the prompt.

        Raises:
            UserError: The model gives no attention weights, or its cache cannot go back.
        """
        if len(batch.ids) != 1 or batch.sampler is not None:
            raise ValueError("OPERA takes one prompt at a time, and does not sample")
        with _eager_attention(vlm):
            return _Search(self, vlm, batch).run()


@dataclass(slots=True)
class _Step:
    """What is known at one length of the answer, so that the search can come back to it.

    Attributes:
        beams: Beams and finished hypotheses.
        columns: Logarithm of each column's product over the rows so far, ``[K, T]``.
        locations: Each beam's largest column, the most common one among its candidates, ``[K]``.
        chosen: Positions in ``[K * V]`` of what was chosen here, ``[K]``.
        excluded: Positions that returns to this place have excluded.
    """

    beams: Beams
    columns: Tensor
    locations: Tensor
    chosen: Tensor
    excluded: list[Tensor] = field(default_factory=list)


def _new_step(beams: Beams, columns_KT: Tensor) -> _Step:
    nothing = torch.empty(0, dtype=torch.long)
    return _Step(beams, columns_KT, locations=nothing, chosen=nothing)


class _Search:
    def __init__(self, settings: OperaDecoding, vlm: VLM, batch: PromptBatch) -> None:
        self.settings, self.config = settings, batch.config
        self.forward = CachedForward(vlm.model, batch.inputs)
        self.image_S = torch.isin(
            batch.inputs["input_ids"][0], torch.tensor(image_tokens(vlm)).to(vlm.device)
        )
        self.ends = torch.tensor(self.config.eos_token_id, device=vlm.device)
        self.banned = torch.tensor(self.config.suppress_tokens or [], device=vlm.device, dtype=torch.long)
        self.steps: list[_Step] = []
        self.returns: dict[int, int] = {}

    def run(self) -> Tensor:
        """The best answer ``[1, T]``, its end token left out."""
        beams_count = self.settings.num_beams
        logits_1V = self.forward.prefill()
        if not self.forward.can_rewind:
            raise UserError(
                "OPERA must go back in the model's cache, and this one does not keep everything",
                where="--decoding opera",
                fix="use a model without sliding windows or recurrent layers, or another decoding",
            )
        self.forward.repeat(beams_count)
        logits_KV = logits_1V.expand(beams_count, -1)
        columns_KT = logits_KV.new_zeros(beams_count, 0)
        self.steps.append(_new_step(first_beams(beams_count, logits_KV.device), columns_KT))
        while True:
            step = self._choose(self._allowed(logits_KV))
            if step.beams.done or step.beams.length >= self.config.max_new_tokens:
                return best_answer(step.beams)[None]
            self.steps.append(step)
            logits_KV = self._read_chosen(step)

    def _choose(self, logits_KV: Tensor) -> _Step:
        """Penalise candidates, return if it is time to, and grow the beams by a token."""
        scores_KC, tokens_KC = logits_KV.topk(self.settings.num_attn_candidates, dim=-1)
        penalties_KC = self._penalties(tokens_KC)
        place = self._place_of_return()
        if place is None:
            penalised_KC = scores_KC - self.settings.penalty_weights * penalties_KC
            logits_KV = torch.full_like(logits_KV, -torch.inf).scatter(-1, tokens_KC, penalised_KC)
        else:
            logits_KV = self._return_to(place)
        beams, parents_K, chosen_K = grow(self.steps[-1].beams, logits_KV, self.ends)
        self.steps[-1].chosen = chosen_K
        self.forward.reorder(parents_K)
        return _new_step(beams, self.steps[-1].columns[parents_K])

    def _penalties(self, tokens_KC: Tensor) -> Tensor:
        """Penalty of every candidate ``[K, C]``; the beams' largest columns are noted in the step."""
        step = self.steps[-1]
        row_KCS = _largest_head(self.forward.look_ahead(tokens_KC))
        found = [largest_column(self._with_row(step.columns, row_KS)) for row_KS in row_KCS.unbind(1)]
        penalty_KC, location_KC = (torch.stack(values, dim=1) for values in zip(*found, strict=True))
        step.locations = location_KC.cpu().mode(dim=1).values
        if step.beams.length < FIRST_TOKENS:
            return -row_KCS[..., : len(self.image_S)][..., self.image_S].sum(-1)
        return penalty_KC

    def _with_row(self, columns_KT: Tensor, row_KS: Tensor) -> Tensor:
        """Columns ``[K, T + 1]`` with the row of one more token."""
        length = columns_KT.shape[1]
        logs_KT = (self.settings.scale_factor * row_KS[:, -(length + 1) :]).log()
        return torch.cat([columns_KT + logs_KT[:, :length], logs_KT[:, length:]], dim=1)

    def _place_of_return(self) -> int | None:
        """Length of the answer to return to, or None."""
        history_TK = torch.stack([step.locations for step in self.steps])
        location = int(history_TK[-1].mode().values)
        if location < FIRST_TOKENS or not ((history_TK == location).sum(0) > self.settings.threshold).all():
            return None
        for place in (location + 1, location):
            if self.returns.get(place, 0) < self.settings.num_attn_candidates and place < len(self.steps) - 1:
                self.returns[place] = self.returns.get(place, 0) + 1
                return place
        return None

    def _return_to(self, place: int) -> Tensor:
        """Go back to a length; the logits there, without what has been chosen there."""
        read = self.steps[-1].beams.length
        del self.steps[place + 1 :]
        step = self.steps[-1]
        step.excluded.append(step.chosen)
        # Up to the prompt all beams are the same, whatever they have become since.
        self.forward.rewind(read)
        logits_KV = self._allowed(self.forward.step(step.beams.tokens))
        excluded = torch.cat(step.excluded)
        return logits_KV.flatten().index_fill(0, excluded, -torch.inf).view_as(logits_KV)

    def _read_chosen(self, step: _Step) -> Tensor:
        """Next-token logits after the chosen tokens, whose rows are added to the columns."""
        logits_KV, weights_KHTS = self.forward.step_with_attention(step.beams.tokens[:, -1:])
        step.columns = self._with_row(step.columns, _largest_head(weights_KHTS)[:, 0])
        return logits_KV

    def _allowed(self, logits_KV: Tensor) -> Tensor:
        return logits_KV.index_fill(-1, self.banned, -torch.inf)


def largest_column(columns_KT: Tensor) -> tuple[Tensor, Tensor]:
    """The over-trust score: the largest column's score and its location, of every beam.

    Args:
        columns_KT: Logarithm of each column's product of scaled attention weights, ``[K, T]``.

    Returns:
        Scores ``[K]`` as float32, rounded to half precision so that small ones are 0, and locations ``[K]``,
        the first where several are equal.
    """
    scores_KT = (columns_KT + _LOG_FACTOR).exp().clamp(max=_LARGEST).half().float()
    location_K = scores_KT.argmax(dim=-1)
    return scores_KT.gather(-1, location_K[:, None])[:, 0], location_K


def _largest_head(weights_KHTS: Tensor) -> Tensor:
    """Attention ``[K, T, S]`` of the head that attends most, each row normalised."""
    largest_KTS = weights_KHTS.amax(dim=1)
    return largest_KTS / largest_KTS.sum(dim=-1, keepdim=True)


@contextmanager
def _eager_attention(vlm: VLM) -> Iterator[None]:
    """Attention that shows its weights, in the language model only, for as long as it is needed."""
    model: PreTrainedModel = unwrap(vlm.model)
    decoder = model.get_decoder()
    before = decoder.config._attn_implementation
    try:
        decoder.set_attn_implementation("eager")
        yield
    finally:
        decoder.set_attn_implementation(before)
