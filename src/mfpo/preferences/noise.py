"""Diffusion noise schedules: how strong the noise of a step is (paper 3.1)."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import numpy as np

from mfpo.errors import UserError, nearest
from mfpo.records import SCHEDULES, SCOPES, Noise, Schedule, Scope

NUM_STEPS = 1000
NOISY_SCOPES: tuple[Scope, ...] = ("region", "global", "random")
"""Scopes that add noise; the others replace the picture or part of it."""
FEATHERED_SCOPES: tuple[Scope, ...] = ("region", "random")
"""Those whose noise has an edge that may fade out."""
NOISE_STREAM, PLACE_STREAM, STEP_STREAM = range(3)
"""Independent draws of one row: the noise itself, where it is put, and how strong it is."""


class NoiseLevel(NamedTuple):
    """The two coefficients of x_t = signal * x + sigma * eps.

    Attributes:
        signal: sqrt(abar_t), what is left of the image.
        sigma: sqrt(1 - abar_t), standard deviation of the noise in the units of x.
    """

    signal: float
    sigma: float


def alpha_bars(schedule: Schedule) -> np.ndarray:
    """Share of the image's variance that is left after each step, abar_t = prod_{j=0..t} (1 - beta_j).

    The paper prints the product of the betas, which vanishes at once; this one is Ho et al.'s (2020).

    Args:
        schedule: ``vcd``, the sigmoid betas of the visual contrastive decoding code (Leng et al., 2024), or
            ``ddpm-linear``, 1e-4 to 2e-2 (Ho et al., 2020). The same step is a very different corruption in
            the two: abar_500 is 0.745 and 0.078.

    Returns:
        float64 ``[1000]``, strictly decreasing within (0, 1), indexed by the 0-based step; read-only.

    Raises:
        UserError: There is no schedule of that name.
    """
    if schedule not in SCHEDULES:
        raise UserError(
            f"unknown noise schedule {schedule!r}",
            where="--noise_schedule",
            fix=nearest(str(schedule), SCHEDULES),
        )
    return _alpha_bars(schedule)


@cache
def _alpha_bars(schedule: Schedule) -> np.ndarray:
    if schedule == "vcd":
        betas = 1 / (1 + np.exp(-np.linspace(-6, 6, NUM_STEPS))) * (0.5e-2 - 1e-5) + 1e-5
    else:
        betas = np.linspace(1e-4, 2e-2, NUM_STEPS)
    bars = np.cumprod(1 - betas)
    bars.setflags(write=False)
    return bars


def noise_level(schedule: Schedule, step: int) -> NoiseLevel:
    """Signal and noise coefficients of a step.

    sigma is in units of the normalised image. A processor with a standard deviation of 0.5 (SigLIP) therefore
    gets about twice the pixel noise of one with CLIP's 0.27 at the same step.

    Args:
        schedule: See [`alpha_bars`].
        step: 0-based diffusion step t, 0 to 999.

    Raises:
        UserError: There is no such schedule or step.
    """
    bars = alpha_bars(schedule)
    if isinstance(step, bool) or not isinstance(step, (int, np.integer)) or not 0 <= step < NUM_STEPS:
        raise UserError(
            f"noise step {step!r} is not a whole number from 0 to {NUM_STEPS - 1}",
            where="--noise_step",
            fix="500 is the paper's choice",
        )
    bar = float(bars[step])
    return NoiseLevel(signal=bar**0.5, sigma=(1 - bar) ** 0.5)


def check_noise(noise: Noise) -> NoiseLevel:
    """Check every setting of a row's noise.

    Args:
        noise: How the rejected image is made.

    Returns:
        The noise level of its schedule and step.

    Raises:
        UserError: Unknown scope or schedule, step outside 0..999, fraction outside (0, 1], feather outside
            [0, 1], or negative seed.
    """
    if noise.scope not in SCOPES:
        raise UserError(
            f"unknown noise scope {noise.scope!r}",
            where="--noise_scope",
            fix=nearest(str(noise.scope), SCOPES),
        )
    if not 0 < noise.fraction <= 1:
        raise UserError(
            f"noise fraction {noise.fraction!r} is not a share of the area",
            where="--noise_fraction",
            fix="give a number above 0 and at most 1, for example 0.2",
        )
    if not 0 <= noise.feather <= 1:
        raise UserError(
            f"noise feather {noise.feather!r} is not a share of the picture's shorter side",
            where="--noise_feather",
            fix="give a number from 0 (a sharp edge) to 1, for example 0.05",
        )
    if not 0 <= noise.seed < 2**64:
        raise UserError(
            f"noise seed {noise.seed!r} does not fit into 64 bits",
            where="noise.seed",
            fix="give a seed of 0 or more",
        )
    return noise_level(noise.schedule, noise.step)


def check_step_range(step: int | None, step_max: int | None) -> None:
    """Check the bounds between which the steps of rows are drawn.

    Args:
        step: The smallest step, which is a step by itself, see [`noise_level`].
        step_max: The largest; None where every row gets ``step``.

    Raises:
        UserError: ``step_max`` stands alone, or is no step from ``step`` to 999.
    """
    if step_max is None:
        return
    if step is None:
        raise UserError(
            f"steps up to {step_max} of rows that begin nowhere",
            where="--noise_step_max",
            fix="give --noise_step, the smallest step, as well",
        )
    if not step <= step_max < NUM_STEPS:
        raise UserError(
            f"{step_max} is not a step from --noise_step {step} to {NUM_STEPS - 1}",
            where="--noise_step_max",
            fix="give the largest step that a row may get",
        )


def draw_step(step: int, step_max: int | None, seed: int) -> int:
    """The diffusion step of a row: ``step``, or uniform from ``step`` to ``step_max``, both included.

    Args:
        step: The smallest step.
        step_max: The largest; None for ``step`` itself.
        seed: The row's seed; the draw depends on nothing else.
    """
    if step_max is None:
        return step
    return int(generator(seed, STEP_STREAM).integers(step, step_max, endpoint=True))


def generator(seed: int, stream: int = 0) -> np.random.Generator:
    """A counter-based generator whose draws depend on nothing but its key.

    Args:
        seed: A row's seed, 0 to 2**64 - 1.
        stream: Keeps independent draws of one row apart: `NOISE_STREAM`, `PLACE_STREAM` or `STEP_STREAM`.
    """
    return np.random.Generator(np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)))
