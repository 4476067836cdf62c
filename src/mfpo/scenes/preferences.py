"""Preference rows about scenes: the model's own hallucinating answer against its correction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, partial
from typing import TYPE_CHECKING

import numpy as np

from mfpo.errors import UserError
from mfpo.records import ImageSource, PreferencePair, assistant_message, row_id, user_message
from mfpo.scenes.captions import DESCRIBE_PROMPTS, Plan, faulty_plan, parse_plan, realise
from mfpo.scenes.corrections import corrected, renamed
from mfpo.scenes.examples import absent_kind
from mfpo.scenes.render import Drawing, draw
from mfpo.scenes.world import Scene, World, sample_scene, swap_candidate

if TYPE_CHECKING:
    from mfpo.models.load import VLM

# Answers are sampled for this many scenes at a time.
CHUNK = 512
# Answers in a row that may be of no use before the model counts as unfit.
PATIENCE = 500
_CURES = {
    "not-a-caption": "sample from a model that describes scenes, such as `mfpo scenes --train_model DIR` "
    "trains without --quick, or name none: the rejected answers then come from templates",
    "no-hallucination": "raise --temperature, so that the model errs more, or name none: the rejected "
    "answers then come from templates",
}
_MORE_OBJECTS = (
    "let scenes hold more objects with --max_objects: a correction becomes as long as the answer by naming "
    "objects that the answer overlooked"
)
# Words that the chosen answers may be ahead of the rejected ones, or behind them, all rows so far together.
SLACK = 12


@dataclass(slots=True)
class SceneRow:
    """A preference row with what only the scene world knows of it.

    Attributes:
        pair: The row as any other part of the system sees it.
        scene: What is in its picture.
        drawing: The picture with exact masks.
    """

    pair: PreferencePair
    scene: Scene
    drawing: Drawing


@dataclass(slots=True)
class RowMaker:
    """Makes preference rows from scenes, one after another.

    The correction of an answer with absent objects is often shorter than the answer, and a preference for
    short answers is not what anybody wants to train. So overlooked objects are added to ``chosen`` such that
    the running sum of length differences stays near zero, and an answer that would take it further than
    [`SLACK`] is not used.

    Attributes:
        vlm: Model whose sampled answers are the rejected ones; captions made from templates when None.
        world: The world's difficulty.
        seed: Seed of scenes, sampling and wording.
        split: Split the scenes are from.
        temperature: Sampling temperature.
        faulty_corrections: Share of corrections that put an absent object in place of a present one.
        store_swapped: Also draw each row's picture with one mentioned object swapped, as its rejected image.
        dropped: Why answers were not used, counted.
    """

    vlm: VLM | None = None
    world: World = field(default_factory=World)
    seed: int = 0
    split: str = "train"
    temperature: float = 1.0
    faulty_corrections: float = 0.0
    store_swapped: bool = False
    dropped: Counter[str] = field(default_factory=Counter)
    _words_ahead: int = 0

    def rows(self, num_rows: int) -> Iterator[SceneRow]:
        """The first ``num_rows`` rows; always the same ones for the same settings.

        Raises:
            UserError: [`PATIENCE`] answers in a row could not be used.
        """
        made, start = 0, 0
        at_last_row = self.dropped.copy()
        while made < num_rows:
            scenes = [sample_scene(self.split, i, self.seed, self.world) for i in range(start, start + CHUNK)]
            rng = np.random.default_rng([self.seed, start, 5])
            questions = [DESCRIBE_PROMPTS[rng.integers(len(DESCRIBE_PROMPTS))] for _ in scenes]
            # Only a model has to see the pictures of all scenes.
            drawn = cache(partial(draw, size=self.world.image_size))
            answers = self._answers(scenes, drawn, questions, rng, start)
            for scene, question, answer in zip(scenes, questions, answers, strict=True):
                row = self._row(scene, drawn, question, answer, rng)
                if row is not None:
                    yield row
                    made += 1
                    at_last_row = self.dropped.copy()
                    if made == num_rows:
                        return
                elif (since := self.dropped - at_last_row).total() >= PATIENCE:
                    raise self._unfit(since, made, num_rows)
            start += CHUNK

    def _unfit(self, reasons: Counter[str], made: int, num_rows: int) -> UserError:
        """What to say after [`PATIENCE`] answers that could not be used."""
        counts = ", ".join(f"{count} {reason}" for reason, count in reasons.most_common())
        return UserError(
            f"{reasons.total()} answers in a row cannot be used ({counts}); "
            f"{made} of {num_rows} rows were made before",
            where=self.vlm.name if self.vlm else "templates",
            fix=self._cure(reasons.most_common(1)[0][0]),
        )

    def _cure(self, reason: str) -> str:
        """What to do where most answers cannot be used for that reason."""
        if reason == "lengths-unbalanced":
            return _MORE_OBJECTS
        if self.vlm is None:
            return "make the world easier: fewer objects with --max_objects"
        return _CURES.get(reason, "sample from another model, or name none for templates")

    def _answers(
        self,
        scenes: list[Scene],
        drawn: Callable[[Scene], Drawing],
        questions: list[str],
        rng: np.random.Generator,
        start: int,
    ) -> list[str]:
        if self.vlm is None:
            likely = self.world.contexts
            return [
                realise(faulty_plan(s, likely[s.context], rng, absent_rate=0.55, drop_rate=0.25))
                for s in scenes
            ]
        from mfpo.models.generation import generate

        return generate(
            self.vlm,
            [drawn(scene).image for scene in scenes],
            [user_message(question) for question in questions],
            max_new_tokens=96,
            batch_size=128,
            temperature=self.temperature,
            seed=self.seed * 1_000_003 + start,
        )

    def _row(
        self,
        scene: Scene,
        drawn: Callable[[Scene], Drawing],
        question: str,
        answer: str,
        rng: np.random.Generator,
    ) -> SceneRow | None:
        plan = parse_plan(answer)
        if plan is None:
            self.dropped["not-a-caption"] += 1
            return None
        if all(mention.kind in scene.kinds for mention in plan.mentions):
            self.dropped["no-hallucination"] += 1
            return None
        chosen = self._balanced(plan, scene, answer, rng)
        if chosen is None:
            self.dropped["lengths-unbalanced"] += 1
            return None
        if chosen == answer:
            self.dropped["corrected-to-itself"] += 1
            return None
        drawing = drawn(scene)
        image = ImageSource(path=f"{scene.id}.png", data=drawing.png())
        prompt, good, bad = user_message(question), assistant_message(chosen), assistant_message(answer)
        swapped: tuple[ImageSource, ...] = ()
        if self.store_swapped:
            swapped = (self._swapped(scene, rng),)
        pair = PreferencePair(
            id=row_id([image.read()], prompt, good, bad),
            images=(image,),
            prompt=prompt,
            chosen=good,
            rejected=bad,
            rejected_images=swapped,
            extra={"context": scene.context},
        )
        return SceneRow(pair, scene, drawing)

    def _balanced(self, plan: Plan, scene: Scene, answer: str, rng: np.random.Generator) -> str | None:
        """The correction, with overlooked objects added to balance the lengths; None if none does."""
        best: tuple[int, str] | None = None
        state = rng.bit_generator.state
        for extra in range(len(scene.objects) + 1):
            rng.bit_generator.state = state
            mended = corrected(plan, scene, self.world.contexts[scene.context], rng, extra)
            text = realise(self._annotated(mended, scene))
            ahead = self._words_ahead + len(text.split()) - len(answer.split())
            if best is None or abs(ahead) < abs(best[0]):
                best = ahead, text
        if best is None or abs(best[0]) > SLACK:
            return None
        self._words_ahead = best[0]
        return best[1]

    def _annotated(self, plan: Plan, scene: Scene) -> Plan:
        """What the annotator makes of the correction: the same plan, or one with a mistake of their own."""
        if not self.faulty_corrections:
            return plan
        rng = np.random.default_rng([self.seed, scene.background_seed, 19])
        if rng.random() >= self.faulty_corrections:
            return plan
        kind = plan.mentions[rng.integers(len(plan.mentions))].kind
        likely = self.world.contexts[scene.context]
        return renamed(plan, kind, absent_kind(scene, self.world, rng), likely)

    def _swapped(self, scene: Scene, rng: np.random.Generator) -> ImageSource:
        other = scene.swapped(*swap_candidate(scene, rng, self.world))
        return ImageSource(path=f"{other.id}.png", data=draw(other, self.world.image_size).png())
