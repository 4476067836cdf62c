"""What a scene is made of: contexts, kinds of objects, colours, and how often they occur together.

A scene is plain data, sampled without drawing anything. Its random generator depends on the split, the seed
and the scene's index only, so a scene is the same whichever process makes it and however many others are
made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

import numpy as np

from mfpo.errors import UserError, nearest

Position: TypeAlias = Literal["left", "middle", "right"]
Zone: TypeAlias = Literal["stand", "sky", "water"]

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "white", "black")
POSITIONS: tuple[Position, ...] = ("left", "middle", "right")

# Splits never share a scene: "sft" trains the small LLaVA, "train" gives preference rows.
SPLITS = {"sft": 11, "train": 23, "validation": 37, "test": 53}

# Centres of the three positions keep clear of the borders between them, so that "left" is never a matter of
# taste.
BORDERS = (0.38, 0.62)
_CENTRES: dict[Position, tuple[float, float]] = {
    "left": (0.13, 0.34),
    "middle": (0.42, 0.58),
    "right": (0.66, 0.87),
}

# A scene that needs more is as good as impossible: the first takes about a second, the second two minutes.
_DRAWS = 100_000
_PLACEMENTS = 2_000


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object.

    Attributes:
        name: Its usual name, which is also its label in annotations.
        names: All names it goes by in captions, the usual one first.
        zone: Where it can be: standing on the ground, in the sky, on the water.
        size: Its larger side as a share of the picture's side, typically.
    """

    name: str
    names: tuple[str, ...]
    zone: Zone = "stand"
    size: float = 0.3


def _kinds(*kinds: Kind) -> dict[str, Kind]:
    return {kind.name: kind for kind in kinds}


KINDS: dict[str, Kind] = _kinds(
    Kind("mug", ("mug", "cup"), size=0.24),
    Kind("plate", ("plate", "dish"), size=0.27),
    Kind("bottle", ("bottle",), size=0.33),
    Kind("apple", ("apple",), size=0.22),
    Kind("pot", ("pot",), size=0.30),
    Kind("knife", ("knife",), size=0.29),
    Kind("car", ("car",), size=0.36),
    Kind("bus", ("bus",), size=0.39),
    Kind("bicycle", ("bicycle", "bike"), size=0.33),
    Kind("sign", ("sign",), size=0.35),
    Kind("tree", ("tree",), size=0.39),
    Kind("dog", ("dog",), size=0.29),
    Kind("bench", ("bench",), size=0.33),
    Kind("kite", ("kite",), zone="sky", size=0.28),
    Kind("flower", ("flower",), size=0.29),
    Kind("ball", ("ball",), size=0.22),
    Kind("boat", ("boat", "sailboat"), zone="water", size=0.32),
    Kind("umbrella", ("umbrella", "parasol"), size=0.35),
    Kind("bucket", ("bucket", "pail"), size=0.24),
    Kind("chair", ("chair",), size=0.33),
    Kind("lamp", ("lamp",), size=0.32),
    Kind("clock", ("clock",), size=0.23),
    Kind("book", ("book",), size=0.24),
    Kind("cat", ("cat",), size=0.27),
)

