"""The scene world as a benchmark: exact ground truth, so hallucination needs no judge.

Two kinds of items about each unseen scene: one request for a description, and two existence questions, one
for an object that is there and one for an object that is not. Metrics have the meaning and the scale of the
official scripts:

- CHAIR_s, CHAIR_i (Rohrbach et al., 2018): share of descriptions that mention an absent object, and share of
  mentions that are of absent objects. CHAIR_s is what AMBER calls Hal.
- Cover (Wang et al., 2023): share of the objects in the pictures that are mentioned.
- Cog: share of the objects of AMBER's "hallu" list that are mentioned. The list of a scene is the absent
  kinds whose probability in its context is at least [`LIKELY`]: what a person who knows the place might
  imagine.

All are micro averages: sums over items are divided, not ratios averaged.

A description item and its counts::

    a kitchen with a red mug and a green plate
    "Describe the image."  ->  "A kitchen with a red mug, a blue plate and a black cat."
    mentions 3, absent_mentions 1, named_present 2 of present 2, coloured 2, colour_right 1
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from mfpo.errors import UserError
from mfpo.evaluation.benchmarks.base import Benchmark, BenchmarkSettings, Item
from mfpo.evaluation.mentions.yes_no import yes_or_no
from mfpo.evaluation.statistics import Metric
from mfpo.scenes.captions import DESCRIBE_PROMPTS, Mention, existence_question, parse
from mfpo.scenes.difficulty import load_world
from mfpo.scenes.examples import absent_kind
from mfpo.scenes.grounding import GroundingItem, grounding_items
from mfpo.scenes.render import picture_png
from mfpo.scenes.world import Scene, World, sample_scene

NUM_SCENES = 1000
LIKELY = 0.3
"""Probability in the context from which an absent kind counts as likely."""
REPETITIVE = 3
"""Mentions of one kind from which a description repeats itself; no caption of SFT mentions one twice."""

_QUESTIONS = 11  # keeps the choice of questions apart from other random choices about the same scene


@dataclass(frozen=True, slots=True)
class Existence:
    """Truth of an existence question.

    Attributes:
        kind: The object asked for.
        present: Whether it is in the picture.
        likely: Whether the context makes it likely.
    """

    kind: str
    present: bool
    likely: bool


class ScenesBenchmark(Benchmark):
    """Descriptions of unseen scenes and yes/no questions about them.

    The scenes are of the default world, or of that of the scene model whose folder ``data_dir`` names.
    """

    name = "scenes"
    max_new_tokens = 96
    metrics: ClassVar[dict[str, Metric]] = {
        "CHAIR_s": Metric(
            "with_absent", "descriptions", better="lower", text="descriptions with an absent object"
        ),
        "CHAIR_i": Metric(
            "absent_mentions", "mentions", better="lower", text="mentions that are of absent objects"
        ),
        "Cover": Metric(
            "named_present", "present", better="higher", text="objects in the picture that are mentioned"
        ),
        "Cog": Metric(
            "named_likely", "likely", better="lower", text="likely but absent objects that are mentioned"
        ),
        "precision": Metric(
            "named_present",
            {"named_present": 1, "named_absent": 1},
            better="higher",
            text="mentioned objects that are there, each counted once a description",
        ),
        "recall": Metric("named_present", "present", better="higher", text="the same as Cover"),
        "F1": Metric(
            {"named_present": 2},
            {"named_present": 1, "named_absent": 1, "present": 1},
            better="higher",
            text="harmonic mean of precision and recall",
        ),
        "colour": Metric("colour_right", "coloured", better="higher", text="right colours among those given"),
        "position": Metric(
            "position_right", "positioned", better="higher", text="right positions among those given"
        ),
        "words": Metric("words", "descriptions", scale=1, text="words a description"),
        "repeats": Metric(
            "repetitive",
            "descriptions",
            better="lower",
            text=f"descriptions that name one object {REPETITIVE} times or more",
        ),
        "yes_no": Metric("right", "questions", better="higher", text="right answers to existence questions"),
        "yes_no_likely": Metric(
            "right_likely",
            "questions_likely",
            better="higher",
            text="the same, absent objects that are likely there",
        ),
        "yes": Metric(
            "said_yes", "questions", text="existence questions answered with yes; 50 would be right"
        ),
    }

    def __init__(self, settings: BenchmarkSettings | None = None, world: World | None = None) -> None:
        super().__init__(settings)
        _check_split(self.settings.split)
        if world is None and self.settings.data_dir is not None:
            world = load_world(Path(self.settings.data_dir))
        self.world = world or World()
        self._loaded: list[Item] = []
        self._scenes: dict[str, Scene] = {}

    def load(self) -> list[Item]:
        """Three items per scene: a description and two existence questions."""
        if not self._loaded:
            for index in range(self.settings.num_samples or NUM_SCENES):
                scene = sample_scene(self.settings.split, index, world=self.world)
                self._scenes[scene.id] = scene
                self._loaded += self._items(scene, index)
        return list(self._loaded)

    def unlimited(self) -> ScenesBenchmark:
        """The usual scenes, or more where more were asked for: there is no end of them."""
        number = max(self.settings.num_samples or NUM_SCENES, NUM_SCENES)
        return type(self)(replace(self.settings, num_samples=number), self.world)

    def _items(self, scene: Scene, index: int) -> list[Item]:
        image = f"{scene.id}.png"
        question = DESCRIBE_PROMPTS[index % len(DESCRIBE_PROMPTS)]
        items = [Item(f"{scene.id}/describe", question, image, "describe", scene.id, scene)]
        rng = np.random.default_rng([index, _QUESTIONS])
        present = scene.objects[rng.integers(len(scene.objects))].kind
        for kind in (present, absent_kind(scene, self.world, rng)):
            truth = Existence(kind, kind in scene.kinds, kind in self.likely_kinds(scene.context))
            items.append(
                Item(f"{scene.id}/exists-{kind}", existence_question(kind), image, "exists", scene.id, truth)
            )
        return items

    def open_image(self, item: Item) -> Image.Image:
        """The drawn scene."""
        self.load()
        scene = self._scenes[item.group]
        return Image.open(BytesIO(picture_png(scene, self.world.image_size))).convert("RGB")

    def likely_kinds(self, context: str) -> frozenset[str]:
        """Kinds that a scene of this context holds with a probability of at least [`LIKELY`]."""
        return frozenset(kind for kind, p in self.world.contexts[context].items() if p >= LIKELY)

    def record(self, item: Item, answer: str, reply: str | None = None) -> dict[str, Any]:
        """Counts of a description or of an answer to an existence question."""
        if isinstance(item.truth, Existence):
            return count_answer(answer, item.truth)
        scene: Scene = item.truth
        objects = {thing.kind: (thing.colour, thing.position) for thing in scene.objects}
        likely = self.likely_kinds(scene.context)
        return {**count_mentions(parse(answer), objects, likely), "words": len(answer.split())}

    def describe(self) -> dict[str, Any]:
        """Settings, with the threshold that Cog depends on."""
        return {
            **super().describe(),
            "num_samples": self.settings.num_samples or NUM_SCENES,
            "likely": LIKELY,
        }


def edited_scenes(
    num_scenes: int = NUM_SCENES, split: str = "test", seed: int = 0
) -> Iterator[GroundingItem]:
    """Drawings with their edits and captions, for the grounding probe.

    Raises:
        UserError: The split is one for training.
    """
    _check_split(split)
    return grounding_items(num_scenes, split, seed)


def count_mentions(
    mentions: Sequence[Mention], objects: Mapping[str, tuple[str, str]], likely: Set[str]
) -> dict[str, Any]:
    """Counts of one description.

    Args:
        mentions: What it mentions, in order; an object mentioned twice counts twice for CHAIR_i, once for the
            others.
        objects: Colour and position of each kind in the picture.
        likely: Kinds that the context makes likely, present or not.

    Returns:
        The counts that [`ScenesBenchmark.metrics`] name, and the character spans of mentions of absent
        objects (``absent_spans``), of present ones (``present_spans``), and of those among them with a wrong
        colour or position (``wrong_spans``).
    """
    named = Counter(mention.kind for mention in mentions)
    absent = [mention for mention in mentions if mention.kind not in objects]
    coloured = [m for m in mentions if m.kind in objects and m.colour is not None]
    positioned = [m for m in mentions if m.kind in objects and m.position is not None]
    miscoloured = [m for m in coloured if m.colour != objects[m.kind][0]]
    misplaced = [m for m in positioned if m.position != objects[m.kind][1]]
    imaginable = likely - objects.keys()
    return {
        "descriptions": 1,
        "with_absent": int(bool(absent)),
        "mentions": len(mentions),
        "absent_mentions": len(absent),
        "present": len(objects),
        "repetitive": int(max(named.values(), default=0) >= REPETITIVE),
        "named_present": len(named.keys() & objects.keys()),
        "named_absent": len(named.keys() - objects.keys()),
        "likely": len(imaginable),
        "named_likely": len(named.keys() & imaginable),
        "coloured": len(coloured),
        "colour_right": len(coloured) - len(miscoloured),
        "positioned": len(positioned),
        "position_right": len(positioned) - len(misplaced),
        "absent_spans": [[m.start, m.end] for m in absent],
        "present_spans": [[m.start, m.end] for m in mentions if m.kind in objects],
        "wrong_spans": [[m.start, m.end] for m in mentions if m in miscoloured or m in misplaced],
    }


def count_answer(answer: str, truth: Existence) -> dict[str, Any]:
    """Counts of one answer to an existence question; one that begins with neither yes nor no is wrong."""
    said = yes_or_no(answer)
    right = int(said is not None and said == truth.present)
    counts = {"questions": 1, "right": right, "said_yes": int(said is True)}
    if truth.likely and not truth.present:
        counts |= {"questions_likely": 1, "right_likely": right}
    return counts


def _check_split(split: str) -> None:
    if split not in ("validation", "test"):
        raise UserError(
            f"scenes of the split {split!r} are for training",
            where="--split",
            fix="choose validation or test",
        )
