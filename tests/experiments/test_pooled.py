from __future__ import annotations

import numpy as np
import pytest

from mfpo.evaluation.results import ScoreResult, score_result
from mfpo.evaluation.statistics import Difference, Metric
from mfpo.experiments.derived import at_cover, derive, item_metric
from mfpo.experiments.plan import Cell
from mfpo.experiments.pooled import Pooled, cell_tables, draw, pool, rank_correlation
from mfpo.experiments.render import claims_grid
from mfpo.experiments.results import Column, Verdict, judge
from mfpo.experiments.schema import Claim


def scores(right: list[int]) -> ScoreResult:
    records = [{"id": f"s{i}", "right": value, "all": 1} for i, value in enumerate(right)]
    return score_result("made-up", records, {"share": Metric("right", "all", better="higher")}, {})


def pooled(cells: dict[Cell, list[int]], num_training: int = 1) -> Pooled:
    count = len(next(iter(cells.values())))
    tables = cell_tables(
        {c: scores(r) for c, r in cells.items()}, {f"s{i}" for i in range(count)}, num_training
    )
    draws = draw(1 + max(sft for sft, _ in cells), num_training, count)
    values, resampled = tables.ratios(draws)
    return pool(values["share"], resampled["share"], draws)


def test_the_mean_is_over_all_cells() -> None:
    found = pooled({(0, 0): [1, 1], (0, 1): [1, 0], (1, 0): [0, 0], (1, 1): [1, 0]}, num_training=2)
    assert found.value == pytest.approx((100 + 50 + 0 + 50) / 4)
    assert found.cells.tolist() == [[100.0, 50.0], [0.0, 50.0]]


def test_the_interval_covers_the_spread_of_seeds() -> None:
    """Scenes all alike: only the seeds vary. Two of three are drawn, so the mean of two values each time."""
    found = pooled({(s, 0): [value] * 4 for s, value in enumerate((0, 1, 1))})
    assert set(np.round(found.resampled, 6)) == {0.0, 50.0, 100.0}
    share = float((found.resampled == 0.0).mean())
    assert share == pytest.approx(1 / 9, abs=0.03)


def test_the_variance_over_seeds_is_that_of_a_mean() -> None:
    """Seed means 0, 50, 100: their mean has variance 2500 / 3, which the resamples must show."""
    cells: dict[Cell, list[int]] = {(0, 0): [0, 0], (1, 0): [1, 0], (2, 0): [1, 1]}
    tables = cell_tables({c: scores(r) for c, r in cells.items()}, {"s0", "s1"}, 1)
    draws = draw(3, 1, 2, resamples=20000)
    values = np.array([[0.0], [50.0], [100.0]])
    found = pool(values, np.repeat(values[:, :, None], 20000, axis=2), draws)
    assert np.var(found.resampled) == pytest.approx(2500 / 3, rel=0.05)
    assert tables.ratios(draws)[0]["share"].tolist() == values.tolist()


