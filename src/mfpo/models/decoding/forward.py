"""Forward passes over a growing sequence, one call at a time, with the cache that `generate` would use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from mfpo.errors import UserError
from mfpo.models.vision import unwrap

if TYPE_CHECKING:
    from torch import nn


class CachedForward:
    """A model together with its cache over a batch of prompts and what follows them.

    Shapes: B sequences, T new tokens, V tokens in the vocabulary, S tokens in the cache after a call.

    Args:
        model: The model, wrapped or not.
        inputs: Output of the processor for left-padded prompts, on the model's device.
    """

    def __init__(self, model: nn.Module, inputs: Mapping[str, Any]) -> None:
        self.model = model
        self._inputs = dict(inputs)
        self._mask_BS: Tensor = self._inputs.pop("attention_mask", torch.ones_like(inputs["input_ids"]))
        self._next_position: Tensor
        self._cache: Any = None

    def prefill(self) -> Tensor:
        """Read the prompts; next-token logits ``[B, V]``, float32."""
        # The base model knows its own way to number tokens: three-dimensional for Qwen, for instance.
        positions = unwrap(self.model)._prepare_position_ids_for_generation(
            self._inputs["input_ids"], {**self._inputs, "attention_mask": self._mask_BS}
        )
        output: Any = self.model(
            **self._inputs,
            attention_mask=self._mask_BS,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache = output.past_key_values
        self._next_position = positions[..., -1:] + 1
        return output.logits[:, -1].float()

    def step(self, tokens_BT: Tensor) -> Tensor:
        """Append tokens; next-token logits ``[B, V]``, float32."""
        return self._append(tokens_BT, output_attentions=False).logits[:, -1].float()

    def step_with_attention(self, tokens_BT: Tensor) -> tuple[Tensor, Tensor]:
        """Append tokens and see what the last layer's heads attend to.

        Returns:
            Next-token logits ``[B, V]``, and attention weights ``[B, heads, T, S]``, both float32.

        Raises:
            UserError: The attention kernel gives no weights; only ``eager`` does.
        """
        output = self._append(tokens_BT, output_attentions=True)
        return output.logits[:, -1].float(), self._weights(output)

    def look_ahead(self, tokens_BC: Tensor) -> Tensor:
        """What each of C tokens that could come next would attend to, all in one pass; none is appended.

        The candidates stand side by side at the next position: a mask lets each see the cache and itself.

        Args:
            tokens_BC: Candidates of each sequence.

        Returns:
            The last layer's attention weights ``[B, heads, C, S + 1]``, float32; the last one is that to the
            candidate itself.

        Raises:
            UserError: The attention kernel gives no weights; only ``eager`` does.
        """
        count, read = tokens_BC.shape[1], self._mask_BS.shape[1]
        seen_BCS = self._mask_BS.bool()[:, None].expand(-1, count, -1)
        own_BCC = torch.eye(count, dtype=torch.bool, device=tokens_BC.device).expand(len(tokens_BC), -1, -1)
        visible_BCS = torch.cat([seen_BCS, own_BCC], dim=2)[:, None]
        dtype = unwrap(self.model).dtype
        mask = torch.zeros(visible_BCS.shape, dtype=dtype, device=tokens_BC.device)
        output: Any = self.model(
            input_ids=tokens_BC,
            attention_mask=mask.masked_fill(~visible_BCS, torch.finfo(dtype).min),
            position_ids=self._next_position.expand(*self._next_position.shape[:-1], count),
            past_key_values=self._cache,
            use_cache=True,
            output_attentions=True,
            logits_to_keep=1,
        )
        self._cache.crop(-count)
        weights_BHCS = self._weights(output)
        own_BHC = weights_BHCS[..., read:].diagonal(dim1=-2, dim2=-1)
        return torch.cat([weights_BHCS[..., :read], own_BHC[..., None]], dim=-1)

    def repeat(self, times: int) -> None:
        """Every sequence ``times`` times, side by side."""
        self._cache.batch_repeat_interleave(times)
        self._mask_BS = self._mask_BS.repeat_interleave(times, dim=0)
        self._next_position = self._next_position.repeat_interleave(times, dim=-2)

    def reorder(self, rows_B: Tensor) -> None:
        """Let sequence b go on from where sequence ``rows_B[b]`` is."""
        self._cache.reorder_cache(rows_B)

    def rewind(self, count: int) -> None:
        """Forget the last ``count`` tokens of every sequence."""
        if count:
            self._cache.crop(-count)
            self._mask_BS = self._mask_BS[:, :-count]
            self._next_position = self._next_position - count

    @property
    def can_rewind(self) -> bool:
        """Whether the cache keeps everything; a sliding window or a recurrent state does not."""
        layers = self._cache.layers
        return all(hasattr(layer, "keys") and not getattr(layer, "is_sliding", False) for layer in layers)

    def _weights(self, output: Any) -> Tensor:
        if not output.attentions or output.attentions[-1] is None:
            raise UserError(
                "the model does not show its attention weights",
                where=type(unwrap(self.model)).__name__,
                fix="its implementation must have the attention kernel `eager`",
            )
        weights: Tensor = output.attentions[-1].float()
        return weights

    def _append(self, tokens_BT: Tensor, *, output_attentions: bool) -> Any:
        count = tokens_BT.shape[1]
        self._mask_BS = torch.cat([self._mask_BS, self._mask_BS.new_ones(tokens_BT.shape)], dim=1)
        positions = self._next_position + torch.arange(count, device=tokens_BT.device)
        self._next_position = self._next_position + count
        output: Any = self.model(
            input_ids=tokens_BT,
            attention_mask=self._mask_BS,
            position_ids=positions,
            past_key_values=self._cache,
            use_cache=True,
            output_attentions=output_attentions,
            logits_to_keep=1,
        )
        self._cache = output.past_key_values
        return output
