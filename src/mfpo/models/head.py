"""Log-probabilities and entropies from hidden states, a few tokens at a time.

The output layer of a language model turns N hidden states into ``[N, V]`` logits, of which a loss on
log-probabilities needs N numbers. Here a chunk of logits is made, reduced and dropped: peak memory depends on
the chunk, not on N x V.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from mfpo.models.vision import unwrap

CHUNK_ELEMENTS = 1 << 23
"""Logits held at once; 32 MiB in float32."""
CUDA_CHUNK_ELEMENTS = 1 << 26
"""The same on a GPU, 256 MiB: fewer would be too few tokens to fill it, 55 of a vocabulary of 152,000."""
LOGIT_SETTINGS = ("final_logit_softcapping", "logit_scale", "logits_scaling", "lm_head_multiplier")
"""Entries of a configuration by which a model changes its logits after the output layer."""


class ChunkedScores(torch.autograd.Function):
    """log softmax(h W^T + b) at one label per row, and the entropy of each row.

    A label's log-probability has the gradient g (W_y - p W) with respect to h, linear in the incoming scalar
    g. With frozen weights it is therefore computed in the forward pass, while the chunk's logits are there;
    with trained weights the logits are computed again.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, entropies: bool
    ) -> tuple[Tensor, Tensor]:
        """Scores of N tokens.

        Args:
            ctx: Autograd's context.
            hidden: ``[N, D]``.
            weight: ``[V, D]``, in the dtype of ``hidden``.
            bias: ``[V]`` or None.
            labels: Token ids, int64 ``[N]``.
            entropies: Whether entropies are wanted; zeros are returned if not.

        Returns:
            Log-probabilities and entropies, float32 ``[N]`` each; entropies carry no gradient.
        """
        trained = ctx.needs_input_grad[1] or ctx.needs_input_grad[2]
        early = ctx.needs_input_grad[0] and not trained
        logps = hidden.new_zeros(len(labels), dtype=torch.float32)
        entropy = torch.zeros_like(logps)
        slopes = torch.empty_like(hidden) if early else None
        for part in _chunks(len(labels), len(weight), hidden.device):
            log_probs = F.linear(hidden[part], weight, bias).float()
            log_probs -= log_probs.logsumexp(-1, keepdim=True)
            logps[part] = log_probs.gather(-1, labels[part, None])[:, 0]
            if entropies:
                entropy[part] = torch.special.entr(log_probs.exp()).sum(-1)
            if slopes is not None:
                slopes[part] = _slope(log_probs, labels[part]).to(weight.dtype) @ weight
        ctx.early, ctx.has_bias = early, bias is not None
        ctx.save_for_backward(*([slopes] if early else [hidden, weight, labels, bias]))
        ctx.mark_non_differentiable(entropy)
        return logps, entropy

    @staticmethod
    def backward(ctx: Any, grad_logps: Tensor, _grad_entropy: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of hidden states, weight and bias."""
        if ctx.early:
            (slopes,) = ctx.saved_tensors
            return (grad_logps[:, None] * slopes).to(slopes.dtype), None, None, None, None
        hidden, weight, labels, bias = ctx.saved_tensors
        need_hidden, need_weight, need_bias = ctx.needs_input_grad[:3]
        grad_hidden = torch.empty_like(hidden) if need_hidden else None
        # Sums over chunks are kept in float32, as one product over all tokens would keep them.
        grad_weight = torch.zeros_like(weight, dtype=torch.float32) if need_weight else None
        grad_bias = torch.zeros_like(bias, dtype=torch.float32) if need_bias else None
        for part in _chunks(len(labels), len(weight), hidden.device):
            log_probs = F.linear(hidden[part], weight, bias).float()
            log_probs -= log_probs.logsumexp(-1, keepdim=True)
            slope = _slope(log_probs, labels[part]).mul_(grad_logps[part, None])
            if grad_bias is not None:
                grad_bias += slope.sum(0)
            slope = slope.to(weight.dtype)
            if grad_hidden is not None:
                torch.mm(slope, weight, out=grad_hidden[part])
            if grad_weight is not None and weight.dtype == torch.float32:
                grad_weight.addmm_(slope.T, hidden[part])
            elif grad_weight is not None:
                grad_weight += slope.T @ hidden[part]
        return (
            grad_hidden,
            None if grad_weight is None else grad_weight.to(weight.dtype),
            None if grad_bias is None else grad_bias.to(weight.dtype),
            None,
            None,
        )


def _chunks(tokens: int, vocabulary: int, device: torch.device) -> Iterator[slice]:
    elements = CUDA_CHUNK_ELEMENTS if device.type == "cuda" else CHUNK_ELEMENTS
    size = max(1, elements // vocabulary)
    return (slice(start, min(start + size, tokens)) for start in range(0, tokens, size))


def _slope(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Gradient of the labels' log-probabilities with respect to the logits, onehot(y) - p, in place."""
    slope = log_probs.exp_().neg_()
    slope[torch.arange(len(labels), device=labels.device), labels] += 1
    return slope


def chunked_scores(
    head: nn.Module, forward: Any, hidden: Tensor, labels: Tensor, *, entropies: bool
) -> tuple[Tensor, Tensor]:
    """Log-probabilities and entropies of N tokens under an output layer, exact, with gradients.

    Args:
        head: The output layer.
        forward: Its forward function, which turns hidden states into logits.
        hidden: Hidden states, ``[N, D]``.
        labels: Token ids, int64 ``[N]``.
        entropies: Whether entropies are wanted; zeros are returned if not.

    Returns:
        Float32 ``[N]`` each; entropies carry no gradient.
    """
    plain = isinstance(head, nn.Linear) and type(head).forward is nn.Linear.forward
    if plain:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
        weight = head.weight.to(dtype)
        bias = None if head.bias is None else head.bias.to(dtype)
        with torch.autocast(device, enabled=False):
            return ChunkedScores.apply(hidden.to(dtype), weight, bias, labels, entropies)
    # An adapter, a quantised layer or a layer of another kind keeps its own forward function.
    parts = [
        checkpoint(_layer_scores, forward, hidden[part], labels[part], entropies, use_reentrant=False)
        for part in _chunks(len(labels), _vocabulary(head), hidden.device)
    ]
    logps, entropy = zip(*parts, strict=True)
    return torch.cat(logps), torch.cat(entropy)


def _vocabulary(head: nn.Module) -> int:
    return max(parameter.shape[0] for parameter in head.parameters() if parameter.ndim == 2)


def _layer_scores(forward: Any, hidden: Tensor, labels: Tensor, entropies: bool) -> tuple[Tensor, Tensor]:
    log_probs = forward(hidden).float().log_softmax(-1)
    logps = log_probs.gather(-1, labels[:, None])[:, 0]
    with torch.no_grad():
        entropy = torch.special.entr(log_probs.exp()).sum(-1) if entropies else torch.zeros_like(logps)
    return logps, entropy


def changes_logits(model: nn.Module) -> bool:
    """Whether the model does something to its logits after the output layer, which chunks would leave out."""
    config = unwrap(model).config
    configs = (config, config.get_text_config())
    return any(getattr(c, name, None) not in (None, 1.0) for c in configs for name in LOGIT_SETTINGS)


@contextmanager
def scores_for_logits(model: nn.Module, labels: Tensor, rows: Tensor, *, entropies: bool) -> Iterator[None]:
    """Within the context the model's ``logits`` are log-probabilities and entropies, ``[1, N, 2]``.

    The output layer is still called from inside the model's forward pass, so that wrappers which gather
    sharded parameters or watch gradients do so for it as well.

    Args:
        model: The model, wrapped or not.
        labels: The tokens to score, int64 ``[N]``.
        rows: Of the flattened hidden states that reach the output layer, the one that predicts each token;
            int64 ``[N]``.
        entropies: Whether entropies are wanted.
    """
    head: Any = unwrap(model).get_output_embeddings()
    forward, given = head.forward, vars(head).get("forward")

    def score(hidden: Tensor) -> Tensor:
        flat = hidden.flatten(0, -2)[rows]
        return torch.stack(chunked_scores(head, forward, flat, labels, entropies=entropies), dim=-1)[None]

    head.forward = score
    try:
        yield
    finally:
        del head.forward
        if given is not None:
            head.forward = given
