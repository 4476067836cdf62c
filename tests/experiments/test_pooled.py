from __future__ import annotations

import numpy as np
import pytest

from mfpo.evaluation.results import ScoreResult, score_result
from mfpo.evaluation.statistics import Difference, Metric
from mfpo.experiments.derived import at_cover, derive, item_metric
from mfpo.experiments.plan import Cell, expand_sweep
from mfpo.experiments.pooled import Pooled, cell_tables, draw_groups, rank_correlation
from mfpo.experiments.reading import read_experiment
from mfpo.experiments.render import claims_grid
from mfpo.experiments.results import Results
from mfpo.experiments.schema import Claim
from mfpo.experiments.sweep import choose
from mfpo.experiments.verdicts import Column, Verdict, judge, verdicts_on


def scores(right: list[int]) -> ScoreResult:
    records = [{"id": f"s{i}", "right": value, "all": 1} for i, value in enumerate(right)]
    return score_result("made-up", records, {"share": Metric("right", "all", better="higher")}, {})


def pooled(cells: dict[Cell, list[int]], num_training: int = 1) -> Pooled:
    count = len(next(iter(cells.values())))
    tables = cell_tables(
        {c: scores(r) for c, r in cells.items()}, {f"s{i}" for i in range(count)}, num_training
    )
    values, resampled = tables.ratios(draw_groups(count))
    return Pooled(values["share"], resampled["share"].mean(axis=1), count)


def made_up(cells: np.ndarray, resampled: np.ndarray | None = None, num_groups: int = 100) -> Pooled:
    """A metric without any spread over scenes, unless it is given."""
    drawn = np.repeat(cells.mean(axis=1)[:, None], 100, axis=1) if resampled is None else resampled
    return Pooled(cells, drawn, num_groups)


def test_the_mean_is_over_all_cells() -> None:
    found = pooled({(0, 0): [1, 1], (0, 1): [1, 0], (1, 0): [0, 0], (1, 1): [1, 0]}, num_training=2)
    assert found.value == pytest.approx((100 + 50 + 0 + 50) / 4)
    assert found.cells.tolist() == [[100.0, 50.0], [0.0, 50.0]]


def test_three_seeds_alone_give_student_s_interval() -> None:
    """By hand: means 0, 50, 100 have variance 2500, their mean 2500/3; t of 0.975 with 2 df is 4.302653."""
    found = made_up(np.array([[0.0, 0.0], [40.0, 60.0], [90.0, 110.0]]))
    reach = 4.302653 * np.sqrt(2500 / 3)
    estimate = found.estimate()
    assert (estimate.value, estimate.low, estimate.high) == pytest.approx((50.0, 50.0 - reach, 50.0 + reach))
    assert found.spread().df == pytest.approx(2.0)
    change = found.minus(made_up(np.zeros((3, 2))))
    t_value = 50.0 / np.sqrt(2500 / 3)
    assert change.p_value == pytest.approx(1 - t_value / np.sqrt(2 + t_value**2)), "closed form for 2 df"


def test_one_model_has_the_interval_of_its_scenes() -> None:
    """Half of 400 scenes right: the standard error of the share is 2.5 points."""
    found = pooled({(0, 0): [0, 1] * 200})
    assert found.spread().seeds == 0.0 and found.spread().df == pytest.approx(399)
    assert found.spread().error == pytest.approx(2.5, rel=0.05)
    estimate = found.estimate()
    assert (estimate.low, estimate.high) == pytest.approx((45.1, 54.9), abs=0.3)


def test_one_model_and_one_group_have_no_interval() -> None:
    """Neither spread is known, which is not the same as none."""
    found = made_up(np.array([[0.31]]), num_groups=1)
    assert found.value == 0.31 and np.isnan([found.estimate().low, found.estimate().high]).all()
    change = found.minus(made_up(np.array([[0.30]]), num_groups=1))
    assert np.isnan(change.p_value) and judge(change, "higher") == "unknown"


def test_a_share_ends_at_100_and_a_ratio_of_scores_does_not() -> None:
    cells = np.array([[98.0], [103.0], [108.0]])
    text = "title: t\narms: [{name: sft}]\nmetrics: {scenes: [F1]}\n"
    experiment = read_experiment(text, "mine", "mine.yaml", lambda: ())
    measured = {("sft", "scenes", "F1"): made_up(cells)}

    def high(metric: Metric) -> float:
        estimate = Results(experiment, (), measured, {}, ()).estimate("sft", Column("scenes", "F1", metric))
        assert estimate is not None
        return estimate.high

    assert high(Metric("a", "b")) == 100.0
    assert high(Metric("a", "b", unbounded=True)) == pytest.approx(103.0 + 4.302653 * 5 / np.sqrt(3))


