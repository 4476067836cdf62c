"""Metrics that follow from what a measure found, but that it does not show itself."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping

import numpy as np
from numpy.typing import NDArray

from mfpo.evaluation.statistics import Metric

Array = NDArray[np.float64]

_MATCHED = re.compile(r"CHAIR_i@(\d+(?:\.\d+)?)")
_VOTES = re.compile(r"Cover, (\d+) votes")
_LOGP_DROP = re.compile(r"logp_drop (.+)")


def item_metric(measure: str, name: str, known: Container[str]) -> Metric | None:
    """A ratio of sums over a measure's items that the measure has no name for; None if there is none.

    ``logp_drop D`` of ``distortion`` is the log-probability that chosen answers lose under distortion D, in
    nats an answer.

    Args:
        measure: The measure.
        name: The metric.
        known: Metrics that the measure has; a distortion is one of them.
    """
    found = _LOGP_DROP.fullmatch(name)
    if measure != "distortion" or found is None or found[1] not in known:
        return None
    if found[1] == "clean" or found[1].startswith("drop "):
        return None
    text = f"nats that the chosen answer loses, image: {found[1]}"
    return Metric({"clean chosen": 1, f"{found[1]} chosen": -1}, "rows", scale=1, text=text)


def derived_metric(measure: str, name: str) -> Metric | None:
    """What a metric means that is no ratio of sums; None if there is none of that name."""
    if measure == "matched" and (found := _MATCHED.fullmatch(name)):
        text = f"kinds wrongly named where {found[1]}% of the objects are named (by votes of samples)"
        return Metric("", "", better="lower", text=text)
    if measure == "rewards" and name == "balance":
        return Metric("", "", scale=1, better="higher", text="smaller over larger of the two margins")
    if measure == "rewards" and name == "image_over_text":
        return Metric("", "", scale=1, text="image margin over text margin")
    return None


def derive(name: str, values: Mapping[str, Array]) -> Array:
    """A derived metric from the values of plain ones, elementwise.

    Args:
        name: Its name, see [`derived_metric`].
        values: Plain metrics by name, arrays of one shape.
    """
    if found := _MATCHED.fullmatch(name):
        votes = sorted(int(match[1]) for key in values if (match := _VOTES.fullmatch(key)))
        cover = np.stack([values[f"Cover, {k} votes"] for k in votes], axis=-1)
        chair = np.stack([values[f"CHAIR_i, {k} votes"] for k in votes], axis=-1)
        return at_cover(cover, chair, float(found[1]))
    text, image = values.get("text_margin"), values.get("image_margin")
    if text is None or image is None:
        return np.full_like(next(iter(values.values())), np.nan)
    if name == "image_over_text":
        return np.where(text != 0, image / np.where(text != 0, text, 1.0), np.nan)
    larger, smaller = np.maximum(text, image), np.minimum(text, image)
    return np.where(larger > 0, np.maximum(smaller, 0.0) / np.where(larger > 0, larger, 1.0), np.nan)


def at_cover(cover: Array, chair: Array, wanted: float) -> Array:
    """CHAIR_i at a Cover, on the straight line between the neighbouring thresholds.

    Args:
        cover: Cover at each threshold ``[..., K]``, falling along the last axis.
        chair: CHAIR_i at each threshold ``[..., K]``.
        wanted: The Cover.

    Returns:
        ``[...]``; NaN where no threshold reaches that Cover, or all exceed it.
    """
    result = np.full(cover.shape[:-1], np.nan)
    for k in range(cover.shape[-1] - 1):
        high, low = cover[..., k], cover[..., k + 1]
        inside = (high >= wanted) & (wanted >= low) & np.isnan(result)
        width = np.where(high > low, high - low, 1.0)
        share = np.where(high > low, (high - wanted) / width, 0.0)
        between = chair[..., k] + share * (chair[..., k + 1] - chair[..., k])
        result = np.where(inside, between, result)
    return result
