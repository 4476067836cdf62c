"""Intervals and paired tests for metrics that are ratios of per-item sums.

Every metric here is ``scale * sum(numerator) / sum(denominator)`` over items, CHAIR_i and F1 as much as a
plain mean (denominator 1). Items about the same image are not independent: they share a *group*, and groups
are what is resampled and swapped.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Record = Mapping[str, Any]

POWER_FACTOR = 1.959964 + 0.841621
"""z of 0.975 plus z of 0.8: a two-sided test at the 5% level finds so many standard errors 4 times in 5."""

_CHUNK = 250_000
"""Numbers drawn at once: 2 MB, which a cache holds; larger chunks take up to three times as long."""


@dataclass(frozen=True, slots=True)
class Metric:
    """A ratio of sums of per-item counts.

    Attributes:
        numerator: Count of an item record that is summed above the line; a mapping sums several with weights.
        denominator: Count or counts below the line; an item without it adds nothing.
        scale: Factor, 100 for a percentage.
        better: Whether lower or higher is better; empty where neither is.
        text: What it says, in one line for people.
        kinds: Only items of these kinds count; all of them when empty.
        unbounded: Whether it may exceed its scale, as a ratio of two scores may and a share may not.
    """

    numerator: str | dict[str, float]
    denominator: str | dict[str, float]
    scale: float = 100.0
    better: Literal["lower", "higher", ""] = ""
    text: str = ""
    kinds: Sequence[str] = ()
    unbounded: bool = False

    def counts(self, record: Record) -> bool:
        """Whether an item is of a kind that counts."""
        return not self.kinds or record.get("kind") in self.kinds

    def to_dict(self) -> dict[str, Any]:
        """The definition as a JSON object."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A metric with its 95% interval.

    Attributes:
        value: Over all items; NaN when its denominator is 0.
        low: Lower end of the interval.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Difference:
    """How one system differs from another on the same items: second minus first.

    Attributes:
        value: Difference of the metric.
        low: Lower end of its 95% interval (paired bootstrap).
        high: Upper end.
        p_value: Of the paired permutation test: how often a difference as large in size comes about when the
            two systems' results are exchanged at random, group by group. Two-sided.
        detectable: The smallest true difference that a test at the 5% level would find four times in five
            on that many groups: 2.80 standard errors of the paired difference (z of 0.975 plus z of 0.8).
    """

    value: float
    low: float
    high: float
    p_value: float
    detectable: float = math.nan


@dataclass(frozen=True, slots=True)
class Table:
    """Per-group sums of every metric's two halves.

    Attributes:
        groups: Names of the groups, sorted.
        metrics: The metrics, by name.
        numerators: [groups, metrics].
        denominators: [groups, metrics].
    """

    groups: list[str]
    metrics: Mapping[str, Metric]
    numerators: Array = field(repr=False)
    denominators: Array = field(repr=False)


def tabulate(records: Sequence[Record], metrics: Mapping[str, Metric]) -> Table:
    """Sum item records by group.

    Args:
        records: Item records with the counts that the metrics name, an ``id`` and optionally a ``group``.
        metrics: The metrics by name.

    Raises:
        ValueError: There are no records.
    """
    if not records:
        raise ValueError("no item records")
    names = [str(record.get("group", record["id"])) for record in records]
    groups = sorted(set(names))
    row = {name: position for position, name in enumerate(groups)}
    numerators = np.zeros((len(groups), len(metrics)))
    denominators = np.zeros_like(numerators)
    for name, record in zip(names, records, strict=True):
        for column, metric in enumerate(metrics.values()):
            if not metric.counts(record):
                continue
            numerators[row[name], column] += _count(record, metric.numerator)
            denominators[row[name], column] += _count(record, metric.denominator)
    return Table(groups, metrics, numerators, denominators)


def values(table: Table) -> dict[str, float]:
    """The metrics over all items; NaN where a denominator is 0."""
    ratios = _ratio(table, table.numerators.sum(axis=0), table.denominators.sum(axis=0))
    return dict(zip(table.metrics, ratios.tolist(), strict=True))


