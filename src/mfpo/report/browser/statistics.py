"""Statistics over all rows of a dataset, in one pass that reads no image."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from mfpo.data.files import read_jsonl
from mfpo.data.folder import SKIPPED, PreferenceDataset
from mfpo.difficulty.stages import LEVELS
from mfpo.preferences.noise import NOISY_SCOPES
from mfpo.preferences.regions.masks import union_share
from mfpo.records import PreferencePair, RegionStatus, text_of
from mfpo.report.browser.charts import Chart, Histogram, counted, even_edges, median_of, rates
from mfpo.report.browser.reference import Reference
from mfpo.report.browser.rows import statuses_of
from mfpo.report.browser.words import fallback_reason, percent

FREQUENT = 20
_AREA_EDGES = (1e-9, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6)
_AREA_LABELS = ("none", "<1%", "1–2%", "2–5%", "5–10%", "10–20%", "20–30%", "30–40%", "40–60%", "≥60%")
_WORD_EDGES = (5, 10, 20, 40, 60, 80, 120, 160, 240)
_WORD_LABELS = ("<5", "5–9", "10–19", "20–39", "40–59", "60–79", "80–119", "120–159", "160–239", "≥240")
_OUTCOMES = {"found": "found", "not-found": "not found", "too-small": "too small", "too-large": "too large"}


class Statistics:
    """Counts over the rows that were added.

    Args:
        asked_scope: Scope that the build was asked for, if that is known; a global row is then no fallback if
            it was.

    Attributes:
        rows: How many rows.
        keywords: Keywords of all rows.
        found: Keywords with a region.
        fallbacks: Rows by the reason for which they have global noise.
    """

    def __init__(self, asked_scope: str = "") -> None:
        self.rows = self.keywords = self.found = self._bare = 0
        self.fallbacks: Counter[str] = Counter()
        self._asked = asked_scope
        self._per_row: Counter[int] = Counter()
        self._frequent: Counter[str] = Counter()
        self._hits: Counter[str] = Counter()
        self._outcomes: Counter[str] = Counter()
        self._scopes: Counter[str] = Counter()
        self._noise: Counter[str] = Counter()
        self._words = {"chosen": Counter[int](), "rejected": Counter[int]()}
        self._areas = Histogram(_AREA_EDGES, _AREA_LABELS)

    def add(self, pair: PreferencePair) -> None:
        """Count a row; its images are not needed."""
        self.rows += 1
        self._per_row[len(pair.keywords)] += 1
        try:
            statuses = statuses_of(pair)
            if pair.regions:
                self._areas.add(union_share(pair.regions, pair.regions[0].size))
            else:
                self._bare += 1
                self._areas.add(0.0)
        except ValueError:
            statuses = []
        for status in statuses:
            name = status.keyword.casefold()
            self.keywords += 1
            self._frequent[name] += 1
            self._outcomes[status.status] += 1
            if status.status == "found":
                self.found += 1
                self._hits[name] += 1
        self._add_noise(pair, statuses)
        for name, answer in (("chosen", pair.chosen), ("rejected", pair.rejected)):
            self._words[name][len(text_of(answer).split())] += 1

    def _add_noise(self, pair: PreferencePair, statuses: Sequence[RegionStatus]) -> None:
        noise = pair.noise
        self._scopes[noise.scope] += 1
        if noise.scope in NOISY_SCOPES:
            self._noise[f"{noise.schedule}, step {noise.step}"] += 1
        if noise.scope == "global" and self._asked != "global" and not pair.regions:
            self.fallbacks[fallback_reason(statuses)] += 1

    def facts(self) -> list[tuple[str, str]]:
        """The most important numbers as (name, text)."""
        facts = [("rows", f"{self.rows:,}")]
        if self.keywords:
            facts.append(("keywords per row", f"{self.keywords / self.rows:.1f}"))
            facts.append(("keywords found", percent(self.found / self.keywords)))
        facts.append(("rows without a region", f"{self._bare:,}"))
        if self._noise:
            name, count = self._noise.most_common(1)[0]
            facts.append(("noise", name if count == self._noise.total() else f"{name} (mostly)"))
        return facts

    def charts(self) -> list[Chart]:
        """Charts of everything that was counted; without those that have nothing to show."""
        least, most = min(self._per_row, default=0), max(self._per_row, default=0)
        medians = {name: median_of(counts) for name, counts in self._words.items()}
        charts = [
            counted(
                "Keywords per row",
                f"{self.keywords:,} keywords in {self.rows:,} rows",
                ((str(number), self._per_row[number]) for number in range(least, most + 1)),
            ),
            counted(
                "Outcome of the search",
                "keywords by what became of them",
                ((words, self._outcomes[name]) for name, words in _OUTCOMES.items()),
            ),
            counted("Area of the regions", "rows by the share of the picture covered", self._areas.items()),
            counted(
                "Fallbacks to global noise", "rows by reason", _most_common(self.fallbacks), total=self.rows
            ),
            counted("Scope of the noise", "rows", _most_common(self._scopes)),
            counted("Noise settings", "rows by schedule and step", _most_common(self._noise, FREQUENT)),
            *(
                counted(
                    f"Words in the {name} answer", f"rows; median {medians[name]:g} words", _binned(counts)
                )
                for name, counts in self._words.items()
            ),
            rates(
                "Most frequent keywords",
                "found (solid) of all rows that have the keyword",
                ((name, self._hits[name], count) for name, count in _most_common(self._frequent, FREQUENT)),
            ),
        ]
        return [chart for chart in charts if chart.bars]


def collect(dataset: PreferenceDataset, asked_scope: str = "") -> Statistics:
    """Statistics of a dataset."""
    statistics = Statistics(asked_scope)
    for pair in dataset.without_images(rejected=False):
        statistics.add(pair)
    return statistics


def difficulty_charts(reference: Reference, ids: Iterable[str]) -> list[Chart]:
    """Charts of a reference pass; none where the dataset was not ranked.

    Args:
        reference: The pass.
        ids: Ids of the dataset's rows.
    """
    ranks = [reference.ranks[identifier] for identifier in ids if identifier in reference.ranks]
    entropies = [rank.entropy for rank in ranks if math.isfinite(rank.entropy)]
    if not entropies:
        return []
    histogram = Histogram(*even_edges(min(entropies), max(entropies), 10))
    for entropy in entropies:
        histogram.add(entropy)
    levels = Counter(rank.difficulty for rank in ranks)
    name = f"estimator {reference.estimator}, pass {reference.name}"
    return [
        counted("Difficulty", f"rows; {name}", ((level, levels[level]) for level in LEVELS)),
        counted("Entropy of the chosen answer", f"rows; {name}", histogram.items()),
    ]


def skipped_chart(folder: str | Path) -> Chart | None:
    """Rows that the build left out by reason; None without any."""
    path = Path(folder) / SKIPPED
    reasons = Counter(str(entry.get("reason", "")) for entry in read_jsonl(path)) if path.is_file() else None
    if not reasons:
        return None
    return counted("Rows left out by the build", "skipped.jsonl has the details", _most_common(reasons))


def _most_common(counts: Counter[str], most: int | None = None) -> Sequence[tuple[str, int]]:
    """Entries by count, equal ones by name, so that the page is the same every time."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]


def _binned(counts: Counter[int]) -> list[tuple[str, int]]:
    histogram = Histogram(_WORD_EDGES, _WORD_LABELS)
    for number, count in counts.items():
        histogram.add(number, count)
    return histogram.items()