def test_one_llava_has_the_spread_of_its_training_seeds() -> None:
    found = made_up(np.array([[40.0, 60.0]]))
    assert found.spread().seeds == pytest.approx(10.0) and found.spread().df == pytest.approx(1.0)


def test_variances_of_seeds_and_scenes_add_up() -> None:
    """Satterthwaite's formula by hand: (4 + 12)^2 / (4^2 / 2 + 12^2 / 50) = 23.53."""
    seeds = np.array([[0.0], [np.sqrt(12.0)], [2 * np.sqrt(12.0)]])
    scenes = np.tile([-1.0, 1.0], 1000) * np.sqrt(12.0 * 1999 / 2000)
    found = made_up(seeds, seeds + scenes, num_groups=51).spread()
    assert (found.seeds**2, found.scenes**2) == pytest.approx((4.0, 12.0))
    assert found.df == pytest.approx(256 / (16 / 2 + 144 / 50))


@pytest.mark.parametrize(
    ("sft", "training", "both", "scene"),
    [(1.0, 0.0, 0.0, 1.0), (3.0, 1.0, 1.0, 3.0), (0.0, 1.0, 3.0, 10.0), (0.2, 0.2, 1.0, 5.0)],
)
def test_without_a_difference_one_interval_in_twenty_excludes_zero(
    sft: float, training: float, both: float, scene: float
) -> None:
    """Differences of two arms with a true mean of 0, wherever their spread comes from."""
    rng = np.random.default_rng(0)
    num_groups, trials, excluded = 60, 1500, 0
    groups = draw_groups(num_groups, resamples=200)
    for _ in range(trials):
        shared = scene * rng.standard_normal(num_groups)
        models = sft * rng.standard_normal((3, 1)) + training * rng.standard_normal((3, 2))
        scores = models[..., None] + shared + both * 5 * rng.standard_normal((3, 2, num_groups))
        drawn = scores.mean(axis=1)[:, groups].mean(axis=2)
        found = Pooled(scores.mean(axis=2), drawn, num_groups).estimate()
        excluded += not found.low <= 0 <= found.high
    assert excluded / trials < 0.075


def test_differences_are_paired_by_seed_and_scene() -> None:
    """LLaVAs differ widely, the arms by the same 5 of 100 scenes in each."""
    one = {(seed, 0): [1] * right + [0] * (100 - right) for seed, right in enumerate((10, 50, 90))}
    other = {cell: [*row[:95], *[1] * 5] for cell, row in one.items()}
    change = pooled(other).minus(pooled(one))
    assert change.value == pytest.approx(5.0) and change.low > 0.0
    assert pooled(other).estimate().high - pooled(other).estimate().low > 100.0
    same = pooled(one).minus(pooled(one))
    assert (same.value, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_the_model_before_training_stands_for_all_training_seeds() -> None:
    found = pooled({(0, 0): [1, 0], (1, 0): [1, 1]}, num_training=3)
    assert found.cells.tolist() == [[50.0] * 3, [100.0] * 3]


def test_a_model_that_describes_nothing_gets_no_verdict() -> None:
    """It hallucinates nothing either, which is no merit."""
    column = Column("scenes", "CHAIR_i", Metric("a", "b", better="lower"))
    measured = {
        ("silent", "scenes", "CHAIR_i"): made_up(np.array([[0.0]])),
        ("silent", "scenes", "Cover"): made_up(np.array([[0.0]])),
        ("other", "scenes", "CHAIR_i"): made_up(np.array([[9.0]])),
        ("other", "scenes", "Cover"): made_up(np.array([[70.0]])),
    }
    claim = Claim("", "silent", ("other",), ("CHAIR_i",))
    assert [one.word for one in verdicts_on(claim, [column], measured)] == ["unknown"]
    measured["silent", "scenes", "Cover"] = made_up(np.array([[1.0]]))
    assert [one.word for one in verdicts_on(claim, [column], measured)] == ["confirmed"]


def test_p_value_and_interval_agree() -> None:
    """An interval that ends at 0 is one with p = 0.05."""
    cells = np.array([[1.0], [2.0], [4.0]])
    reach = made_up(cells).spread().reach()
    edge = made_up(cells - cells.mean() + reach)
    assert edge.estimate().low == pytest.approx(0.0)
    assert edge.minus(made_up(np.zeros((3, 1)))).p_value == pytest.approx(0.05)


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
    some = made_up(np.array([[1.5], [np.nan]]))
    other = made_up(np.array([[5.0], [5.0]]))
    assert np.isnan([some.estimate().low, some.estimate().high]).all()
    effect = some.minus(other)
    assert np.isnan([effect.value, effect.low, effect.high, effect.p_value]).all()
    assert judge(effect, "lower") == judge(Difference(float("nan"), -3.0, -2.0, 0.0), "lower") == "unknown"


@pytest.mark.parametrize(("undefined", "known"), [(4, True), (6, False)])
def test_a_metric_that_few_resamples_lack_has_an_interval(undefined: int, known: bool) -> None:
    """Resamples without a value are those at one end; with many of them the rest would look too sure."""
    drawn = np.linspace(1.0, 2.0, 100)[None]
    drawn[:, :undefined] = np.nan
    assert np.isfinite(made_up(np.array([[1.5]]), drawn).estimate().low) == known


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
    for missing in ("text_margin", "image_margin"):
        some = {name: value for name, value in values.items() if name != missing} | {"loss": text}
        assert np.isnan(derive("balance", some)).all()


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
    assert tables.ratios(draw_groups(2))[0]["drop"].tolist() == [[2.0]]
    assert item_metric("distortion", "logp_drop crop", shown) is None
    assert item_metric("scenes", "logp_drop region@900", shown) is None


def test_rank_correlation_over_arms() -> None:
    """By hand: ranks 1 2 3 4 against 1 2 4 3 give 1 - 6 * 2 / (4 * 15) = 0.8; the reverse order -1."""

    def arms(*values: float) -> list[Pooled]:
        return [made_up(np.array([[value]]), np.array([[value, -value]])) for value in values]

    found = rank_correlation(arms(1, 2, 3, 9), arms(10, 20, 50, 40))
    assert found.value == pytest.approx(0.8)
    assert (found.low, found.high) == pytest.approx((0.8, 0.8)), "both resamples keep or turn both orders"
    assert rank_correlation(arms(1, 2, 3), arms(3, 2, 1)).value == pytest.approx(-1.0)
    assert rank_correlation(arms(1, 1, 3, 4), arms(1, 2, 3, 4)).value == pytest.approx(3 / np.sqrt(10))
    assert np.isnan(rank_correlation(arms(1, 2, 3), arms(5, 5, 5)).value)


def test_rank_correlation_pairs_the_seeds_of_two_measures() -> None:
    """Two LLaVAs order three arms the other way round each, in both metrics alike, on other scenes.

    One of the two is drawn each time, the same for both metrics, so they agree in every resample.
    """

    def arms(num_groups: int) -> list[Pooled]:
        orders = np.array([[1.0, 3.0], [2.0, 2.5], [3.0, 1.0]])
        drawn = [np.repeat(order[:, None], 500, axis=1) for order in orders]
        return [Pooled(order[:, None], one, num_groups) for order, one in zip(orders, drawn, strict=True)]

    found = rank_correlation(arms(100), arms(7))
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))


