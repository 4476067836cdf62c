"""Several rows as one sequence, in which the answers about a picture share its picture and prompt.

A *tree* is one prompt with the responses that follow it: ``[prompt | y_w | y_l]``. Trees stand one after the
other without padding. A response sees its own prompt and itself, and its positions go on where the prompt
ends, so that every token has the hidden state it would have in a plain sequence of prompt and response.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from mfpo.models.vision import unwrap

if TYPE_CHECKING:
    from torch.nn.attention.flex_attention import BlockMask

TREE_ATTENTION = "sdpa_trees"
"""Name under which `transformers` finds the attention over trees; without trees it is plain ``sdpa``."""


RECOMPILE_LIMIT = 64
"""Kernels that FlexAttention may have."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Lengths of a prompt and of the responses behind it, in tokens.

    Attributes:
        prompt: Tokens of the prompt, at least 1.
        responses: Tokens of each response, at least 1.
    """

    prompt: int
    responses: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens of the whole tree."""
        return self.prompt + sum(self.responses)


@dataclass(frozen=True)
class Forest:
    """The trees of one packed sequence of T tokens, and the tensors that follow from them."""

    trees: tuple[Tree, ...]
    _masks: dict[Any, Tensor] = field(default_factory=dict, repr=False, compare=False)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each tree; they add up to T."""
        return [tree.length for tree in self.trees]

    def depths(self) -> Tensor:
        """How many tokens each token has before it in its own plain sequence, int64 ``[T]``."""
        return torch.cat(
            [
                torch.cat(
                    [torch.arange(tree.prompt), *(tree.prompt + torch.arange(n) for n in tree.responses)]
                )
                for tree in self.trees
            ]
        )

    def branches(self) -> tuple[Tensor, Tensor]:
        """Number of each token's tree, and of its response within the tree (0 for the prompt), ``[T]``."""
        trees = torch.arange(len(self.trees)).repeat_interleave(torch.tensor(self.lengths))
        parts = [
            torch.arange(1 + len(tree.responses)).repeat_interleave(
                torch.tensor([tree.prompt, *tree.responses])
            )
            for tree in self.trees
        ]
        return trees, torch.cat(parts)

    def predictors(self) -> Tensor:
        """For every response token in their order, the position whose logits predict it, int64 ``[N]``."""
        positions, start = [], 0
        for tree in self.trees:
            first = start + tree.prompt
            for length in tree.responses:
                before = torch.arange(first - 1, first + length - 1)
                before[0] = start + tree.prompt - 1
                positions.append(before)
                first += length
            start += tree.length
        return torch.cat(positions)

    def tail_mask(self, number: int, device: torch.device, dtype: torch.dtype) -> Tensor:
        """What the responses of a tree see of it: additive mask ``[responses, tree]``, made once."""
        key = (self.trees[number], device, dtype)
        if key not in self._masks:
            tree = self.trees[number]
            visible = torch.zeros(sum(tree.responses), tree.length, dtype=torch.bool, device=device)
            visible[:, : tree.prompt] = True
            row = 0
            for length in tree.responses:
                block = slice(tree.prompt + row, tree.prompt + row + length)
                square = torch.ones(length, length, dtype=torch.bool, device=device)
                visible[row : row + length, block] = square.tril()
                row += length
            mask = torch.zeros(visible.shape, dtype=dtype, device=device)
            self._masks[key] = mask.masked_fill(~visible, torch.finfo(dtype).min)
        return self._masks[key]

    def dense_mask(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        """The whole additive mask ``[1, 1, T, T]``, for kernels that know nothing of trees."""
        trees, branches = (ids.to(device) for ids in self.branches())
        same = (trees[:, None] == trees) & ((branches == 0) | (branches[:, None] == branches))
        mask = torch.zeros(same.shape, dtype=dtype, device=device)
        return mask.masked_fill(~same.tril(), torch.finfo(dtype).min)[None, None]

    def block_mask(self, device: torch.device) -> BlockMask:
        """The mask as FlexAttention takes it, which skips what no token of a block sees."""
        from torch.nn.attention.flex_attention import create_block_mask

        trees, branches = (ids.to(device) for ids in self.branches())

        def visible(_batch: Tensor, _head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            branch = (branches[key] == 0) | (branches[key] == branches[query])
            return (trees[query] == trees[key]) & branch & (key <= query)

        total = len(trees)
        return create_block_mask(visible, None, None, total, total, device=str(device))


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    forest: Forest | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within each tree; the cost of a prompt is that of a causal kernel, paid once.

    Args:
        module: The attention layer.
        query: ``[1, heads, T, head size]``.
        key: ``[1, key heads, T, head size]``.
        value: As ``key``.
        attention_mask: Used when there is no forest.
        forest: The trees; None for an ordinary batch.
        kwargs: What the layer hands to its kernel.

    Returns:
        ``[1, T, heads, head size]`` and no attention weights.

    Raises:
        ValueError: The layer has a sliding window shorter than a sequence.
    """
    if forest is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    window = kwargs.get("sliding_window")
    if window is not None and any(tree.prompt + max(tree.responses) > window for tree in forest.trees):
        raise ValueError(f"the attention of {type(module).__name__} has a window of {window} tokens")
    outputs = []
    parts = (tensor.split(forest.lengths, dim=2) for tensor in (query, key, value))
    for number, (q, k, v) in enumerate(zip(*parts, strict=True)):
        tree = forest.trees[number]
        if len(tree.responses) == 1:
            outputs.append(sdpa_attention_forward(module, q, k, v, None, **kwargs)[0])
            continue
        head, tail = q.split([tree.prompt, sum(tree.responses)], dim=2)
        prompt = slice(tree.prompt)
        outputs.append(
            sdpa_attention_forward(module, head, k[:, :, prompt], v[:, :, prompt], None, **kwargs)[0]
        )
        mask = forest.tail_mask(number, q.device, q.dtype)[None, None]
        outputs.append(sdpa_attention_forward(module, tail, k, v, mask, **kwargs)[0])
    return torch.cat(outputs, dim=1), None


AttentionInterface.register(TREE_ATTENTION, tree_attention)
AttentionMaskInterface.register(TREE_ATTENTION, ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])


def set_tree_attention(model: nn.Module, enabled: bool) -> None:
    """Let the language model's layers attend within trees, or take that back; other kernels stay as they are.

    Generation and ordinary batches are not affected.
    """
    old, new = ("sdpa", TREE_ATTENTION) if enabled else (TREE_ATTENTION, "sdpa")
    for module in unwrap(model).get_decoder().modules():
        config: Any = getattr(module, "config", None)
        if getattr(config, "_attn_implementation", None) == old:
            config._attn_implementation_internal = new


def allow_recompiling(model: nn.Module) -> None:
    """Let FlexAttention have more kernels than torch compiles by default, if the model uses it.

    Kernels with and without gradients, of fixed and of free length, are soon more than eight; past that limit
    attention is computed without a kernel, in memory that grows with the square of T. An override of the
    limit holds in the thread that makes it, and layers that are computed again in the backward pass are run
    by another thread, so it is the default that is raised.
    """
    if unwrap(model).get_decoder().config._attn_implementation != "flex_attention":
        return
    from torch._dynamo import config as compiler

    compiler.recompile_limit = max(compiler.recompile_limit, RECOMPILE_LIMIT)
    default = getattr(compiler, "_config", {}).get("recompile_limit")
    if default is not None:
        default.default = max(default.default, RECOMPILE_LIMIT)


def tree_inputs(model: nn.Module, forest: Forest, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """What tells the model of its trees, as its attention kernel wants it.

    Args:
        model: The model, wrapped or not.
        forest: The trees.
        device: Where the forward pass runs.
        dtype: What attention computes in.

    Raises:
        ValueError: The kernel takes neither trees nor masks.
    """
    kernel = unwrap(model).get_decoder().config._attn_implementation
    if kernel == TREE_ATTENTION:
        # A mask of four dimensions is handed on as it is; the kernel finds its own in the forest.
        return {"attention_mask": torch.zeros(1, 1, 1, 1, device=device), "forest": forest}
    if kernel == "flex_attention":
        return {"attention_mask": forest.block_mask(device)}
    if kernel in ("eager", "sdpa"):
        return {"attention_mask": forest.dense_mask(device, dtype)}
    raise ValueError(f"the attention kernel {kernel} cannot share a prompt; sdpa can")
