"""Measures of the scene world that `mfpo eval` and `mfpo probe` do not have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mfpo.evaluation.benchmarks.scenes import LIKELY
from mfpo.evaluation.distortion import distortion, distortions
from mfpo.evaluation.mentions.yes_no import yes_or_no
from mfpo.evaluation.results import ScoreResult, score_result
from mfpo.evaluation.statistics import Metric
from mfpo.experiments.measures import Measuring, Subject
from mfpo.models.generation import generate
from mfpo.preferences.regions.masks import box_of, encode_rle
from mfpo.records import (
    ImageSource,
    Keyword,
    Noise,
    PreferencePair,
    Region,
    assistant_message,
    row_id,
    row_seed,
    user_message,
)
from mfpo.scenes.captions import (
    DESCRIBE_PROMPTS,
    PHRASES,
    Mention,
    Plan,
    colour_question,
    existence_question,
    parse,
    position_question,
    realise,
)
from mfpo.scenes.difficulty import load_world
from mfpo.scenes.render import draw, picture_png
from mfpo.scenes.world import COLOURS, KINDS, Scene, World, sample_scene, sample_scenes, swap_candidate

QUESTION_KINDS = ("colour", "position", "present", "absent", "absent_likely")
QUESTION_METRICS = {
    **{
        f"{kind}_question": Metric(f"{kind}_right", kind, better="higher", text=f"right answers: {kind}")
        for kind in QUESTION_KINDS
    },
    "all_questions": Metric("right", "questions", better="higher", text="right answers to all questions"),
}


def world_of(folder: Path | None) -> World:
    """The world of a scene model's folder; the default one when None."""
    return World() if folder is None else load_world(folder)


def questions(measuring: Measuring, subject: Subject) -> ScoreResult:
    """Five questions about each scene: a colour, a place, and whether three kinds are there."""
    world = world_of(subject.world)
    scenes = sample_scenes(measuring.split, measuring.num_items or 1000, world=world)
    asked = [(scene, *one) for scene in scenes for one in _asked(scene, world)]
    answers = generate(
        subject.load(),
        Pictures([scene for scene, *_ in asked], world),
        [user_message(text) for _, text, _, _ in asked],
        max_new_tokens=32,
        batch_size=measuring.batch_size,
    )
    records = [
        {
            "id": f"{scene.id}/{kind}",
            "group": scene.id,
            "questions": 1,
            kind: 1,
            "right": int(_says(answer, truth)),
            f"{kind}_right": int(_says(answer, truth)),
        }
        for (scene, _, kind, truth), answer in zip(asked, answers, strict=True)
    ]
    return score_result("questions", records, QUESTION_METRICS, {"split": measuring.split})


def _asked(scene: Scene, world: World) -> Iterator[tuple[str, str, str | bool]]:
    """Question, kind of question and truth; always the same ones about a scene."""
    rng = np.random.default_rng([scene.background_seed, 29])
    one, other, third = (scene.objects[rng.integers(len(scene.objects))] for _ in range(3))
    yield colour_question(one.kind), "colour", one.colour
    yield position_question(other.kind), "position", PHRASES[other.position]
    yield existence_question(third.kind), "present", True
    table = world.contexts[scene.context]
    absent = [kind for kind in KINDS if kind not in scene.kinds]
    for name, likely in (("absent", False), ("absent_likely", True)):
        kinds = [kind for kind in absent if (table.get(kind, 0.0) >= LIKELY) == likely]
        if kinds:
            yield existence_question(kinds[rng.integers(len(kinds))]), name, False


def _says(answer: str, truth: str | bool) -> bool:
    """Whether an answer is the right one, and not several at once."""
    if isinstance(truth, bool):
        return yes_or_no(answer) == truth
    choices = COLOURS if truth in COLOURS else tuple(PHRASES.values())
    words = f" {answer.lower().rstrip('.')} "
    return [one for one in choices if f" {one} " in words] == [truth]


