"""Intervals and paired tests against scipy, exact enumeration and hand-computed values."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

from mfpo.evaluation.statistics import Metric, differences, estimates, tabulate, values

RATIO = {"rate": Metric("hits", "tries")}
MEAN = {"mean": Metric("score", "count", scale=1)}


def records(hits: np.ndarray, tries: np.ndarray) -> list[dict[str, float | str]]:
    return [
        {"id": f"i{n:04d}", "hits": h, "tries": t} for n, (h, t) in enumerate(zip(hits, tries, strict=True))
    ]


def means(values: np.ndarray) -> list[dict[str, float | str]]:
    return [{"id": f"i{n:04d}", "score": float(v), "count": 1} for n, v in enumerate(values)]


def test_a_metric_is_a_ratio_of_sums_not_a_mean_of_ratios() -> None:
    table = tabulate(records(np.array([1, 0]), np.array([1, 9])), RATIO)
    assert values(table) == {"rate": 10.0}


def test_weighted_terms_and_missing_counts() -> None:
    metric = {"F1": Metric({"tp": 2}, {"tp": 2, "fp": 1, "fn": 1}, scale=1)}
    items = [{"id": "a", "tp": 3, "fp": 1, "fn": 2}, {"id": "b", "tp": 1, "fp": 1}, {"id": "c", "other": 5}]
    # tp 4, fp 2, fn 2: precision 4/6, recall 4/6.
    assert values(tabulate(items, metric))["F1"] == pytest.approx(2 / 3)


def test_a_metric_without_denominator_is_undefined() -> None:
    found = estimates(tabulate([{"id": "a"}, {"id": "b"}], RATIO), resamples=50)["rate"]
    assert np.isnan([found.value, found.low, found.high]).all()


def test_interval_agrees_with_scipy_for_a_ratio() -> None:
    rng = np.random.default_rng(0)
    tries = rng.integers(1, 8, size=300)
    hits = rng.binomial(tries, 0.2)
    ours = estimates(tabulate(records(hits, tries), RATIO), resamples=20_000)["rate"]
    theirs = stats.bootstrap(
        (hits, tries),
        lambda h, t, axis: 100 * h.sum(axis) / t.sum(axis),
        paired=True,
        method="percentile",
        n_resamples=20_000,
        vectorized=True,
        rng=np.random.default_rng(1),
    ).confidence_interval
    assert ours.value == pytest.approx(100 * hits.sum() / tries.sum())
    width = theirs.high - theirs.low
    assert ours.low == pytest.approx(theirs.low, abs=0.05 * width)
    assert ours.high == pytest.approx(theirs.high, abs=0.05 * width)


def test_interval_of_a_mean_agrees_with_the_normal_one() -> None:
    sample = np.random.default_rng(3).normal(5, 2, size=1000)
    found = estimates(tabulate(means(sample), MEAN), resamples=10_000)["mean"]
    half = 1.96 * sample.std(ddof=1) / np.sqrt(1000)
    assert found.value == pytest.approx(sample.mean())
    assert found.high - found.low == pytest.approx(2 * half, rel=0.05)


def test_items_of_one_group_are_resampled_together() -> None:
    """Ten copies of each item carry no more information than one, so the interval stays as wide."""
    hits = np.random.default_rng(0).integers(0, 2, size=100)
    once = estimates(tabulate(records(hits, np.ones(100)), RATIO))["rate"]
    copies = [
        {"id": f"{n}-{copy}", "group": f"i{n:04d}", "hits": int(hit), "tries": 1}
        for n, hit in enumerate(hits)
        for copy in range(10)
    ]
    grouped = estimates(tabulate(copies, RATIO))["rate"]
    assert (grouped.low, grouped.high) == (once.low, once.high)


def test_same_seed_same_interval() -> None:
    table = tabulate(means(np.arange(50.0)), MEAN)
    assert estimates(table, seed=3) == estimates(table, seed=3) != estimates(table, seed=4)


def test_permutation_p_value_agrees_with_scipy_for_a_mean() -> None:
    rng = np.random.default_rng(5)
    before = rng.normal(0, 1, size=40)
    after = before + rng.normal(0.35, 1, size=40)
    ours = differences(tabulate(means(before), MEAN), tabulate(means(after), MEAN), permutations=40_000)[
        "mean"
    ]
    theirs = stats.permutation_test(
        (after, before),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        permutation_type="samples",
        n_resamples=40_000,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    assert ours.value == pytest.approx((after - before).mean())
    assert ours.p_value == pytest.approx(theirs.pvalue, abs=0.01)


def test_permutation_p_value_of_a_ratio_agrees_with_all_exchanges_by_hand() -> None:
    hits = np.array([[1, 0, 2, 1, 3, 0, 2, 1], [0, 0, 1, 1, 1, 1, 0, 0]])
    tries = np.array([[4, 3, 5, 2, 6, 3, 4, 2], [3, 4, 4, 3, 5, 2, 4, 3]])
    observed = abs(hits[1].sum() / tries[1].sum() - hits[0].sum() / tries[0].sum())
    extreme = 0
    for swap in itertools.product([False, True], repeat=8):
        h = np.where(swap, hits[::-1], hits).sum(axis=1)
        t = np.where(swap, tries[::-1], tries).sum(axis=1)
        extreme += abs(h[1] / t[1] - h[0] / t[0]) >= observed - 1e-12
    exact = extreme / 2**8
    tables = [tabulate(records(h, t), RATIO) for h, t in zip(hits, tries, strict=True)]
    assert differences(*tables, permutations=100_000)["rate"].p_value == pytest.approx(exact, abs=0.01)


def test_a_system_does_not_differ_from_itself() -> None:
    table = tabulate(records(np.array([1, 0, 2]), np.array([3, 4, 5])), RATIO)
    found = differences(table, table)["rate"]
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)


def test_no_false_alarms_beyond_the_level() -> None:
    """Two systems of equal quality: p < 0.05 in about 5% of the trials."""
    rng = np.random.default_rng(11)
    alarms = 0
    for trial in range(300):
        before, after = (tabulate(means(rng.binomial(1, 0.3, size=80)), MEAN) for _ in range(2))
        alarms += (
            differences(before, after, resamples=10, permutations=400, seed=trial)["mean"].p_value < 0.05
        )
    assert alarms <= stats.binom.ppf(0.999, 300, 0.05)


def test_interval_of_a_difference_uses_the_pairing() -> None:
    """Items vary a lot, the difference little: the paired interval is the narrow one."""
    rng = np.random.default_rng(2)
    before = rng.normal(0, 10, size=200)
    after = before + 1 + rng.normal(0, 0.1, size=200)
    tables = [tabulate(means(values), MEAN) for values in (before, after)]
    found = differences(*tables)["mean"]
    assert found.low > 0.97
    assert found.high < 1.03
    assert found.p_value < 0.001


def test_other_groups_are_refused() -> None:
    first = tabulate(records(np.array([1, 0]), np.array([1, 1])), RATIO)
    with pytest.raises(ValueError, match="same groups"):
        differences(first, tabulate(records(np.array([1]), np.array([1])), RATIO))