def test_differences_are_paired_by_seed_and_scene() -> None:
    """Both arms vary widely and alike, the difference not at all."""
    one = {(s, 0): [s % 2, 1, 0, 0] for s in range(3)}
    other = {cell: [*row[:2], 1, 0] for cell, row in one.items()}
    change = pooled(other).minus(pooled(one))
    assert change.value == pytest.approx(25.0)
    assert change.low >= 0.0
    same = pooled(one).minus(pooled(one))
    assert (same.value, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_the_model_before_training_stands_for_all_training_seeds() -> None:
    found = pooled({(0, 0): [1, 0], (1, 0): [1, 1]}, num_training=3)
    assert found.cells.tolist() == [[50.0] * 3, [100.0] * 3]


def test_p_value_is_that_of_the_interval() -> None:
    resampled = np.concatenate([np.full(10, -1.0), np.full(989, 1.0)])
    zero = Pooled(0.0, np.zeros(999), np.zeros((1, 1)))
    change = Pooled(1.0, resampled, np.ones((1, 1))).minus(zero)
    assert change.p_value == pytest.approx(2 * 11 / 1000)


@pytest.mark.parametrize(
    ("low", "high", "better", "word"),
    [
        (0.1, 2.0, "higher", "confirmed"),
        (-2.0, -0.1, "higher", "contradicted"),
        (-1.0, 1.0, "higher", "not confirmed"),
        (0.0, 1.0, "higher", "not confirmed"),
        (-2.0, -0.1, "lower", "confirmed"),
        (0.1, 2.0, "lower", "contradicted"),
        (-0.1, 2.0, "lower", "not confirmed"),
        (float("nan"), float("nan"), "lower", "unknown"),
        (float("nan"), 2.0, "higher", "unknown"),
    ],
)
def test_verdicts(low: float, high: float, better: str, word: str) -> None:
    assert judge(Difference((low + high) / 2, low, high, 0.5), better) == word


def test_a_metric_that_one_run_lacks_has_no_interval_and_no_verdict() -> None:
    resampled = np.linspace(1.0, 2.0, 100)
    some = Pooled(float("nan"), np.where(np.arange(100) < 40, np.nan, resampled), np.array([[1.5], [np.nan]]))
    other = Pooled(5.0, np.full(100, 5.0), np.array([[5.0], [5.0]]))
    assert np.isnan([some.estimate().low, some.estimate().high]).all()
    effect = some.minus(other)
    assert np.isnan([effect.value, effect.low, effect.high, effect.p_value]).all()
    assert judge(effect, "lower") == judge(Difference(float("nan"), -3.0, -2.0, 0.0), "lower") == "unknown"


@pytest.mark.parametrize(
    ("scale", "effect", "text"),
    [
        (100.0, Difference(-0.017, -0.2, 0.2, 0.9), "-0.0 [-0.2, +0.2]"),
        (100.0, Difference(-4.26, -5.04, -3.41, 0.0), "-4.3 [-5.0, -3.4]"),
        (1.0, Difference(0.0514, 0.0262, 0.0781, 0.0), "+0.051 [+0.026, +0.078]"),
    ],
)
def test_digits_of_an_effect_are_those_of_its_metric(scale: float, effect: Difference, text: str) -> None:
    column = Column("made-up", "share", Metric("right", "all", scale=scale, better="higher"))
    verdict = Verdict(Claim("", "a", ("b",), ("share",)), "b", column, effect, "not confirmed")
    assert [cell.text for cell in claims_grid([verdict]).rows[0]][3] == text


def test_chair_at_a_cover_is_on_the_line_between_thresholds() -> None:
    cover, chair = np.array([90.0, 80.0, 60.0]), np.array([20.0, 10.0, 4.0])
    assert at_cover(cover, chair, 85.0) == pytest.approx(15.0)
    assert at_cover(cover, chair, 75.0) == pytest.approx(8.5)
    assert at_cover(cover, chair, 80.0) == pytest.approx(10.0)
    assert np.isnan(at_cover(cover, chair, 95.0)) and np.isnan(at_cover(cover, chair, 50.0))


def test_balance_of_two_rewards() -> None:
    text, image = np.array([0.4, 0.2, 0.3, 0.3]), np.array([0.1, 0.4, -0.1, 0.3])
    values = {"text_margin": text, "image_margin": image}
    assert derive("balance", values).tolist() == pytest.approx([0.25, 0.5, 0.0, 1.0])
    assert derive("image_over_text", values).tolist() == pytest.approx([0.25, 2.0, -1 / 3, 1.0])
    assert np.isnan(derive("balance", {"text_margin": text})).all()


def test_chair_at_a_cover_from_votes() -> None:
    values = {
        "Cover, 1 votes": np.array([90.0]), "CHAIR_i, 1 votes": np.array([30.0]),
        "Cover, 2 votes": np.array([70.0]), "CHAIR_i, 2 votes": np.array([10.0]),
    }  # fmt: skip
    assert derive("CHAIR_i@80", values).tolist() == pytest.approx([20.0])


def test_what_chosen_answers_lose_under_noise_is_read_off_the_items() -> None:
    records = [
        {"id": "a", "rows": 1, "clean chosen": -10.0, "region@900 chosen": -13.0, "clean preferred": 1},
        {"id": "b", "rows": 1, "clean chosen": -4.0, "region@900 chosen": -5.0, "clean preferred": 0},
    ]
    shown = {"clean": Metric("clean preferred", "rows"), "region@900": Metric("clean preferred", "rows")}
    found = item_metric("distortion", "logp_drop region@900", shown)
    assert found is not None
    scored = score_result("distortion", records, shown, {})
    tables = cell_tables({(0, 0): scored}, {"a", "b"}, 1, {"drop": found})
    assert tables.ratios(draw(1, 1, 2))[0]["drop"].tolist() == [[2.0]]
    assert item_metric("distortion", "logp_drop crop", shown) is None
    assert item_metric("scenes", "logp_drop region@900", shown) is None


def test_rank_correlation_over_arms() -> None:
    """By hand: ranks 1 2 3 4 against 1 2 4 3 give 1 - 6 * 2 / (4 * 15) = 0.8; the reverse order -1."""

    def arms(*values: float) -> list[Pooled]:
        return [Pooled(value, np.array([value, -value]), np.array([[value]])) for value in values]

    found = rank_correlation(arms(1, 2, 3, 9), arms(10, 20, 50, 40))
    assert found.value == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx((0.8, 0.8)), "both resamples keep or turn both orders"
    assert rank_correlation(arms(1, 2, 3), arms(3, 2, 1)).value == pytest.approx(-1.0)
    assert rank_correlation(arms(1, 1, 3, 4), arms(1, 2, 3, 4)).value == pytest.approx(3 / np.sqrt(10))
    assert np.isnan(rank_correlation(arms(1, 2, 3), arms(5, 5, 5)).value)