def test_a_sweep_chooses_the_best_rate_of_each_arm_and_of_equals_the_lower_one() -> None:
    text = (
        "title: t\narms: [{name: dpo, train: {objective: dpo}}, {name: mfpo, train: {objective: mfpo}},\n"
        "  {name: fixed, train: {objective: dpo, learning_rate: 1e-5}}]\n"
        "metrics: {scenes: [F1]}\nsweep: [1e-5, 1e-4, 1e-3]\n"
    )
    experiment = expand_sweep(read_experiment(text, "mine", "mine.yaml", lambda: ()))
    values = {
        "sft": 99.0, "fixed": 98.0,
        "dpo@1e-05": 80.0, "dpo@0.0001": 83.0, "dpo@0.001": 83.0,
        "mfpo@1e-05": 82.0, "mfpo@0.0001": 81.0, "mfpo@0.001": float("nan"),
    }  # fmt: skip
    measured = {(name, "scenes", "F1"): made_up(np.array([[value]])) for name, value in values.items()}
    column = Column("scenes", "F1", Metric("a", "b", better="higher"))
    assert choose(Results(experiment, (column,), measured, {}, ())) == {"dpo": 1e-4, "mfpo": 1e-5}
    assert choose(Results(experiment, (), {}, {}, ())) == {}, "nothing could be measured"


def test_claims_are_judged_by_what_a_benchmark_calls_their_metrics() -> None:
    """CHAIR_s of a claim is Hal of AMBER and CHAIR_s_refine of Object HalBench."""
    metric = Metric("wrong", "all", better="lower")
    columns = [
        Column("amber", "Hal", metric),
        Column("amber", "CHAIR", metric),
        Column("objhal", "CHAIR_s_refine", metric),
        Column("amber", "Cog", metric),
    ]
    cells = {
        (arm, column.measure, column.name): Pooled(np.full((1, 2), value), np.full((1, 50), value), 9)
        for arm, value in (("mfpo", 1.0), ("sft", 2.0))
        for column in columns
    }
    claim = Claim("it helps", "mfpo", ("sft",), ("CHAIR_s",))
    found = [(one.column.measure, one.column.name) for one in verdicts_on(claim, columns, cells)]
    assert found == [("amber", "Hal"), ("objhal", "CHAIR_s_refine")]