# Probability that a scene of the context holds the kind; kinds not listed do not occur there.
CONTEXTS: dict[str, dict[str, float]] = {
    "kitchen": {
        "mug": 0.8, "plate": 0.65, "pot": 0.55, "bottle": 0.5, "apple": 0.4, "knife": 0.35, "chair": 0.25,
        "clock": 0.25, "flower": 0.15, "cat": 0.15, "book": 0.1, "lamp": 0.05, "bucket": 0.05,
    },
    "street": {
        "car": 0.8, "bus": 0.5, "sign": 0.65, "bicycle": 0.5, "tree": 0.4, "dog": 0.3, "umbrella": 0.15,
        "bench": 0.2, "cat": 0.1, "clock": 0.1, "ball": 0.05, "flower": 0.05,
    },
    "park": {
        "tree": 0.8, "bench": 0.65, "dog": 0.5, "kite": 0.4, "ball": 0.5, "flower": 0.5, "bicycle": 0.35,
        "cat": 0.15, "sign": 0.15, "umbrella": 0.1, "book": 0.1, "bottle": 0.05,
    },
    "beach": {
        "umbrella": 0.8, "boat": 0.65, "bucket": 0.6, "ball": 0.5, "kite": 0.4, "chair": 0.35, "dog": 0.25,
        "bottle": 0.15, "book": 0.15, "sign": 0.1, "apple": 0.05, "bicycle": 0.05,
    },
    "bedroom": {
        "lamp": 0.8, "book": 0.65, "clock": 0.55, "chair": 0.5, "cat": 0.4, "flower": 0.35, "mug": 0.35,
        "ball": 0.15, "dog": 0.15, "plate": 0.1, "bottle": 0.1, "apple": 0.1, "kite": 0.05,
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class World:
    """The world's difficulty, which the experiments vary.

    Attributes:
        contexts: Probability of each kind in each context.
        min_objects: Fewest objects in a scene.
        max_objects: Most objects in a scene.
        image_size: Side of the pictures in pixels.
    """

    contexts: dict[str, dict[str, float]] = field(default_factory=lambda: CONTEXTS)
    min_objects: int = 2
    max_objects: int = 6
    image_size: int = 192


@dataclass(frozen=True, slots=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        kind: Key of [`KINDS`].
        colour: One of [`COLOURS`].
        position: Third of the picture its centre is in.
        x: Horizontal centre as a share of the picture's side.
        y: Lower edge as a share of the picture's side.
        size: Larger side as a share of the picture's side.
    """

    kind: str
    colour: str
    position: Position
    x: float
    y: float
    size: float


@dataclass(frozen=True, slots=True)
class Scene:
    """A scene, not yet drawn.

    Attributes:
        id: Unique name, such as ``test-0-000017``.
        context: Key of the world's contexts.
        objects: What is in it, the farthest first; each kind at most once.
        background_seed: Seed of the background's variation.
    """

    id: str
    context: str
    objects: tuple[SceneObject, ...]
    background_seed: int

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds that are in the picture."""
        return frozenset(item.kind for item in self.objects)

    def find(self, kind: str) -> SceneObject | None:
        """The object of that kind, if there is one."""
        return next((item for item in self.objects if item.kind == kind), None)

    def without(self, kind: str) -> Scene:
        """The same scene with that object taken out."""
        return replace(
            self, id=f"{self.id}-without-{kind}", objects=tuple(o for o in self.objects if o.kind != kind)
        )

    def swapped(self, kind: str, other: str) -> Scene:
        """The same scene with another kind of object, of the same colour, in that object's place."""
        objects = tuple(replace(o, kind=other) if o.kind == kind else o for o in self.objects)
        return replace(self, id=f"{self.id}-{kind}-to-{other}", objects=objects)


def sample_scene(split: str, index: int, seed: int = 0, world: World | None = None) -> Scene:
    """One scene of a split.

    Args:
        split: ``sft``, ``train``, ``validation`` or ``test``; scenes of two splits never coincide.
        index: Number of the scene within the split.
        seed: Seed of the split.
        world: The world's difficulty; the default world when None.

    Raises:
        UserError: There is no such split, or no scene of the world could be drawn.
    """
    if split not in SPLITS:
        raise UserError(f"no split {split!r}", where="--split", fix=nearest(split, SPLITS))
    world = world or World()
    rng = np.random.default_rng([SPLITS[split], seed, index])
    context = list(world.contexts)[rng.integers(len(world.contexts))]
    objects = _sample_objects(world, context, rng)
    return Scene(f"{split}-{seed}-{index:06d}", context, objects, int(rng.integers(2**31)))


def sample_scenes(split: str, num_scenes: int, seed: int = 0, world: World | None = None) -> list[Scene]:
    """The first scenes of a split, see [`sample_scene`]."""
    return [sample_scene(split, index, seed, world) for index in range(num_scenes)]


def swap_candidate(scene: Scene, rng: np.random.Generator, world: World | None = None) -> tuple[str, str]:
    """An object of the scene and an absent kind that could stand in its place.

    The newcomer needs the same zone and is drawn by its probability in the context, with a floor of 0.05, so
    that most swaps are plausible and the caption cannot be told right or wrong from the context alone.

    Returns:
        (kind in the scene, absent kind). The newcomer may come from another zone if no kind of the same is
        absent.
    """
    world = world or World()
    kind = scene.objects[rng.integers(len(scene.objects))].kind
    absent = [name for name in KINDS if name not in scene.kinds]
    same_zone = [name for name in absent if KINDS[name].zone == KINDS[kind].zone] or absent
    weights = np.array([max(world.contexts[scene.context].get(name, 0.0), 0.05) for name in same_zone])
    return kind, same_zone[rng.choice(len(same_zone), p=weights / weights.sum())]


def _sample_objects(world: World, context: str, rng: np.random.Generator) -> tuple[SceneObject, ...]:
    """Objects drawn and placed, again until enough of them find room.

    Raises:
        UserError: They did not in [`_PLACEMENTS`] tries.
    """
    for _ in range(_PLACEMENTS):
        objects = _place(_choose_kinds(world, context, rng), rng)
        if len(objects) >= world.min_objects:
            return objects
    raise UserError(
        f"{world.min_objects} objects found no room in a {context}, {_PLACEMENTS:,} times",
        where=f"--min_objects {world.min_objects}",
        fix="lower --min_objects; up to 6 find room easily",
    )


def _choose_kinds(world: World, context: str, rng: np.random.Generator) -> list[str]:
    """Kinds drawn independently by their probability, until their number is within the world's bounds.

    Raises:
        UserError: It was not in [`_DRAWS`] tries.
    """
    table = world.contexts[context]
    names, probabilities = list(table), np.array(list(table.values()))
    for _ in range(_DRAWS):
        kinds = [name for name, hit in zip(names, rng.random(len(names)) < probabilities, strict=True) if hit]
        if world.min_objects <= len(kinds) <= world.max_objects:
            return [kinds[i] for i in rng.permutation(len(kinds))]
    raise UserError(
        f"of {_DRAWS:,} scenes drawn for the {context} none has so many objects",
        where=f"--min_objects {world.min_objects} --max_objects {world.max_objects}",
        fix="let scenes hold 2 to 6 objects, as by default, or choose bounds around these",
    )


def _place(kinds: Sequence[str], rng: np.random.Generator) -> tuple[SceneObject, ...]:
    """Give each kind a colour and a place that hides no other; crowded scenes are drawn a little smaller.

    A kind that finds no room in any of the layouts tried is left out, which is rare.
    """
    colours = [COLOURS[i] for i in rng.integers(len(COLOURS), size=len(kinds))]
    best: list[SceneObject] = []
    for layout in range(12):
        placed: list[SceneObject] = []
        for name, colour in zip(kinds, colours, strict=True):
            for _ in range(25):
                candidate = _random_object(name, colour, rng, shrink=1.0 - 0.02 * layout)
                if all(_overlap(candidate, other) < 0.12 for other in placed):
                    placed.append(candidate)
                    break
        best = max(best, placed, key=len)
        if len(best) == len(kinds):
            break
    return tuple(sorted(best, key=lambda item: item.y))


def _random_object(name: str, colour: str, rng: np.random.Generator, shrink: float) -> SceneObject:
    kind = KINDS[name]
    position = POSITIONS[rng.integers(3)]
    size = shrink * kind.size * rng.uniform(0.9, 1.1)
    x = rng.uniform(*_CENTRES[position])
    y = _lower_edge(kind.zone, size, rng)
    if kind.zone == "stand":
        size *= 0.8 + 0.25 * y  # nearer objects look larger
    half = size / 2 + 0.01
    return SceneObject(name, colour, position, float(min(max(x, half), 1 - half)), y, size)


def _lower_edge(zone: Zone, size: float, rng: np.random.Generator) -> float:
    if zone == "sky":
        return size + rng.uniform(0.03, 0.18)
    if zone == "water":
        return rng.uniform(0.48, 0.58)
    return rng.uniform(0.62, 0.97)


def _overlap(a: SceneObject, b: SceneObject) -> float:
    """Shared area as a share of the smaller object's square."""
    width = min(a.x + a.size / 2, b.x + b.size / 2) - max(a.x - a.size / 2, b.x - b.size / 2)
    height = min(a.y, b.y) - max(a.y - a.size, b.y - b.size)
    return max(width, 0.0) * max(height, 0.0) / min(a.size, b.size) ** 2
