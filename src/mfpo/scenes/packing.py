"""Several short conversations about one picture as one sequence, in which they share the picture's tokens.

The conversations do not see each other and each one's positions go on where the picture ends, so every one of
them has the same hidden states as alone behind its picture. Only the answers' text is learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from mfpo.models.chat import render_prompt
from mfpo.models.load import VLM
from mfpo.records import user_message
from mfpo.scenes.examples import Talk


@dataclass(frozen=True, slots=True)
class Batch:
    """Packed conversations about B pictures, L tokens each with padding on the right.

    Attributes:
        ids: int64 [B, L].
        positions: int64 [B, L].
        visible: bool [B, 1, L, L], whether query i may look at key j.
        labels: int64 [B, L], the token itself where it is to be learned, -100 elsewhere.
    """

    ids: Tensor
    positions: Tensor
    visible: Tensor
    labels: Tensor


class Packer:
    """Packs conversations for one model.

    Args:
        vlm: Model whose tokenizer and chat template are used.
    """

    def __init__(self, vlm: VLM) -> None:
        self._vlm = vlm
        self._tokenizer = vlm.tokenizer
        self._prompt = cache(self._render)
        self._picture = self._tokens(self._split("")[0].replace("<image>", "<image>" * self._image_tokens()))

    def pack(self, rows: Sequence[Sequence[Talk]]) -> Batch:
        """Pack the conversations about each picture."""
        packed = [self._row(talks) for talks in rows]
        width = max(len(ids) for ids, *_ in packed)
        shape = (len(packed), width)
        ids = torch.full(shape, self._tokenizer.pad_token_id)
        labels, branch = torch.full(shape, -100), torch.full(shape, -1)
        positions = torch.zeros(shape, dtype=torch.long)
        for i, columns in enumerate(packed):
            end = len(columns[0])
            for table, values in zip((ids, labels, positions, branch), columns, strict=True):
                table[i, :end] = torch.tensor(values)
        together = (branch[:, :, None] == branch[:, None, :]) | (branch[:, None, :] == 0)
        causal = torch.ones(width, width, dtype=torch.bool).tril()
        return Batch(ids, positions, (together & causal)[:, None], labels)

    def _row(self, talks: Sequence[Talk]) -> tuple[list[int], list[int], list[int], list[int]]:
        """Ids, labels, positions and number of the conversation (0 for the picture)."""
        start = len(self._picture)
        ids, labels = list(self._picture), [-100] * start
        positions, branch = list(range(start)), [0] * start
        for number, (asked, answer) in enumerate(talks, start=1):
            before = len(ids)
            ids += self._prompt(asked)
            labels += [-100] * (len(ids) - before)
            for text, learned in answer:
                tokens = self._tokens(text)
                ids += tokens
                labels += tokens if learned else [-100] * len(tokens)
            ids.append(self._tokenizer.eos_token_id)
            labels.append(self._tokenizer.eos_token_id)
            length = len(ids) - before
            positions += range(start, start + length)
            branch += [number] * length
        return ids, labels, positions, branch

    def _render(self, asked: str) -> list[int]:
        return self._tokens(self._split(asked)[1])

    def _split(self, asked: str) -> tuple[str, str]:
        """The rendered prompt up to the end of the image placeholder's line, and the rest."""
        text = render_prompt(self._vlm.processor, user_message(asked))
        end = text.index("<image>\n") + len("<image>\n")
        return f"{self._tokenizer.bos_token}{text[:end]}", text[end:]

    def _tokens(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _image_tokens(self) -> int:
        return int(self._vlm.model.config.image_seq_length)
