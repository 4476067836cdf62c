"""Changing what a caption says and nothing else: corrections, and captions of edited scenes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mfpo.scenes.captions import Mention, Plan, mention_of, usualness
from mfpo.scenes.world import KINDS, Scene, SceneObject


def corrected(
    plan: Plan, scene: Scene, likely: dict[str, float], rng: np.random.Generator, extra: int = 0
) -> Plan:
    """The plan with its mistakes mended, wording kept, as an annotator corrects an answer.

    Absent objects give way to objects that were overlooked, or go if there are none. A replacement gives
    colour and position where the absent mention did, so that a correction differs in what it says and not in
    how, and stands where captions would name it. Colours and positions are put right; repetitions go.

    Args:
        plan: The faulty plan.
        scene: What is in the picture.
        likely: Probability of each kind in the context.
        rng: Source of randomness for the wording of what is added.
        extra: How many further overlooked objects to add.
    """
    mended: list[tuple[Mention, bool]] = []
    wrong: list[Mention] = []
    for index, mention in enumerate(plan.mentions):
        item = scene.find(mention.kind)
        if item is None:
            wrong.append(mention)
        elif all(item.kind != other.kind for other, _ in mended):
            mended.append((_in_form(mention, item, mention.name), index < plan.split))
    named = {mention.kind for mention in plan.mentions}
    overlooked = [item for item in scene.objects if item.kind not in named]
    for index, item in enumerate(overlooked[: len(wrong) + extra]):
        added = mention_of(item, rng)
        if index < len(wrong):
            added = _in_form(wrong[index], item, added.name)
        place = _place([mention for mention, _ in mended], item.kind, likely)
        in_first = mended[min(place, len(mended) - 1)][1] if mended else True
        mended.insert(place, (added, in_first))
    mentions = tuple(mention for mention, _ in mended)
    split = sum(in_first for _, in_first in mended) or len(mentions)
    if plan.split < len(plan.mentions) and split == len(mentions) > 1:
        split -= 1  # two sentences stay two
    return replace(plan, context=scene.context, mentions=mentions, split=split)


def renamed(plan: Plan, kind: str, other: str, likely: dict[str, float]) -> Plan:
    """The plan with one kind called another, which is named where captions would name it.

    Args:
        plan: A plan that mentions ``kind``.
        kind: The kind that is no longer mentioned.
        other: The kind that is mentioned in its stead, with the same colour and position.
        likely: Probability of each kind in the context.
    """
    rest = [mention for mention in plan.mentions if mention.kind != kind]
    (old,) = (mention for mention in plan.mentions if mention.kind == kind)
    place = _place(rest, other, likely)
    new = replace(old, kind=other, name=KINDS[other].name)
    return replace(plan, mentions=(*rest[:place], new, *rest[place:]))


def _in_form(mention: Mention, item: SceneObject, name: str) -> Mention:
    """A true mention of an object that gives colour and position where another mention gives them."""
    colour = item.colour if mention.colour else None
    return Mention(item.kind, colour, item.position if mention.position else None, name)


def _place(mentions: Sequence[Mention], kind: str, likely: dict[str, float]) -> int:
    """Index at which a kind is named among mentions: before the first less usual one."""
    rank = usualness(kind, likely)
    later = (index for index, other in enumerate(mentions) if usualness(other.kind, likely) > rank)
    return next(later, len(mentions))
