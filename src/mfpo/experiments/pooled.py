"""Means over seeds with intervals: a hierarchical bootstrap over SFT seeds, training seeds and scenes.

One resample draws SFT seeds, training seeds within each of them, and scenes. The scenes are drawn once for
all seeds, since all models are asked about the same ones. Of n seeds n - 1 are drawn, with replacement: the
variance of the mean over n drawn ones would be too small by a factor of (n - 1)/n, two thirds for three seeds
(Rao and Wu, 1988). A single seed is taken as it is, and its share of the spread is then unknown. All arms see
the same draws, so the difference of two arms, resample by resample, is paired by SFT seed and by scene.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from mfpo.evaluation.results import ScoreResult
from mfpo.evaluation.statistics import Difference, Estimate, Metric, Table, tabulate
from mfpo.experiments.plan import Cell

Array = NDArray[np.float64]

RESAMPLES = 2000
_CHUNK = 500


@dataclass(frozen=True)
class Draws:
    """Resamples, the same for all arms of a measure.

    Attributes:
        sft: Drawn SFT seeds ``[R, n']``.
        training: Drawn training seeds ``[R, n', m']``.
        groups: Drawn scenes ``[R, G]``.
    """

    sft: NDArray[np.int64] = field(repr=False)
    training: NDArray[np.int64] = field(repr=False)
    groups: NDArray[np.int64] = field(repr=False)


def draw(
    num_sft: int, num_training: int, num_groups: int, resamples: int = RESAMPLES, seed: int = 0
) -> Draws:
    """Draw seeds and scenes.

    Args:
        num_sft: SFT seeds.
        num_training: Training seeds of each.
        num_groups: Scenes.
        resamples: R.
        seed: Seed of the draws.
    """
    rng = np.random.default_rng([seed, num_sft, num_training, num_groups])
    outer, inner = max(1, num_sft - 1), max(1, num_training - 1)
    return Draws(
        rng.integers(num_sft, size=(resamples, outer)),
        rng.integers(num_training, size=(resamples, outer, inner)),
        rng.integers(num_groups, size=(resamples, num_groups)),
    )


@dataclass(frozen=True)
class Pooled:
    """A metric of an arm: its mean over all cells, and the same of each resample.

    Attributes:
        value: The mean.
        resampled: ``[R]``.
        cells: The value of each cell ``[SFT seeds, training seeds]``.
    """

    value: float
    resampled: Array = field(repr=False)
    cells: Array = field(repr=False)

    def estimate(self) -> Estimate:
        """With its 95% percentile interval; without one where a cell has no value."""
        if np.isnan(self.value):
            return Estimate(np.nan, np.nan, np.nan)
        return Estimate(self.value, *_interval(self.resampled))

    def minus(self, other: Pooled) -> Difference:
        """This arm minus another one, paired by the draws.

        The p-value is that of the interval: twice the smaller share of resamples on either side of 0, the
        observed one counted among them.
        """
        change = self.resampled - other.resampled
        known = change[~np.isnan(change)]
        value = self.value - other.value
        if not known.size or np.isnan(value):
            return Difference(value, np.nan, np.nan, np.nan)
        below, above = int((known <= 0).sum()), int((known >= 0).sum())
        p_value = min(1.0, 2 * (1 + min(below, above)) / (1 + known.size))
        return Difference(value, *_interval(change), p_value)


def rank_correlation(x: Sequence[Pooled], y: Sequence[Pooled]) -> Estimate:
    """Spearman's correlation of two metrics over arms, with its 95% interval.

    Each resample ranks the arms anew, so the interval covers seeds and scenes; the arms are taken as given.

    Args:
        x: One metric of each arm.
        y: The other one.
    """
    value = _spearman(*(np.array([[one.value] for one in metric]) for metric in (x, y)))
    drawn = _spearman(*(np.stack([one.resampled for one in metric]) for metric in (x, y)))
    return Estimate(float(value[0]), *_interval(drawn))


def _spearman(x: Array, y: Array) -> Array:
    """Over the first axis ``[A, R]``; NaN where a metric is the same in all arms."""
    ranks = [rankdata(one, axis=0) - (len(one) + 1) / 2 for one in (x, y)]
    below = np.sqrt((ranks[0] ** 2).sum(0) * (ranks[1] ** 2).sum(0))
    return np.where(below > 0, (ranks[0] * ranks[1]).sum(0) / np.where(below > 0, below, 1.0), np.nan)


def pool(values: Array, resampled: Array, draws: Draws) -> Pooled:
    """Pool the cells of one metric.

    Args:
        values: Observed value of each cell ``[S, T]``.
        resampled: The same with each resample's scenes ``[S, T, R]``.
        draws: Which seeds each resample takes.
    """
    number = np.arange(len(draws.sft))[:, None, None]
    taken = resampled[draws.sft[:, :, None], draws.training, number]
    return Pooled(float(values.mean()), taken.mean(axis=(1, 2)), values)


@dataclass(frozen=True)
class CellTables:
    """The scores of an arm in every cell, on the scenes that all arms share.

    Attributes:
        tables: Per-scene sums ``[S][T]``.
    """

    tables: Sequence[Sequence[Table]]

    def ratios(self, draws: Draws) -> tuple[dict[str, Array], dict[str, Array]]:
        """Each metric's value in every cell ``[S, T]``, and with each resample's scenes ``[S, T, R]``."""
        weights = _weights(draws.groups)
        observed = [
            [_ratio(table, np.ones((1, table.numerators.shape[0])))[0] for table in row]
            for row in self.tables
        ]
        drawn = [
            [np.concatenate([_ratio(table, w) for w in weights]) for table in row] for row in self.tables
        ]
        values, resampled = np.array(observed), np.array(drawn)
        names = list(self.tables[0][0].metrics)
        return (
            {name: values[:, :, i] for i, name in enumerate(names)},
            {name: resampled[:, :, :, i] for i, name in enumerate(names)},
        )


def cell_tables(
    results: Mapping[Cell, ScoreResult],
    groups: set[str],
    num_training: int,
    more: Mapping[str, Metric] | None = None,
) -> CellTables:
    """Tables of an arm's cells.

    Args:
        results: Scores of each cell. A model before preference training has one training seed only, and
            stands for all of them.
        groups: Scenes to keep to.
        num_training: Training seeds.
        more: Metrics beside those that the scores define.
    """
    first = next(iter(results.values()))
    metrics = {
        n: m for n, m in first.definitions.items() if all(n in r.definitions for r in results.values())
    }
    metrics |= more or {}
    rows = []
    for sft in range(1 + max(sft for sft, _ in results)):
        row = []
        for seed in range(num_training):
            result = results[(sft, seed)] if (sft, seed) in results else results[(sft, 0)]
            row.append(tabulate([item for item in result.items if group_of(item) in groups], metrics))
        rows.append(row)
    return CellTables(rows)


def group_of(item: Mapping[str, object]) -> str:
    """The scene or row that an item is about."""
    return str(item.get("group", item["id"]))


def _weights(groups: NDArray[np.int64]) -> list[Array]:
    """How often each scene is drawn, ``[rows, G]``, in chunks of resamples."""
    count = groups.shape[1]
    chunks = []
    for start in range(0, len(groups), _CHUNK):
        part = groups[start : start + _CHUNK]
        flat = (part + count * np.arange(len(part))[:, None]).ravel()
        chunks.append(np.bincount(flat, minlength=len(part) * count).reshape(-1, count).astype(np.float64))
    return chunks


def _ratio(table: Table, weights: Array) -> Array:
    """Metric values ``[rows, M]`` for weights ``[rows, G]``; NaN where a denominator is 0."""
    scales = np.array([metric.scale for metric in table.metrics.values()])
    above, below = weights @ table.numerators, weights @ table.denominators
    return np.where(below != 0, scales * above / np.where(below != 0, below, 1.0), np.nan)


def _interval(resampled: Array) -> tuple[float, float]:
    known = resampled[~np.isnan(resampled)]
    if not known.size:
        return np.nan, np.nan
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
