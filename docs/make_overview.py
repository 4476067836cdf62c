"""Draw docs/images/overview.png: one preference row, from picture to rejected image.

Run it from anywhere: ``python docs/make_overview.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from mfpo.data.annotations import AnnotatedImage, AnnotatedObject, Annotations
from mfpo.preferences.keywords import KeywordExtractor
from mfpo.preferences.noise import alpha_bars
from mfpo.preferences.regions.given import GivenRegions
from mfpo.preferences.regions.masks import encode_rle, union_mask
from mfpo.preferences.rejected import picture_of, rejected_inputs
from mfpo.records import Keyword, Noise, Region
from mfpo.scenes.captions import DESCRIBE_PROMPTS, faulty_plan, parse, realise
from mfpo.scenes.corrections import corrected
from mfpo.scenes.render import Drawing, draw
from mfpo.scenes.world import CONTEXTS, Scene, sample_scene

OUTPUT = Path(__file__).parent / "images" / "overview.png"
SCENE, WORDING_SEED = ("train", 42), 7
STEPS = (500, 700, 900)

DRAWING_SIDE, MODEL_SIDE = 384, 336
MARGIN, GAP, RADIUS = 28, 16, 12
INK, GREY, RED, WHITE = "#1f2430", "#6b7280", "#d12b2b", "#ffffff"
COLOURS = ("#b07900", "#0b6fb8", "#8a4fbf", "#0e8f6e", "#c2378f")
"""Of the keywords, best first; none is mistaken for the red of what is hallucinated."""


def font(size: int, *, bold: bool = False) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which comes with matplotlib."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / name, size)


LABEL_FONT = font(21, bold=True)


@dataclass(frozen=True)
class Row:
    """What the picture shows: a preference row with its drawing, keywords and regions."""

    scene: Scene
    drawing: Drawing
    question: str
    chosen: str
    rejected: str
    absent: list[tuple[int, int]]
    keywords: tuple[Keyword, ...]
    regions: list[Region]

    @property
    def colours(self) -> dict[str, str]:
        """Colour of each keyword that has a region."""
        found = {region.keyword for region in self.regions}
        located = [keyword.text for keyword in self.keywords if keyword.text in found]
        return dict(zip(located, COLOURS, strict=False))


def make_row(scene: Scene, seed: int) -> Row:
    """A faulty caption of a scene as the rejected answer, its correction as the chosen one; regions."""
    rng = np.random.default_rng(seed)
    faulty = faulty_plan(scene, CONTEXTS[scene.context], rng, absent_rate=0.55, drop_rate=0.25)
    rejected = realise(faulty)
    chosen = realise(corrected(faulty, scene, CONTEXTS[scene.context], rng, extra=len(scene.objects)))
    drawing = draw(scene, DRAWING_SIDE)
    size = DRAWING_SIDE, DRAWING_SIDE
    objects = tuple(
        AnnotatedObject(kind, rle=encode_rle(mask), size=size) for kind, mask in drawing.masks.items()
    )
    backend = GivenRegions(Annotations([AnnotatedImage(scene.id, objects, size=size)]))
    (keywords,) = KeywordExtractor().extract([chosen])
    regions = backend.segment(drawing.image, [keyword.text for keyword in keywords], name=scene.id)
    absent = [(m.start, m.end) for m in parse(rejected) if m.kind not in scene.kinds]
    return Row(scene, drawing, DESCRIBE_PROMPTS[0], chosen, rejected, absent, keywords, regions)


def rejected_pictures(row: Row) -> list[Image.Image]:
    """The rejected image at each step, as the vision tower sees it."""
    processor = CLIPImageProcessorPil(
        size={"shortest_edge": MODEL_SIDE}, crop_size={"height": MODEL_SIDE, "width": MODEL_SIDE}
    )
    pictures = []
    for step in STEPS:
        noise = Noise(scope="region", schedule="vcd", step=step, seed=0)
        made = rejected_inputs(processor, row.drawing.image, row.regions, noise)
        pictures.append(picture_of(processor, made.inputs))
    return pictures


def mask_picture(row: Row) -> Image.Image:
    """The picture in pale grey with every region in its keyword's colour, and the keyword on it."""
    scale = 2  # drawn larger, for smooth outlines
    side = MODEL_SIDE * scale
    pale = row.drawing.image.convert("L").convert("RGB").resize((side, side), Image.Resampling.LANCZOS)
    canvas = Image.blend(pale, Image.new("RGB", pale.size, WHITE), 0.62)
    for region in row.regions:
        mask = Image.fromarray(union_mask([region], region.size)).convert("L")
        mask = mask.resize((side, side), Image.Resampling.LANCZOS).point(lambda value: 255 * (value > 127))
        outline = mask.filter(ImageFilter.MaxFilter(9))
        canvas.paste(WHITE, mask=outline.filter(ImageFilter.MaxFilter(5)))
        canvas.paste(row.colours[region.keyword], mask=outline)
        shaded = Image.blend(pale, Image.new("RGB", pale.size, row.colours[region.keyword]), 0.72)
        canvas.paste(shaded, mask=mask)
    canvas = canvas.resize((MODEL_SIDE, MODEL_SIDE), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(canvas)
    for region, box in zip(row.regions, _label_boxes(row.regions), strict=True):
        pen.rounded_rectangle(box, 8, fill=row.colours[region.keyword], outline=WHITE, width=2)
        middle = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        pen.text(middle, region.keyword, WHITE, LABEL_FONT, anchor="mm")
    return canvas


def _label_boxes(regions: Sequence[Region]) -> list[tuple[int, int, int, int]]:
    """Boxes of the labels, each above or below its region, such that they hide least of one another."""
    covered = np.zeros((MODEL_SIDE, MODEL_SIDE), dtype=int)
    for region in regions:
        mask = Image.fromarray(union_mask([region], region.size)).resize(covered.shape)
        covered += np.asarray(mask)

    def hidden(boxes: Sequence[tuple[int, int, int, int]]) -> int:
        count = covered.copy()
        for left, top, right, bottom in boxes:
            count[top:bottom, left:right] += 10
        return int(count[count > 10].sum())

    choices = product(*([_label_box(region, below) for below in (False, True)] for region in regions))
    return list(min(choices, key=hidden))


def _label_box(region: Region, below: bool) -> tuple[int, int, int, int]:
    """The box of a label inside the picture."""
    scale = MODEL_SIDE / region.size[0]
    width, height = round(LABEL_FONT.getlength(region.keyword)) + 16, 29
    left = round((region.box[0] + region.box[2]) / 2 * scale - width / 2)
    top = round(region.box[3] * scale) + 7 if below else round(region.box[1] * scale) - height - 7
    left, top = (min(max(value, 6), MODEL_SIDE - 6 - side) for value, side in ((left, width), (top, height)))
    return left, top, left + width, top + height


def rounded(picture: Image.Image) -> tuple[Image.Image, Image.Image]:
    """A picture and the mask that rounds its corners."""
    large = Image.new("L", (picture.width * 4, picture.height * 4), 0)
    box = (0, 0, large.width - 1, large.height - 1)
    ImageDraw.Draw(large).rounded_rectangle(box, RADIUS * 4, fill=255)
    return picture, large.resize(picture.size, Image.Resampling.LANCZOS)


def write_marked(
    pen: ImageDraw.ImageDraw, corner: tuple[float, float], text: str, marks: Sequence[tuple[int, int, str]]
) -> None:
    """One line of text; each marked span (start, end, colour) is bold on a tint of its colour."""
    x, y = corner
    position = 0
    for start, end, colour in [*sorted(marks), (len(text), len(text), INK)]:
        plain, marked = text[position:start], text[start:end]
        pen.text((x, y), plain, INK, font(27), anchor="ls")
        x += font(27).getlength(plain)
        if marked:
            width = font(27, bold=True).getlength(marked)
            pen.rounded_rectangle((x - 4, y - 28, x + width + 4, y + 9), 7, fill=tint(colour))
            pen.text((x, y), marked, colour, font(27, bold=True), anchor="ls")
            x += width
        position = end


def tint(colour: str) -> tuple[int, ...]:
    """A colour mixed with much white."""
    channels = (int(colour[index : index + 2], 16) for index in (1, 3, 5))
    return tuple(round(255 - 0.13 * (255 - channel)) for channel in channels)


def compose(row: Row) -> Image.Image:
    """The five panels with their captions, and the three texts beneath."""
    panels = [
        row.drawing.image.resize((MODEL_SIDE, MODEL_SIDE), Image.Resampling.LANCZOS),
        mask_picture(row),
        *rejected_pictures(row),
    ]
    pitch = MODEL_SIDE + GAP
    width = 2 * MARGIN + len(panels) * pitch - GAP
    top = 72
    below = top + MODEL_SIDE
    canvas = Image.new("RGB", (width, below + 238), WHITE)
    pen = ImageDraw.Draw(canvas)
    lefts = [MARGIN + number * pitch for number in range(len(panels))]
    for left, panel in zip(lefts, panels, strict=True):
        picture, corners = rounded(panel)
        canvas.paste(picture, (left, top), corners)

    for left, title in zip(lefts, ("picture m", "keywords → regions"), strict=False):
        pen.text((left + 2, top - 20), title, INK, font(27, bold=True), anchor="ls")
    pen.text((lefts[2] + 2, top - 20), "rejected image m′", INK, font(27, bold=True), anchor="ls")
    pen.text(
        (lefts[2] + 14 + font(27, bold=True).getlength("rejected image m′"), top - 20),
        "diffusion noise inside the regions, nothing else changed",
        GREY,
        font(25),
        anchor="ls",
    )
    bars = alpha_bars("vcd")
    for left, step in zip(lefts[2:], STEPS, strict=True):
        caption, level = f"step {step}", f"ᾱ = {bars[step]:.3f}"
        pen.text((left + 2, below + 36), caption, INK, font(25, bold=True), anchor="ls")
        pen.text((left + MODEL_SIDE - 2, below + 36), level, GREY, font(25), anchor="rs")

    colours = row.colours
    notes = (f"drawn scene {row.scene.id}", f"{len(colours)} of {len(row.keywords)} keywords found")
    for left, note in zip(lefts, notes, strict=False):
        pen.text((left + 2, below + 36), note, GREY, font(22), anchor="ls")
    marks = [
        (start, end, colours.get(keyword.text, GREY))
        for keyword in row.keywords
        for start, end in keyword.spans
    ]
    wrong = [(start, end, RED) for start, end in row.absent]
    lines = (("question", row.question, []), ("chosen", row.chosen, marks), ("rejected", row.rejected, wrong))
    pen.line((MARGIN, below + 62, width - MARGIN, below + 62), "#e3e6ea", 2)
    for number, (name, text, spans) in enumerate(lines):
        y = below + 106 + number * 50
        pen.text((MARGIN + 2, y), name, GREY, font(25), anchor="ls")
        write_marked(pen, (MARGIN + 142, y), text, spans)
    return canvas


def main() -> None:
    """Draw and save the picture."""
    split, index = SCENE
    picture = compose(make_row(sample_scene(split, index), WORDING_SEED))
    OUTPUT.parent.mkdir(exist_ok=True)
    picture.save(OUTPUT, optimize=True)
    print(f"{OUTPUT}: {picture.width} x {picture.height}, {OUTPUT.stat().st_size // 1000} kB")


if __name__ == "__main__":
    main()
