"""Means over seeds, with intervals that cover SFT seeds, training seeds and scenes.

Two things make a mean uncertain. Another LLaVA and another training would have given another value: the SFT
seeds' means differ by it, and with it by chance of training. And other scenes would have: all models see the
same ones, so that part does not shrink with the number of seeds; a bootstrap over scenes, drawn once for all
models, finds it. The two variances add up. A normal interval would be far too narrow for what three seeds
know of their variance, so it is Student's t, with the degrees of freedom of the sum (Satterthwaite, 1946).
Differences of two arms are taken seed by seed and resample by resample, so they are paired.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata, t

from mfpo.evaluation.results import ScoreResult
from mfpo.evaluation.statistics import Difference, Estimate, Metric, Table, tabulate
from mfpo.experiments.plan import Cell

Array = NDArray[np.float64]

RESAMPLES = 2000
ENOUGH = 0.95
"""Share of the resamples in which a metric must have a value, for it to have an interval."""
_CHUNK = 500


def draw_groups(num_groups: int, resamples: int = RESAMPLES, seed: int = 0) -> NDArray[np.int64]:
    """Scenes of each resample ``[R, G]``, drawn with replacement; the same for all arms of a measure.

    Args:
        num_groups: G.
        resamples: R.
        seed: Seed of the draws.
    """
    return np.random.default_rng([seed, num_groups]).integers(num_groups, size=(resamples, num_groups))


@dataclass(frozen=True)
class Spread:
    """How sure a mean over seeds is.

    Attributes:
        seeds: Standard error from SFT and training seeds; 0 with one of each, where it is unknown.
        scenes: Standard error from the choice of scenes.
        df: Degrees of freedom of both together.
    """

    seeds: float
    scenes: float
    df: float

    @property
    def error(self) -> float:
        """Standard error of the mean."""
        return math.hypot(self.seeds, self.scenes)

    def reach(self, level: float = 0.95) -> float:
        """Half the width of the interval."""
        return float(t.ppf((1 + level) / 2, self.df)) * self.error if self.error > 0 else self.error

    def p_value(self, value: float) -> float:
        """Two-sided, of a true value of 0."""
        if math.isnan(self.error) or math.isnan(value):
            return math.nan
        if self.error == 0:
            return float(value == 0)
        return float(2 * t.sf(abs(value) / self.error, self.df))


@dataclass(frozen=True)
class Pooled:
    """A metric of an arm, or a difference of two.

    Attributes:
        cells: The value of each cell ``[SFT seeds, training seeds]``.
        resampled: Mean over the training seeds of each SFT seed, with each resample's scenes ``[SFT seeds,
            R]``.
        num_groups: Scenes.
    """

    cells: Array = field(repr=False)
    resampled: Array = field(repr=False)
    num_groups: int

    @property
    def value(self) -> float:
        """The mean over all cells; NaN if one has no value."""
        return float(self.cells.mean())

    def spread(self) -> Spread:
        """How sure the mean is; NaN where that cannot be told.

        The seeds' part is the variance between the means of the SFT seeds, over their number; with one SFT
        seed, that between its training seeds. It holds a share of the scenes' part, which is thus counted a
        little too high.
        """
        units = self.cells.mean(axis=1) if len(self.cells) > 1 else self.cells[0]
        drawn = self.resampled.mean(axis=0)
        known = drawn[~np.isnan(drawn)]
        if len(units) < 2 and self.num_groups < 2:
            return Spread(math.nan, math.nan, math.nan)
        if np.isnan(units).any() or known.size < max(2.0, ENOUGH * drawn.size):
            return Spread(math.nan, math.nan, math.nan)
        scenes = float(known.var(ddof=1))
        seeds = float(units.var(ddof=1)) / len(units) if len(units) > 1 else 0.0
        below = scenes**2 / max(1, self.num_groups - 1) + seeds**2 / max(1, len(units) - 1)
        df = (scenes + seeds) ** 2 / below if below > 0 else math.inf
        return Spread(math.sqrt(seeds), math.sqrt(scenes), df)

    def estimate(self) -> Estimate:
        """The mean with its 95% interval."""
        value, reach = self.value, self.spread().reach()
        return Estimate(value, value - reach, value + reach)

    def minus(self, other: Pooled) -> Difference:
        """This arm minus another one, paired by SFT seed and scene."""
        change = Pooled(self.cells - other.cells, self.resampled - other.resampled, self.num_groups)
        value, spread = change.value, change.spread()
        reach = spread.reach()
        return Difference(value, value - reach, value + reach, spread.p_value(value))


def rank_correlation(x: Sequence[Pooled], y: Sequence[Pooled], *, seed: int = 0) -> Estimate:
    """Spearman's correlation of two metrics over arms, with a 95% interval.

    The interval is a percentile one over resamples of SFT seeds and scenes, the arms taken as given: ranks
    have no variance that seeds could be asked for. Of S seeds S - 1 are drawn, since the variance of the mean
    over S drawn ones is too small by a factor of (S - 1)/S (Rao and Wu, 1988).

    Args:
        x: One metric of each arm.
        y: The other one; its SFT seeds are those of ``x``, its scenes may be others.
        seed: Seed of the draws.
    """
    num_seeds, resamples = x[0].resampled.shape
    rng = np.random.default_rng([seed, num_seeds])
    drawn = rng.integers(num_seeds, size=(resamples, max(1, num_seeds - 1)))
    taken = [
        np.stack([one.resampled[drawn, np.arange(resamples)[:, None]].mean(axis=1) for one in metric])
        for metric in (x, y)
    ]
    value = _spearman(*(np.array([[one.value] for one in metric]) for metric in (x, y)))
    correlations = _spearman(*taken)
    known = correlations[~np.isnan(correlations)]
    if np.isnan(value[0]) or known.size < ENOUGH * resamples:
        return Estimate(float(value[0]), math.nan, math.nan)
    low, high = np.percentile(known, [2.5, 97.5])
    return Estimate(float(value[0]), float(low), float(high))


def _spearman(x: Array, y: Array) -> Array:
    """Over the first axis ``[A, R]``; NaN where a metric is the same in all arms."""
    ranks = [rankdata(one, axis=0) - (len(one) + 1) / 2 for one in (x, y)]
    below = np.sqrt((ranks[0] ** 2).sum(0) * (ranks[1] ** 2).sum(0))
    return np.where(below > 0, (ranks[0] * ranks[1]).sum(0) / np.where(below > 0, below, 1.0), np.nan)


@dataclass(frozen=True)
class CellTables:
    """The scores of an arm in every cell, on the scenes that all arms share.

    Attributes:
        tables: Per-scene sums ``[S][T]``.
    """

    tables: Sequence[Sequence[Table]]

    def ratios(self, groups: NDArray[np.int64]) -> tuple[dict[str, Array], dict[str, Array]]:
        """Each metric's value in every cell ``[S, T]``, and with each resample's scenes ``[S, T, R]``.

        Args:
            groups: Scenes of each resample ``[R, G]``.
        """
        weights = _weights(groups)
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
