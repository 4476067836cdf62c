"""How many tokens each row takes, told without decoding its pictures where the processor can tell."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from accelerate import PartialState
from accelerate.utils import gather_object

from mfpo.data.images import image_size
from mfpo.errors import RowError
from mfpo.models.chat import render_prompt
from mfpo.preferences.encoding import EncodedRows, RowEncoder, light_rows
from mfpo.records import PreferencePair

PROBED_SIZES = ((336, 336), (64, 900), (1200, 500), (33, 47))
"""Picture sizes (height, width) by which a processor shows whether all pictures take equally many tokens."""
COMPARED_ROWS = 8
SAMPLED_ROWS = 256


@dataclass(frozen=True, slots=True)
class RowLength:
    """Tokens of a row, nothing cut.

    Attributes:
        row: Index of the row.
        prompt: Tokens of image and prompt.
        image: How many of them stand for images.
        chosen: Tokens of y_w.
        rejected: Tokens of y_l.
        ends: Whether both answers end with the end-of-sequence token.
    """

    row: int
    prompt: int
    image: int
    chosen: int
    rejected: int
    ends: bool

    @property
    def longest(self) -> int:
        """Tokens of the longer of the two sequences."""
        return self.prompt + max(self.chosen, self.rejected)


@dataclass(frozen=True, slots=True)
class Lengths:
    """The lengths of a dataset's rows.

    Attributes:
        rows: One entry a row that could be measured, in the order of the rows.
        errors: What was wrong with the others.
        complete: Whether every row was looked at, not a sample.
        how: How they were measured, for people.
    """

    rows: list[RowLength]
    errors: list[RowError]
    complete: bool
    how: str


def measure_rows(rows: EncodedRows) -> Lengths:
    """Measure all rows if the processor can tell how many tokens a picture takes, else a sample of them.

    The processor is not believed: what it says is compared with rows that are really encoded. Processes share
    the rows.

    Args:
        rows: The rows.
    """
    encoder = rows.encoder
    compared = spread_rows(len(rows), COMPARED_ROWS)
    constant = _constant_tokens(encoder)
    if _can_count(encoder) and _agrees(rows, compared, constant):
        pairs: Iterable[PreferencePair] = rows.rows
        if constant is not None:
            pairs = light_rows(rows.rows)
        found, errors = _count(encoder, pairs, constant)
        source = "their text" if constant is not None else "their text and the sizes of their pictures"
        return Lengths(found, errors, True, f"all {len(rows)} rows, by {source}")
    sample = spread_rows(len(rows), SAMPLED_ROWS)
    found, errors = [], []
    for row in sample:
        try:
            found.append(_encoded_length(rows, row))
        except RowError as error:
            errors.append(error)
    how = f"{len(sample)} of {len(rows)} rows, encoded; the processor cannot tell the tokens of a picture"
    return Lengths(found, errors, len(sample) == len(rows), how)


def _count(
    encoder: RowEncoder, pairs: Iterable[PreferencePair], constant: int | None
) -> tuple[list[RowLength], list[RowError]]:
    state = PartialState()
    mine: list[RowLength] = []
    errors: list[RowError] = []
    for row, pair in enumerate(pairs):
        if row % state.num_processes == state.process_index:
            try:
                mine.append(_text_length(encoder, row, pair, constant))
            except RowError as error:
                errors.append(error)
    return sorted(gather_object(mine), key=lambda length: length.row), gather_object(errors)


def _text_length(encoder: RowEncoder, row: int, pair: PreferencePair, constant: int | None) -> RowLength:
    """Length of a row by its text, and the sizes of its pictures if they matter."""
    text = render_prompt(encoder.processor, pair.prompt)
    ids = encoder.tokens(text)
    placeholders = ids.count(encoder.image_token_id)
    if constant is not None:
        image = constant * placeholders
    else:
        image = sum(_image_tokens(encoder, [image_size(source) for source in pair.images]))
    chosen, rejected = (
        encoder.response(text, pair.prompt, answer).tolist() for answer in (pair.chosen, pair.rejected)
    )
    eos = encoder.processor.tokenizer.eos_token_id
    return RowLength(
        row,
        prompt=len(ids) - placeholders + image,
        image=image,
        chosen=len(chosen),
        rejected=len(rejected),
        ends=chosen[-1:] == [eos] and rejected[-1:] == [eos],
    )


def _encoded_length(rows: EncodedRows, row: int) -> RowLength:
    """Length of a row by encoding it whole, its rejected image left out."""
    plain = RowEncoder(rows.encoder.processor, rejected_image=False)
    encoded = plain.encode(rows.rows[row])
    eos = plain.processor.tokenizer.eos_token_id
    return RowLength(
        row,
        prompt=len(encoded.prompt["input_ids"]),
        image=int((encoded.prompt["input_ids"] == plain.image_token_id).sum()),
        chosen=len(encoded.chosen),
        rejected=len(encoded.rejected),
        ends=encoded.chosen[-1] == eos and encoded.rejected[-1] == eos,
    )


def _agrees(rows: EncodedRows, compared: Sequence[int], constant: int | None) -> bool:
    """Whether counting gives what encoding gives."""
    for row in compared:
        try:
            encoded = _encoded_length(rows, row)
        except RowError:
            continue
        try:
            counted = _text_length(rows.encoder, row, rows.rows[row], constant)
        except RowError:
            return False
        if (counted.prompt, counted.chosen, counted.rejected) != (
            encoded.prompt,
            encoded.chosen,
            encoded.rejected,
        ):
            return False
    return True


def _can_count(encoder: RowEncoder) -> bool:
    return hasattr(encoder.processor, "_get_num_multimodal_tokens")


def _constant_tokens(encoder: RowEncoder) -> int | None:
    """Tokens of any picture, None if that depends on its size."""
    if not _can_count(encoder):
        return None
    counts = {_image_tokens(encoder, [size])[0] for size in PROBED_SIZES}
    return counts.pop() if len(counts) == 1 else None


def _image_tokens(encoder: RowEncoder, sizes: Sequence[tuple[int, int]]) -> list[int]:
    """Tokens of pictures of these sizes (height, width), as inference servers ask for them."""
    processor: Any = encoder.processor
    counted = processor._get_num_multimodal_tokens(image_sizes=[list(size) for size in sizes])
    return list(counted["num_image_tokens"])


def spread_rows(total: int, count: int) -> list[int]:
    """Indices of rows spread evenly over all."""
    return [int(row) for row in np.unique(np.linspace(0, total - 1, min(count, total)).astype(int))]
