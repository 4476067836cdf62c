"""What became of the claims of a file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from mfpo.evaluation.statistics import Difference, Metric
from mfpo.experiments.pooled import Pooled
from mfpo.experiments.schema import Claim

VerdictWord: TypeAlias = Literal["confirmed", "not confirmed", "contradicted", "unknown"]


@dataclass(frozen=True)
class Column:
    """A metric of a measure.

    Attributes:
        measure: The measure.
        name: The metric.
        metric: What it means.
    """

    measure: str
    name: str
    metric: Metric


@dataclass(frozen=True)
class Verdict:
    """What became of a claim on one metric against one arm.

    Attributes:
        claim: The claim.
        than: The arm that is compared with.
        column: The metric.
        effect: Better arm minus the other one.
        word: ``confirmed`` if the interval excludes 0 in the claimed direction, ``contradicted`` if it
            excludes 0 in the other one, ``not confirmed`` if it includes 0, ``unknown`` where there is no
            interval or one of the models describes nothing.
    """

    claim: Claim
    than: str
    column: Column
    effect: Difference
    word: VerdictWord


def judge(effect: Difference, better: str) -> VerdictWord:
    """The verdict on a claim from the interval of its effect.

    Args:
        effect: Arm that is said to be better minus the other one.
        better: ``lower`` or ``higher``, whichever is better.
    """
    if any(math.isnan(number) for number in (effect.value, effect.low, effect.high)):
        return "unknown"
    low, high = (-effect.high, -effect.low) if better == "lower" else (effect.low, effect.high)
    if low > 0:
        return "confirmed"
    return "contradicted" if high < 0 else "not confirmed"


def verdicts_on(
    claim: Claim, columns: Sequence[Column], pooled: Mapping[tuple[str, str, str], Pooled]
) -> list[Verdict]:
    """One for each metric of the claim that was measured, against each of its arms."""
    found = []
    for column in columns:
        if not _is_of(column, claim) or not column.metric.better:
            continue
        for than in claim.than:
            ours, theirs = ((arm, column.measure, column.name) for arm in (claim.better, than))
            if ours not in pooled or theirs not in pooled:
                continue
            effect = pooled[ours].minus(pooled[theirs])
            silent = any(_is_silent(arm, column.measure, pooled) for arm in (claim.better, than))
            word = "unknown" if silent else judge(effect, column.metric.better)
            found.append(Verdict(claim, than, column, effect, word))
    return found


_ALSO_CALLED = {
    ("objhal", "CHAIR_s_refine"): "CHAIR_s",
    ("amber", "Hal"): "CHAIR_s",
    ("amber", "CHAIR"): "CHAIR_i",
}
"""What benchmarks of photographs call the metrics of a claim."""


def _is_of(column: Column, claim: Claim) -> bool:
    """Whether a claim is about a column, by its name or by that of the metric which it is."""
    return bool({column.name, _ALSO_CALLED.get((column.measure, column.name))} & {*claim.metrics})


def _is_silent(arm: str, measure: str, pooled: Mapping[tuple[str, str, str], Pooled]) -> bool:
    """Whether a model names nothing that is there, so that a low CHAIR is no merit."""
    cover = pooled.get((arm, measure, "Cover"))
    return cover is not None and cover.value == 0
