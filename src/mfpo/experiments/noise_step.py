"""At which diffusion step does an object of a scene become hard to name?

A forced choice between two captions that differ in one noun: the object that is there and one that could
stand in its place, with noise on that object alone. Chance is 50%, but an exact mask keeps the outline, so
the floor is what is left when the object is erased. The demo uses the step that takes half of the way there.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mfpo.data.files import write_atomic
from mfpo.evaluation.compare import show
from mfpo.evaluation.probes import Distortion, distortion
from mfpo.experiments.config import ExperimentConfig
from mfpo.experiments.workbench import Workbench
from mfpo.models.load import load_vlm
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
from mfpo.scenes.captions import DESCRIBE_PROMPTS, Mention, Plan, realise
from mfpo.scenes.render import draw
from mfpo.scenes.world import KINDS, sample_scene, swap_candidate

STEPS = (300, 500, 600, 700, 800, 900, 999)


def run(config: ExperimentConfig) -> None:
    """Measure the curve on validation scenes; write ``noise_step.json`` and ``noise_step.md``."""
    folder = Path(config.output_dir) / "noise_step"
    vlm = load_vlm(
        str(Workbench(folder, cache_dir=config.cache_dir, quick=config.quick).llava()), device="cpu"
    )
    pairs = [naming_pair(index) for index in range(40 if config.quick else 500)]
    conditions = [Distortion(scope, step) for scope in ("region", "global") for step in STEPS]
    conditions += [Distortion("erase"), Distortion("black")]
    result = distortion(vlm, pairs, conditions, batch_size=128)
    result.save(folder / "noise_step.json")
    lines = ["| distortion | right name preferred, % | 95% interval |", "| --- | --- | --- |"]
    for name in ("clean", *(condition.name for condition in conditions)):
        low, high = result.intervals[name]
        lines.append(f"| {name} | {result.metrics[name]:.1f} | {low:.1f} to {high:.1f} |")
    write_atomic(folder / "noise_step.md", "\n".join(lines) + "\n")
    show([("naming", result)])


def naming_pair(index: int) -> PreferencePair:
    """A validation scene: ``chosen`` names an object rightly, ``rejected`` plausibly but wrongly."""
    scene = sample_scene("validation", index)
    rng = np.random.default_rng([index, 13])
    kind, other = swap_candidate(scene, rng)
    drawing = draw(scene)
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
