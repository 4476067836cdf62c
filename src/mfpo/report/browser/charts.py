"""Bar charts as the statistics page shows them; the template draws them as SVG."""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mfpo.report.browser.words import percent

LONGEST_LABEL = 28


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar.

    Attributes:
        label: What it counts.
        length: Its length, as a share of the longest bar of the chart, in [0, 1].
        solid: Which part of it is solid; the rest is pale. In [0, 1].
        text: The number beside it.
    """

    label: str
    length: float
    solid: float
    text: str

    @property
    def short_label(self) -> str:
        """The label with its middle left out where it is long."""
        label = " ".join(self.label.split())
        if len(label) <= LONGEST_LABEL:
            return label
        return f"{label[: LONGEST_LABEL - 8]}…{label[-7:]}"


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart with its title.

    Attributes:
        title: What is counted.
        note: What the numbers mean, in a sentence.
        bars: The bars, in order.
    """

    title: str
    note: str
    bars: tuple[Bar, ...]


def counted(title: str, note: str, counts: Iterable[tuple[str, int]], total: int | None = None) -> Chart:
    """A chart of counts, each with its share of all.

    Args:
        title: What is counted.
        note: A sentence.
        counts: Label and count, in order.
        total: What the shares are of; the sum of the counts when None.
    """
    counts = list(counts)
    longest = max((count for _, count in counts), default=0) or 1
    whole = sum(count for _, count in counts) if total is None else total
    bars = (
        Bar(label, count / longest, 1.0, f"{count:,} ({percent(count / whole)})" if count else "0")
        for label, count in counts
    )
    return Chart(title, note, tuple(bars))


def rates(title: str, note: str, parts: Iterable[tuple[str, int, int]]) -> Chart:
    """A chart of parts of counts: bars as long as the count, solid as far as the part goes.

    Args:
        title: What is counted.
        note: A sentence.
        parts: Label, part and whole, in order.
    """
    parts = list(parts)
    longest = max((whole for *_, whole in parts), default=0) or 1
    bars = (
        Bar(label, whole / longest, part / whole, f"{part:,} of {whole:,} ({percent(part / whole)})")
        for label, part, whole in parts
        if whole
    )
    return Chart(title, note, tuple(bars))


class Histogram:
    """Counts of numbers between edges.

    Args:
        edges: Inner edges, ascending; a number equal to an edge counts above it.
        labels: One more than edges.
    """

    def __init__(self, edges: Sequence[float], labels: Sequence[str]) -> None:
        assert len(labels) == len(edges) + 1
        self._edges, self._labels = list(edges), list(labels)
        self._counts = [0] * len(labels)

    def add(self, number: float, times: int = 1) -> None:
        """Count a number, once or several times."""
        self._counts[bisect_right(self._edges, number)] += times

    def items(self) -> list[tuple[str, int]]:
        """Labels with their counts, from the first that is not 0 to the last."""
        filled = [place for place, count in enumerate(self._counts) if count]
        if not filled:
            return []
        shown = slice(filled[0], filled[-1] + 1)
        return list(zip(self._labels[shown], self._counts[shown], strict=True))


def even_edges(low: float, high: float, bins: int) -> tuple[list[float], list[str]]:
    """Inner edges and labels that cut a range into equal bins.

    Args:
        low: Smallest number.
        high: Largest number.
        bins: How many.
    """
    width = (high - low) / bins or 1.0
    edges = [low + width * index for index in range(bins + 1)]
    return edges[1:-1], [f"{start:.3g} to {end:.3g}" for start, end in itertools.pairwise(edges)]


def median_of(counts: Counter[int]) -> float:
    """Median of whole numbers that were counted; 0 without any."""
    total = counts.total()
    if not total:
        return 0.0
    found = []
    for rank in ((total - 1) // 2, total // 2):
        seen = 0
        for number in sorted(counts):
            seen += counts[number]
            if seen > rank:
                found.append(number)
                break
    return sum(found) / 2