def matched(measuring: Measuring, subject: Subject) -> ScoreResult:
    """How sure a model is of what it names: how many of its sampled descriptions of a scene name a kind.

    With a threshold k, a scene's description is the kinds that at least k of the samples name. k trades what
    is wrongly named against what is left out, and a curve over k compares models at equal Cover.
    """
    world = world_of(subject.world)
    scenes = sample_scenes(measuring.split, measuring.num_items or 500, world=world)
    prompts = [user_message(DESCRIBE_PROMPTS[i % len(DESCRIBE_PROMPTS)]) for i in range(len(scenes))]
    answers = generate(
        subject.load(),
        Pictures(scenes, world),
        prompts,
        max_new_tokens=96,
        batch_size=measuring.batch_size,
        temperature=1.0,
        num_return_sequences=measuring.samples,
        ids=[scene.id for scene in scenes],
    )
    records = []
    for number, scene in enumerate(scenes):
        mine = answers[number * measuring.samples : (number + 1) * measuring.samples]
        named = Counter(kind for answer in mine for kind in {mention.kind for mention in parse(answer)})
        record: dict[str, Any] = {"id": scene.id, "present": len(scene.objects)}
        for k in range(1, measuring.samples + 1):
            kinds = {kind for kind, count in named.items() if count >= k}
            record |= {f"present@{k}": len(kinds & scene.kinds), f"absent@{k}": len(kinds - scene.kinds)}
        records.append(record)
    settings = {"split": measuring.split, "samples": measuring.samples}
    return score_result("matched", records, matched_metrics(measuring.samples), settings)


def matched_metrics(samples: int) -> dict[str, Metric]:
    """Cover and CHAIR_i at each threshold.

    Args:
        samples: Descriptions of a scene.
    """
    metrics = {}
    for k in range(1, samples + 1):
        metrics[f"Cover, {k} votes"] = Metric(f"present@{k}", "present", better="higher")
        named_kinds: dict[str, float] = {f"present@{k}": 1, f"absent@{k}": 1}
        metrics[f"CHAIR_i, {k} votes"] = Metric(f"absent@{k}", named_kinds, better="lower")
    return metrics


def naming(measuring: Measuring, subject: Subject) -> ScoreResult:
    """A forced choice between two captions that differ in one noun, with that object distorted.

    Chance is 50%, but an exact mask keeps the outline, so the floor is what is left when it is erased.
    """
    world = world_of(subject.world)
    pairs = [naming_pair(index, measuring.split, world) for index in range(measuring.num_items or 500)]
    conditions = distortions(measuring.noise_scopes, measuring.noise_steps)
    found = distortion(subject.load(), pairs, conditions, batch_size=measuring.batch_size, progress=False)
    found.settings["benchmark"] = "naming"
    return found


def naming_pair(index: int, split: str = "validation", world: World | None = None) -> PreferencePair:
    """A scene: ``chosen`` names an object rightly, ``rejected`` plausibly but wrongly."""
    world = world or World()
    scene = sample_scene(split, index, world=world)
    rng = np.random.default_rng([index, 13])
    kind, other = swap_candidate(scene, rng, world)
    drawing = draw(scene, world.image_size)
    mask = drawing.masks[kind]
    colour = next(item.colour for item in scene.objects if item.kind == kind)

    def caption(name: str) -> str:
        return realise(Plan(scene.context, 1, (Mention(name, colour, name=KINDS[name].name),), split=1))

    image = ImageSource(path=f"{scene.id}.png", data=drawing.png())
    prompt = user_message(DESCRIBE_PROMPTS[0])
    right, wrong = assistant_message(caption(kind)), assistant_message(caption(other))
    identifier = row_id([image.read()], prompt, right, wrong)
    return PreferencePair(
        id=identifier,
        images=(image,),
        prompt=prompt,
        chosen=right,
        rejected=wrong,
        keywords=(Keyword(kind, 1.0, ()),),
        regions=(Region(kind, box_of(mask), 1.0, encode_rle(mask), mask.shape),),
        noise=Noise(seed=row_seed(0, identifier)),
    )


class Pictures(Sequence[Image.Image]):
    """Pictures of scenes, drawn when they are asked for.

    Args:
        scenes: The scenes.
        world: The world they are of.
    """

    def __init__(self, scenes: Sequence[Scene], world: World) -> None:
        self.scenes, self.world = scenes, world

    def __len__(self) -> int:
        return len(self.scenes)

    def __getitem__(self, index: Any) -> Any:
        """The picture of a scene, RGB."""
        png = picture_png(self.scenes[index], self.world.image_size)
        return Image.open(BytesIO(png)).convert("RGB")
