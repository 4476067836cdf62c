"""Settings and outcomes as sentences."""

from __future__ import annotations

from collections.abc import Sequence

from mfpo.preferences.noise import FEATHERED_SCOPES, NOISY_SCOPES, noise_level
from mfpo.records import Noise, RegionStatus

NO_KEYWORDS = "the answer has no keywords"
NOT_SEEN = "the centre crop cuts the regions away"


def status_in_words(status: RegionStatus) -> str:
    """What became of a keyword's search."""
    if status.status == "not-found":
        return "not found"
    area = percent(status.share)
    if status.status == "too-small":
        return f"too small: {area}"
    if status.status == "too-large":
        return f"too large: {area}"
    sure = f", confidence {status.score:.2f}" if status.score < 1 else ""
    return f"{area} of the picture{sure}"


def fallback_reason(statuses: Sequence[RegionStatus]) -> str:
    """Why a row has no region to perturb; empty if it has one."""
    outcomes = {status.status for status in statuses}
    if "found" in outcomes:
        return ""
    if not outcomes:
        return NO_KEYWORDS
    if outcomes == {"not-found"}:
        return "no keyword was found in the picture"
    small, large = "too-small" in outcomes, "too-large" in outcomes
    if small and large:
        return "all regions are too small or too large"
    return "all regions are too small" if small else "all regions are too large"


def noise_in_words(noise: Noise, scope: str) -> str:
    """How the rejected image is made.

    Args:
        noise: The row's settings.
        scope: What is done after all fallbacks.
    """
    if scope in NOISY_SCOPES:
        places = {
            "region": "the regions of the keywords",
            "global": "the whole picture",
            "random": f"a random box of {percent(noise.fraction)} of the picture",
        }
        fades = noise.feather and scope in FEATHERED_SCOPES
        edge = f", fading out over {percent(noise.feather)} of its shorter side" if fades else ""
        level = noise_level(noise.schedule, noise.step)
        return (
            f"Gaussian noise on {places[scope]}{edge}: step {noise.step} of the schedule {noise.schedule}, "
            f"which leaves {level.signal:.2f} of the signal and adds noise of σ {level.sigma:.2f}"
        )
    if scope == "crop":
        box = "" if noise.box is None else f" ({', '.join(f'{value:.0f}' for value in noise.box)})"
        return f"a random crop{box}, stretched to the size of the picture"
    return {
        "erase": "the regions of the keywords filled from their surroundings",
        "swap": "the rejected image that is stored with the row",
        "black": "a black picture",
    }.get(scope, scope)


def percent(share: float) -> str:
    """A share of [0, 1] as a percentage, with more digits where it is small."""
    if 0 < share < 0.001:
        return "<0.1%"
    return f"{100 * share:.1f}%" if share < 0.1 else f"{100 * share:.0f}%"
