"""Drawn scenes as arrays, and what is said about them, to train on.

It imports nothing heavy, so that worker processes start fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from typing import TypeAlias

import numpy as np
from PIL import Image
from tqdm.auto import tqdm

from mfpo.scenes.captions import (
    DESCRIBE_PROMPTS,
    PHRASES,
    attribute_answer,
    colour_question,
    existence_answer,
    existence_question,
    faulty_plan,
    position_question,
    realise,
)
from mfpo.scenes.render import draw
from mfpo.scenes.world import COLOURS, KINDS, Scene, World

KIND_INDEX = {name: index for index, name in enumerate(KINDS)}
COLOUR_INDEX = {name: index for index, name in enumerate(COLOURS)}
CHECKLIST_ABSENT, CHECKLIST_LENGTH = 4, 8
CHECKLIST_PROMPT = "List what can be seen."
Talk: TypeAlias = tuple[str, tuple[tuple[str, bool], ...]]
"""What is asked, and the answer in pieces, each with whether it is learned."""


@dataclass(frozen=True, slots=True)
class Examples:
    """Scenes as arrays. N scenes, S input side, P patches, K kinds.

    Attributes:
        pixels: uint8 [N, 3, S, S], resized as the image processor resizes.
        labels: uint8 [N, S, S], 0 for background and 1 + kind index where an object is.
        covers: float32 [N, P, K], share of each patch that each kind covers.
        colours: int64 [N, K], colour index of each kind, -100 where it is absent.
        centres: float32 [N, K, 2], centre (x, y) in [0, 1] of each kind's box.
    """

    pixels: np.ndarray
    labels: np.ndarray
    covers: np.ndarray
    colours: np.ndarray
    centres: np.ndarray


def draw_examples(
    scenes: Sequence[Scene], picture_size: int, input_size: int, patch_size: int, num_workers: int = 2
) -> Examples:
    """Draw scenes in parallel; the result does not depend on the number of workers.

    Args:
        scenes: What to draw.
        picture_size: Side of the drawn picture in pixels.
        input_size: Side of the vision tower's input S in pixels.
        patch_size: Side of its patches in pixels.
        num_workers: Processes that draw.
    """
    work = partial(_arrays, picture_size=picture_size, input_size=input_size, patch_size=patch_size)
    if num_workers <= 1:
        rows = [work(scene) for scene in tqdm(scenes, desc="drawing scenes")]
    else:
        with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
            rows = list(tqdm(pool.map(work, scenes, chunksize=64), total=len(scenes), desc="drawing scenes"))
    return Examples(*(np.stack(column) for column in zip(*rows, strict=True)))


def _arrays(
    scene: Scene, picture_size: int, input_size: int, patch_size: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    drawing = draw(scene, picture_size)
    small = drawing.image.resize((input_size, input_size), Image.Resampling.BICUBIC)
    labels = np.zeros((picture_size, picture_size), np.uint8)
    colours = np.full(len(KINDS), -100, np.int64)
    centres = np.zeros((len(KINDS), 2), np.float32)
    for item in scene.objects:
        index = KIND_INDEX[item.kind]
        labels[drawing.masks[item.kind]] = 1 + index
        colours[index] = COLOUR_INDEX[item.colour]
        centres[index] = item.x, item.y - item.size / 2
    small_labels = np.asarray(
        Image.fromarray(labels).resize((input_size, input_size), Image.Resampling.NEAREST)
    )
    grid = input_size // patch_size
    patches = small_labels.reshape(grid, patch_size, grid, patch_size).swapaxes(1, 2).reshape(grid * grid, -1)
    covers = (patches[:, :, None] == 1 + np.arange(len(KINDS))).mean(1, dtype=np.float32)
    return np.asarray(small).transpose(2, 0, 1), small_labels, covers, colours, centres


def description(
    scene: Scene, world: World, rng: np.random.Generator, *, absent_rate: float, drop_rate: float
) -> Talk:
    """A request for a description and its answer, faulty as web data is.

    See [`mfpo.scenes.captions.faulty_plan`].
    """
    likely = world.contexts[scene.context]
    plan = faulty_plan(scene, likely, rng, absent_rate=absent_rate, drop_rate=drop_rate)
    return plain_talk(DESCRIBE_PROMPTS[rng.integers(len(DESCRIBE_PROMPTS))], realise(plan))


def question(scene: Scene, world: World, rng: np.random.Generator) -> Talk:
    """A question with its true answer, in a sentence or in a word.

    Half of them ask whether a kind is there, and half of those for an absent one.
    """
    item = scene.objects[rng.integers(len(scene.objects))]
    choice, short = rng.integers(4), rng.random() < 0.5
    if choice == 0:
        return plain_talk(colour_question(item.kind), _worded(item.kind, item.colour, short))
    if choice == 1:
        return plain_talk(position_question(item.kind), _worded(item.kind, PHRASES[item.position], short))
    kind = item.kind if rng.random() < 0.5 else absent_kind(scene, world, rng)
    answer = existence_answer(scene, kind)
    return plain_talk(existence_question(kind), answer.split(",")[0] + "." if short else answer)


def checklist(scene: Scene, world: World, rng: np.random.Generator) -> Talk:
    """Kinds in random order, present and absent ones, each followed by what can be seen of it.

    All the present kinds and some absent ones, cut to eight. A kind is given and only what follows it is
    learned, right where the kind is read: the shortest way to learn to look in the picture for what a word
    names. Questions, whose answers come many words after the kind, are learned in a fraction of the steps
    when checklists are learned beside them.
    """
    kinds = list(
        dict.fromkeys(
            [
                *(item.kind for item in scene.objects),
                *(absent_kind(scene, world, rng) for _ in range(CHECKLIST_ABSENT)),
            ]
        )
    )
    colour_first = rng.random() < 0.5
    pieces = []
    for index in rng.permutation(len(kinds))[:CHECKLIST_LENGTH]:
        item = scene.find(kinds[index])
        words = ["no"] if item is None else [item.colour, item.position]
        pieces += [
            (f" {kinds[index]}", False),
            (f" {' '.join(words if colour_first else words[::-1])},", True),
        ]
    return CHECKLIST_PROMPT, tuple(pieces)


def plain_talk(asked: str, answer: str) -> Talk:
    """A conversation whose whole answer is learned."""
    return asked, ((f" {answer}", True),)


def _worded(kind: str, value: str, short: bool) -> str:
    return f"{value.capitalize()}." if short else attribute_answer(kind, value)


def absent_kind(scene: Scene, world: World, rng: np.random.Generator) -> str:
    """A kind that is not in the scene: in half of the cases one that its context makes likely."""
    absent = [name for name in KINDS if name not in scene.kinds]
    weights = np.array([world.contexts[scene.context].get(name, 0.0) for name in absent])
    if rng.random() < 0.5 or not weights.any():
        weights = np.ones(len(absent))
    return absent[rng.choice(len(absent), p=weights / weights.sum())]
