from __future__ import annotations

import math

import numpy as np
import pytest

from mfpo.errors import UserError
from mfpo.preferences.noise import (
    alpha_bars,
    check_noise,
    check_step_range,
    draw_step,
    generator,
    noise_level,
)
from mfpo.records import SCHEDULES, Noise


@pytest.mark.parametrize(
    ("schedule", "step", "expected", "within"),
    [
        ("vcd", 500, 0.745, 5e-4),
        ("vcd", 700, 0.351, 5e-4),
        ("vcd", 900, 0.13, 5e-3),
        ("ddpm-linear", 500, 0.078, 5e-4),
    ],
)
def test_share_of_the_image_that_is_left(schedule, step, expected, within):
    assert alpha_bars(schedule)[step] == pytest.approx(expected, abs=within)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedule_is_the_running_product_of_one_minus_beta(schedule):
    bars = alpha_bars(schedule)
    assert bars.shape == (1000,) and bars.dtype == np.float64
    assert (np.diff(bars) < 0).all() and 0 < bars[-1] < bars[0] < 1

    def beta(j: int) -> float:
        if schedule == "vcd":
            return 1e-5 + (0.5e-2 - 1e-5) / (1 + math.exp(6 - 12 * j / 999))
        return 1e-4 + (2e-2 - 1e-4) * j / 999

    product = 1.0
    for j in range(1000):
        product *= 1 - beta(j)
        if j in (0, 1, 250, 999):
            assert bars[j] == pytest.approx(product, rel=1e-12)


def test_schedules_are_not_changed_by_a_caller():
    with pytest.raises(ValueError, match="read-only"):
        alpha_bars("vcd")[0] = 0


def test_noise_level_keeps_unit_variance():
    signal, sigma = noise_level("vcd", 500)
    assert signal == pytest.approx(math.sqrt(0.745), abs=3e-4)
    assert sigma == pytest.approx(0.505, abs=5e-4)
    assert signal**2 + sigma**2 == pytest.approx(1)


@pytest.mark.parametrize("step", [-1, 1000, 500.0, True, None])
def test_a_step_outside_the_schedule_is_refused(step):
    with pytest.raises(UserError, match="0 to 999"):
        noise_level("vcd", step)


def test_an_unknown_schedule_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'ddpm-linear'"):
        alpha_bars("ddpm_linear")


@pytest.mark.parametrize(
    ("noise", "message"),
    [
        (Noise(scope="regions"), "did you mean 'region'"),
        (Noise(schedule="cosine"), "choose one of|did you mean"),
        (Noise(fraction=0), "share of the area"),
        (Noise(fraction=1.5), "share of the area"),
        (Noise(fraction=float("nan")), "share of the area"),
        (Noise(feather=-0.1), "shorter side"),
        (Noise(feather=float("nan")), "shorter side"),
        (Noise(seed=-1), "64 bits"),
        (Noise(step=1000), "0 to 999"),
    ],
)
def test_settings_out_of_range_are_refused(noise, message):
    with pytest.raises(UserError, match=message):
        check_noise(noise)


def test_generator_depends_on_seed_and_stream_only():
    draw = generator(7).standard_normal(100)
    assert np.array_equal(draw, generator(7).standard_normal(100))
    assert not np.array_equal(draw, generator(8).standard_normal(100))
    assert not np.array_equal(draw, generator(7, stream=1).standard_normal(100))
    generator(2**64 - 1)


def test_steps_of_rows_are_uniform_between_the_bounds():
    steps = [draw_step(300, 304, seed) for seed in range(2000)]
    counts = np.bincount(steps, minlength=305)[300:]
    assert counts.sum() == 2000 and (np.abs(counts - 400) < 80).all(), "80 are 4.5 standard deviations"
    assert steps[:50] == [draw_step(300, 304, seed) for seed in range(50)]
    assert {draw_step(300, None, seed) for seed in range(50)} == {300}


@pytest.mark.parametrize(
    ("step", "step_max", "message"),
    [(None, 700, "give --noise_step"), (500, 499, "from --noise_step 500 to 999"), (500, 1000, "to 999")],
)
def test_bounds_of_steps_that_cannot_work(step, step_max, message):
    with pytest.raises(UserError, match=message):
        check_step_range(step, step_max)
    check_step_range(step, None)