def estimates(
    table: Table, *, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> dict[str, Estimate]:
    """Percentile bootstrap intervals: groups drawn with replacement, the same draws for every metric.

    Args:
        table: Sums by group.
        resamples: Number of draws.
        seed: Seed of the draws.
        level: Coverage.
    """
    drawn_RM = np.concatenate(
        [
            _ratio(table, weights @ table.numerators, weights @ table.denominators)
            for weights in _resample_weights(len(table.groups), resamples, seed)
        ]
    )
    low, high = _percentiles(drawn_RM, level)
    return {
        name: Estimate(value, float(low[column]), float(high[column]))
        for column, (name, value) in enumerate(values(table).items())
    }


def differences(
    first: Table,
    second: Table,
    *,
    resamples: int = 2000,
    permutations: int = 10_000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Difference]:
    """Paired comparison of two systems on the same groups.

    Args:
        first: Sums of the system that is compared with.
        second: Sums of the other one, of the same groups and metrics.
        resamples: Draws of the paired bootstrap.
        permutations: Random exchanges of the permutation test; the smallest p-value is 1 / (permutations +
            1).
        seed: Seed of both.
        level: Coverage of the interval.

    Raises:
        ValueError: The groups or the metrics differ.
    """
    if first.groups != second.groups or list(first.metrics) != list(second.metrics):
        raise ValueError("a paired comparison needs the same groups and metrics")
    count = len(first.groups)
    drawn_RM = np.concatenate(
        [
            _ratio(second, weights @ second.numerators, weights @ second.denominators)
            - _ratio(first, weights @ first.numerators, weights @ first.denominators)
            for weights in _resample_weights(count, resamples, seed)
        ]
    )
    low, high = _percentiles(drawn_RM, level)
    detectable = POWER_FACTOR * _spread(drawn_RM)
    p_values = _permutation_p_values(first, second, permutations, seed)
    before, after = values(first), values(second)
    return {
        name: Difference(
            after[name] - before[name],
            float(low[column]),
            float(high[column]),
            float(p_values[column]),
            float(detectable[column]),
        )
        for column, name in enumerate(first.metrics)
    }


def _permutation_p_values(first: Table, second: Table, permutations: int, seed: int) -> Array:
    """Two-sided p-values [M], the observed arrangement counted as one of the permutations."""
    rng = np.random.default_rng([seed, 1])
    change_numerators = second.numerators - first.numerators
    change_denominators = second.denominators - first.denominators
    totals = [table.sum(axis=0) for table in (first.numerators, first.denominators)]
    other_totals = [table.sum(axis=0) for table in (second.numerators, second.denominators)]
    observed = np.abs(_ratio(first, *other_totals) - _ratio(first, *totals))
    # Permuted statistics equal to the observed one up to rounding must count as equal.
    threshold = observed - 1e-9 * np.maximum(1.0, observed)
    extreme = np.zeros(len(first.metrics))
    for rows in _chunks(permutations, len(first.groups)):
        swaps = rng.integers(0, 2, size=(rows, len(first.groups))).astype(np.float64)
        moved_numerators, moved_denominators = swaps @ change_numerators, swaps @ change_denominators
        one = _ratio(first, totals[0] + moved_numerators, totals[1] + moved_denominators)
        other = _ratio(first, other_totals[0] - moved_numerators, other_totals[1] - moved_denominators)
        extreme += (np.abs(other - one) >= threshold).sum(axis=0)
    p_values: Array = (1.0 + extreme) / (1.0 + permutations)
    p_values[np.isnan(observed)] = np.nan
    return p_values


def _resample_weights(count: int, resamples: int, seed: int) -> Iterator[Array]:
    """How often each group is drawn in each bootstrap resample, in chunks of [rows, count]."""
    rng = np.random.default_rng([seed, 0])
    for rows in _chunks(resamples, count):
        picks = rng.integers(0, count, size=(rows, count)) + count * np.arange(rows)[:, None]
        yield np.bincount(picks.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def _chunks(total: int, width: int) -> list[int]:
    """Row counts that sum to ``total``; a [rows, width] array stays within a few megabytes."""
    size = max(1, _CHUNK // max(1, width))
    return [min(size, total - start) for start in range(0, total, size)]


def _ratio(table: Table, numerators: Array, denominators: Array) -> Array:
    """Metric values [..., M] from sums [..., M]."""
    scales = np.array([metric.scale for metric in table.metrics.values()])
    defined = denominators != 0
    return np.where(defined, scales * numerators / np.where(defined, denominators, 1.0), np.nan)


def _percentiles(drawn_RM: Array, level: float) -> tuple[Array, Array]:
    """Ends of the central interval [M] each; resamples in which a metric is undefined are left out."""
    tail = 100 * (1 - level) / 2
    low, high = np.full(drawn_RM.shape[1], np.nan), np.full(drawn_RM.shape[1], np.nan)
    for column, drawn in enumerate(drawn_RM.T):
        defined = drawn[~np.isnan(drawn)]
        if defined.size:
            low[column], high[column] = np.percentile(defined, [tail, 100 - tail])
    return low, high


def _spread(drawn_RM: Array) -> Array:
    """Standard deviation [M] of the resamples in which a metric is defined; NaN for fewer than two."""
    spread = np.full(drawn_RM.shape[1], np.nan)
    for column, drawn in enumerate(drawn_RM.T):
        defined = drawn[~np.isnan(drawn)]
        if defined.size > 1:
            spread[column] = defined.std(ddof=1)
    return spread


def _count(record: Record, terms: str | Mapping[str, float]) -> float:
    if isinstance(terms, str):
        return float(record.get(terms, 0))
    return sum(weight * float(record.get(name, 0)) for name, weight in terms.items())
