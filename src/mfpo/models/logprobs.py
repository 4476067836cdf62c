"""Log-probabilities and entropies of given responses, with logits computed at response positions only."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mfpo.models.head import scores_for_logits
from mfpo.models.packing import Forest, tree_inputs
from mfpo.models.vision import ImageEncoder, ImageInputs, unwrap

IGNORE = -100
"""Label of a position that holds no response token."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How sequences are laid out for a forward pass; every choice gives the same numbers.

    Attributes:
        shared: Prompts are encoded once for all their responses, in one sequence without padding; False gives
            every response a sequence of its own.
        chunked: Log-probabilities are computed from hidden states in chunks; False takes the model's logits.
    """

    shared: bool = False
    chunked: bool = False


PLAIN = Layout()
"""One sequence for each response, and the model's own logits."""


@dataclass(slots=True)
class ResponseBatch:
    """S responses with their prompts, laid out for a forward pass in one of two ways.

    Plain: S sequences that all start their responses at the same column P. Prompts are padded on the left to
    P columns, responses on the right to R: a row's response tokens are at ``[P, P + its length)``, and the
    logits that predict them at ``[P - 1, P + R - 1)`` for every row.

    Shared: one sequence of T tokens without padding, which holds a prompt once for the responses that follow
    it (see [`Forest`]).

    Attributes:
        inputs: Text inputs of the forward pass, each int64 ``[S, P + R]`` or ``[1, T]``: ``input_ids``,
            ``attention_mask`` (plain only) and what else the processor makes (``position_ids``,
            ``mm_token_type_ids``).
        labels: Response tokens, int64 ``[S, R]``; ``IGNORE`` where there is none.
        slots: Where in the flattened labels each of the N response tokens stands, int64 ``[N]``.
        images: The distinct image inputs.
        image_of: For every sequence, or every tree of the forest, the index of its entry in ``images``.
        padding: Share of the positions that hold no token, 0 to 1.
        chunked: See [`Layout`].
        forest: The trees of the shared layout, None in the plain one.
        predictors: Of the shared layout, the position whose logits predict each response token, int64
            ``[N]``.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    slots: Tensor
    images: list[ImageInputs]
    image_of: list[int]
    padding: float = 0.0
    chunked: bool = False
    forest: Forest | None = None
    predictors: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> ResponseBatch:
        """The batch with its text on a device; pictures follow when they are encoded."""
        return self._with_text(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> ResponseBatch:
        """The batch in memory that is copied to a GPU while other work goes on, its pictures too."""
        return replace(
            self._with_text(Tensor.pin_memory), images=[image.pin_memory() for image in self.images]
        )

    def _with_text(self, function: Callable[[Tensor], Tensor]) -> ResponseBatch:
        return replace(
            self,
            inputs={key: function(tensor) for key, tensor in self.inputs.items()},
            labels=function(self.labels),
            slots=function(self.slots),
            predictors=None if self.predictors is None else function(self.predictors),
        )

    @property
    def tokens(self) -> int:
        """Token positions that the forward pass computes, padding included."""
        return self.inputs["input_ids"].numel()

    def sequence(self, number: int) -> tuple[list[int], ImageInputs]:
        """The tokens of prompt and response of one of the S responses, and its pictures."""
        answer = self.labels[number][self.labels[number] != IGNORE].tolist()
        ids = self.inputs["input_ids"]
        if self.forest is None:
            mask = self.inputs["attention_mask"][number].bool()
            return ids[number][mask].tolist(), self.images[self.image_of[number]]
        # The first token of the response, and the tree it stands in.
        token = int((self.slots == number * self.labels.shape[1]).nonzero()[0])
        firsts = torch.tensor([sum(tree.responses) for tree in self.forest.trees]).cumsum(0)
        tree = int((firsts <= token).sum())
        start = sum(self.forest.lengths[:tree])
        prompt = ids[0, start : start + self.forest.trees[tree].prompt].tolist()
        return prompt + answer, self.images[self.image_of[tree]]


@dataclass(slots=True)
class ResponseScores:
    """What a model thinks of each response.

    Attributes:
        token_logps: Log-probability of each response token, float32 ``[S, R]``, 0 where ``mask`` is False.
        mask: Where a response has a token, bool ``[S, R]``.
        entropies: Entropy in nats of the whole predicted distribution at each response token, float32 ``[S,
            R]``, 0 where ``mask`` is False; None when not asked for.
        logits: Logits that predict each response token, ``[S, R, V]`` in the model's precision; None when not
            asked for.
    """

    token_logps: Tensor
    mask: Tensor
    entropies: Tensor | None = None
    logits: Tensor | None = None

    @property
    def logps(self) -> Tensor:
        """Sum log pi(y | x) of each response: the sum over its tokens, float32 ``[S]``."""
        return self.token_logps.sum(-1)

    def first(self, count: int) -> ResponseScores:
        """The scores of the first ``count`` responses."""
        entropies = None if self.entropies is None else self.entropies[:count]
        logits = None if self.logits is None else self.logits[:count]
        return ResponseScores(self.token_logps[:count], self.mask[:count], entropies, logits)


def score_responses(
    model: nn.Module,
    batch: ResponseBatch,
    images: ImageEncoder,
    *,
    entropies: bool = False,
    logits: bool = False,
) -> ResponseScores:
    """Score the responses of a batch.

    Args:
        model: The model, possibly in a PEFT or distributed wrapper.
        batch: Prompts and responses, on the model's device.
        images: Encoder of the same model's pictures.
        entropies: Whether the entropies are wanted too.
        logits: Whether the logits are wanted too, which take as much memory as the vocabulary is large.

    Returns:
        Scores that carry gradients if the model's parameters do and gradients are enabled.
    """
    inputs = {**batch.inputs, **images(batch.images, batch.image_of), "use_cache": False}
    mask, slots = batch.labels != IGNORE, batch.slots
    keeps = "logits_to_keep" in inspect.signature(unwrap(model).forward).parameters
    keep, rows = _predicting(batch, keeps)
    if keeps:
        inputs["logits_to_keep"] = keep
    if batch.forest is not None:
        inputs |= _tree_inputs(model, batch)
    labels = batch.labels.flatten()[slots]
    if batch.chunked and not logits:
        with scores_for_logits(model, labels, rows, entropies=entropies):
            logps, entropy = model(**inputs).logits[0].unbind(-1)
    else:
        logits_NV = model(**inputs).logits.flatten(0, 1)[rows]
        flat = scores_from_logits(logits_NV[None], labels[None], entropies=entropies)
        logps, entropy = flat.token_logps[0], None if flat.entropies is None else flat.entropies[0]
        whole = logits_NV
    empty = logps.new_zeros(mask.numel())
    scores = ResponseScores(empty.index_copy(0, slots, logps).view_as(mask), mask)
    if entropies and entropy is not None:
        scores.entropies = empty.index_copy(0, slots, entropy.detach()).view_as(mask)
    if logits:
        blank = whole.new_zeros(mask.numel(), whole.shape[-1])
        scores.logits = blank.index_copy(0, slots, whole).view(*mask.shape, -1)
    return scores


def _predicting(batch: ResponseBatch, keeps: bool) -> tuple[int | Tensor, Tensor]:
    """``logits_to_keep``, and which of the flattened logits predict each response token.

    Args:
        batch: The batch.
        keeps: Whether the model takes ``logits_to_keep``; it computes logits at all positions if not.
    """
    slots, predictors = batch.slots, batch.predictors
    if predictors is not None:
        return predictors, torch.arange(len(slots), device=slots.device) if keeps else predictors
    R = batch.labels.shape[1]
    width = R + 1 if keeps else batch.inputs["input_ids"].shape[1]
    # The last logits predict what would follow.
    return R + 1, slots // R * width + slots % R + (width - R - 1)


def _tree_inputs(model: nn.Module, batch: ResponseBatch) -> dict[str, Any]:
    """Mask and positions of the shared layout."""
    forest, base = batch.forest, unwrap(model)
    assert forest is not None
    ids = batch.inputs["input_ids"]
    dtype = base.get_input_embeddings().weight.dtype
    if torch.is_autocast_enabled(ids.device.type):
        dtype = torch.get_autocast_dtype(ids.device.type)
    inputs = tree_inputs(model, forest, ids.device, dtype)
    grids = [batch.images[index].tensors.get("image_grid_thw") for index in batch.image_of]
    if grids[0] is None or not hasattr(base.base_model, "get_rope_index"):
        return inputs
    # Pictures have positions in two dimensions; what follows counts on from the largest.
    starts = torch.tensor([0, *forest.lengths[:-1]]).cumsum(0).tolist()
    positions = []
    for tree, start, grid in zip(forest.trees, starts, grids, strict=True):
        span = slice(start, start + tree.prompt)
        prompt, _ = base.base_model.get_rope_index(
            ids[:, span], batch.inputs["mm_token_type_ids"][:, span], image_grid_thw=grid
        )
        following = prompt.max() + 1
        answers = [torch.arange(n, device=ids.device) + following for n in tree.responses]
        positions += [prompt.to(ids.device), torch.cat(answers).expand(3, 1, -1)]
    return {**inputs, "position_ids": torch.cat(positions, dim=-1)}


def scores_from_logits(logits_SRV: Tensor, labels_SR: Tensor, *, entropies: bool = False) -> ResponseScores:
    """Log-probabilities of the labels, and entropies, computed in float32 from whole logits.

    Args:
        logits_SRV: Logits that predict each label, ``[S, R, V]``, any floating dtype.
        labels_SR: Token ids, ``IGNORE`` where there is none.
        entropies: Whether the entropies are wanted too; they carry no gradient.
    """
    mask = labels_SR != IGNORE
    nll = F.cross_entropy(
        logits_SRV.flatten(0, 1).float(), labels_SR.flatten(), ignore_index=IGNORE, reduction="none"
    )
    scores = ResponseScores(token_logps=-nll.view_as(mask), mask=mask)
    if entropies:
        with torch.no_grad():
            # A few tokens at a time: the distribution over the vocabulary is the largest tensor of the pass.
            parts = [
                torch.special.entr(part.float().softmax(-1)).sum(-1)
                for part in logits_SRV.flatten(0, 1).split(128)
            ]
            scores.entropies = torch.cat(parts).view_as(mask).masked_fill(~mask, 0.0)
    return scores
