"""The segments in which two answers differ, token by token."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

MIN_MATCH = 3
"""Shared tokens in a row that end a changed segment, as in the code of RLHF-V; fewer are chance."""


def changed_segments(chosen: Sequence[int], rejected: Sequence[int]) -> tuple[list[int], list[int]]:
    """Number of the changed segment that each token belongs to.

    What the two answers begin and end with alike is never changed, however short. A segment may be empty in
    one of them, where words were added or left out.

    Args:
        chosen: Tokens of y_w.
        rejected: Tokens of y_l.

    Returns:
        For each token of y_w and of y_l, 0 if it is shared, else the number of its segment, from 1; equal
        numbers stand in each other's place.
    """
    numbers = [0] * len(chosen), [0] * len(rejected)
    matcher = SequenceMatcher(None, chosen, rejected, autojunk=False)
    shared = [
        block
        for block in matcher.get_matching_blocks()
        if block.size >= MIN_MATCH
        or block.a == block.b == 0
        or (block.a + block.size, block.b + block.size) == (len(chosen), len(rejected))
    ]
    start = (0, 0)
    segment = 0
    for block in shared:
        ends = (block.a, block.b)
        if ends != start:
            segment += 1
            for side, first, end in zip(numbers, start, ends, strict=True):
                side[first:end] = [segment] * (end - first)
        start = (block.a + block.size, block.b + block.size)
    return numbers
