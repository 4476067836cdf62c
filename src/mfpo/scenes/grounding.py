"""Pairs of clean drawings that differ in one object, for the grounding probe.

No noise is involved, so a model that has merely learned to detect noise gains nothing here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO

import numpy as np
from PIL import Image

from mfpo.records import Messages, user_message
from mfpo.scenes.captions import DESCRIBE_PROMPTS, Plan, realise, true_plan, usualness
from mfpo.scenes.corrections import renamed
from mfpo.scenes.render import picture_png
from mfpo.scenes.world import KINDS, Scene, World, sample_scene, swap_candidate


@dataclass(frozen=True, slots=True)
class GroundingItem:
    """A drawing, two edits of it, and the captions of the first two.

    Attributes:
        id: The scene's id.
        prompt: A request for a description.
        image: The drawing.
        swapped_image: The same drawing with one object replaced by another kind of the same colour.
        removed_image: The same drawing without that object.
        caption: True of ``image``.
        swapped_caption: True of ``swapped_image``; only its mention of that object differs,
            which may stand in another place: usual things are named first.
    """

    id: str
    prompt: Messages
    image: Image.Image
    swapped_image: Image.Image
    removed_image: Image.Image
    caption: str
    swapped_caption: str


def grounding_items(
    num_items: int, split: str = "test", seed: int = 0, world: World | None = None
) -> Iterator[GroundingItem]:
    """The first items of a split, always the same ones."""
    world = world or World()
    for index in range(num_items):
        scene = sample_scene(split, index, seed, world)
        rng = np.random.default_rng([seed, index, 7])
        kind, other = swap_candidate(scene, rng, world)
        likely = world.contexts[scene.context]
        plan = _usual_wording(true_plan(scene, likely, rng), likely)
        yield GroundingItem(
            id=scene.id,
            prompt=user_message(DESCRIBE_PROMPTS[index % len(DESCRIBE_PROMPTS)]),
            image=_picture(scene, world),
            swapped_image=_picture(scene.swapped(kind, other), world),
            removed_image=_picture(scene.without(kind), world),
            caption=realise(plan),
            swapped_caption=realise(renamed(plan, kind, other, likely)),
        )


def _usual_wording(plan: Plan, likely: dict[str, float]) -> Plan:
    """The plan with usual names in the usual order, so that neither tells one caption from the other."""
    mentions = sorted(plan.mentions, key=lambda mention: usualness(mention.kind, likely))
    return replace(plan, mentions=tuple(replace(m, name=KINDS[m.kind].name) for m in mentions))


def _picture(scene: Scene, world: World) -> Image.Image:
    return Image.open(BytesIO(picture_png(scene, world.image_size))).convert("RGB")
