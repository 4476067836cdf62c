"""A dataset row as the pages show it: pictures, masks, rejected images and marked texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from mfpo.data.folder import open_dataset
from mfpo.data.images import open_image
from mfpo.errors import RowError, UserError
from mfpo.preferences.noise import FEATHERED_SCOPES, NOISY_SCOPES, noise_level
from mfpo.preferences.regions.masks import decode_rle, union_mask
from mfpo.preferences.rejected import picture_of, rejected_inputs, stored_rejected
from mfpo.records import ImageSource, Keyword, Noise, PreferencePair, Region, text_of
from mfpo.report.crop import seen_in_words, seen_part
from mfpo.report.marks import Mark, Piece, changed_words, pieces
from mfpo.report.page import KEYWORD_COLOURS, data_uri

NOISE_STEPS = (0, 300, 500, 700, 900)
PICTURE_SIDE = 448
# Below this size JPEG artefacts are as large as what is drawn.
_SMALL = 160
_SCOPE_TEXT = {
    "crop": "a random crop, stretched to the picture's size",
    "erase": "the regions filled from their surroundings",
    "swap": "another object in the place of one",
    "black": "a black picture",
}


@dataclass(frozen=True, slots=True)
class KeywordView:
    """A keyword in the legend.

    Attributes:
        text: The keyword.
        colour: Index into the page's keyword colours.
        score: Its rank.
        confidence: Confidence of its best region; None where nothing was found.
        area: Share of the picture that its mask covers, in [0, 1].
        mask: ``data:`` URI of its mask, transparent elsewhere; empty where nothing was found.
    """

    text: str
    colour: int
    score: float
    confidence: float | None
    area: float
    mask: str


@dataclass(frozen=True, slots=True)
class Frame:
    """The rejected image at one strength of the noise.

    Attributes:
        label: What the switch says: the step, or the scope where there are no steps.
        caption: Noise level in words.
        image: ``data:`` URI.
        own: Whether training uses this one.
    """

    label: str
    caption: str
    image: str
    own: bool


@dataclass(frozen=True, slots=True)
class RowView:
    """A row ready for the template.

    Attributes:
        number: 1-based position in the dataset.
        id: The row's id.
        image: ``data:`` URI of the picture; empty where it cannot be read.
        image_name: Name of its file.
        size: (width, height) of the picture in pixels.
        problem: Why there are no pictures, for people.
        keywords: The legend, by rank.
        frames: The rejected image, one for each noise step.
        seen: Which part of the picture the model sees, in words; empty where it sees all of it.
        pixelated: Whether the model's input is so small that its pixels should stay visible.
        prompt: The question.
        chosen: The chosen answer with its keywords marked.
        rejected: The rejected answer, with what the chosen one doesn't say marked.
        scope: What is perturbed.
        asked_scope: What the row asks for, where that differs from ``scope``.
        share: Share of the picture that its regions cover, in [0, 1].
        settings: The noise settings in words, by name.
        extra: Further columns of the source in words, by name.
    """

    number: int
    id: str
    image: str
    image_name: str
    size: tuple[int, int]
    problem: str
    keywords: tuple[KeywordView, ...]
    frames: tuple[Frame, ...]
    seen: str
    pixelated: bool
    prompt: str
    chosen: tuple[Piece, ...]
    rejected: tuple[Piece, ...]
    scope: str
    asked_scope: str
    share: float
    settings: dict[str, str]
    extra: dict[str, str]


def default_image_processor(model_name_or_path: str | None = None) -> Any:
    """The image processor of a model, or the one of CLIP ViT-L/14 at 336 px (LLaVA-1.5) without one.

    Raises:
        UserError: Nothing can be opened under that name.
    """
    if model_name_or_path is not None:
        from mfpo.models.load import load_processor

        return load_processor(model_name_or_path).image_processor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})


def dataset_rows(
    folder: str | Path, image_processor: Any, max_rows: int, *, steps: Sequence[int] = NOISE_STEPS
) -> tuple[list[RowView], int]:
    """Rows of a dataset folder ready for the page, spread evenly over the dataset.

    Args:
        folder: Dataset folder.
        image_processor: Renders the rejected images.
        max_rows: Rows at most.
        steps: Noise steps to show.

    Returns:
        The rows, and how many the dataset has.
    """
    dataset = open_dataset(folder)
    picked = spread(len(dataset), max_rows)
    views = [row_view(dataset[index], image_processor, number=index + 1, steps=steps) for index in picked]
    return views, len(dataset)


def spread(total: int, most: int) -> list[int]:
    """Positions of ``most`` things at most, spread evenly over ``total``."""
    count = min(total, max(0, most))
    return [index * total // count for index in range(count)]


def row_view(
    pair: PreferencePair, image_processor: Any, *, number: int = 1, steps: Sequence[int] = NOISE_STEPS
) -> RowView:
    """Prepare a row for its template.

    A picture that cannot be read leaves a row with a reason instead of pictures.

    Args:
        pair: The row.
        image_processor: Renders the rejected images as the model gets them.
        number: 1-based position in the dataset.
        steps: Noise steps to show; the row's own is always among them.
    """
    chosen = text_of(pair.chosen)
    source = pair.images[pair.noise.image] if pair.noise.image < len(pair.images) else ImageSource()
    picture: Image.Image | None = None
    frames: tuple[Frame, ...] = ()
    scope, share, seen, pixelated, problem = str(pair.noise.scope), 0.0, "", False, ""
    try:
        picture = open_image(source)
        share = float(union_mask(pair.regions, (picture.height, picture.width)).mean())
        frames, scope, pixelated = _frames(pair, picture, image_processor, steps)
        part = seen_part(image_processor, picture.size)
        seen = seen_in_words(part) if part else ""
    except (RowError, UserError, ValueError) as error:
        problem = str(error)
    return RowView(
        number=number,
        id=pair.id,
        image=_embedded(picture) if picture else "",
        image_name=source.path or "",
        size=picture.size if picture else (0, 0),
        problem=problem,
        keywords=tuple(_keyword_view(k, i, pair.regions) for i, k in enumerate(pair.keywords)),
        frames=frames,
        seen=seen,
        pixelated=pixelated,
        prompt=text_of(pair.prompt),
        chosen=tuple(pieces(chosen, _keyword_marks(pair.keywords))),
        rejected=tuple(pieces(text_of(pair.rejected), changed_words(chosen, text_of(pair.rejected)))),
        scope=scope,
        asked_scope=pair.noise.scope if pair.noise.scope != scope else "",
        share=share,
        settings=_settings(pair.noise),
        extra={name: str(value) for name, value in pair.extra.items() if value not in (None, "")},
    )


def mask_overlay(mask: np.ndarray, colour: str, max_side: int = PICTURE_SIDE) -> Image.Image:
    """A mask as a tinted area with a solid outline, transparent elsewhere.

    Args:
        mask: bool ``[height, width]``.
        colour: ``#rrggbb``.
        max_side: Longer side of the result in pixels at most; no region vanishes on the way.

    Returns:
        A palette picture with three colours: nothing, tint, outline.
    """
    covered = shrunk_mask(mask, max_side)
    size = covered.shape[1], covered.shape[0]
    outline = covered & ~_eroded(covered, max(1, round(max(size) / 224)))
    levels = covered.astype(np.uint8) + outline
    overlay = Image.frombytes("P", size, levels.tobytes())
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    overlay.putpalette([0, 0, 0, *[red, green, blue] * 2])
    overlay.info["transparency"] = bytes([0, 110, 255])
    return overlay


def shrunk_mask(mask: np.ndarray, max_side: int) -> np.ndarray:
    """A mask at the size at which it is shown.

    Args:
        mask: bool ``[height, width]``.
        max_side: Longer side of the result in pixels at most; no region vanishes on the way.
    """
    scale = min(1.0, max_side / max(mask.shape))
    size = max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale))
    small = Image.fromarray(mask.astype(np.uint8) * np.uint8(255)).resize(size, Image.Resampling.BOX)
    coverage = np.asarray(small)
    return coverage > (127 if (coverage > 127).any() else 0)


def _eroded(mask: np.ndarray, width: int) -> np.ndarray:
    """The mask without a border of ``width`` pixels; the picture's edge counts as outside."""
    for _ in range(width):
        padded = np.pad(mask, 1)
        mask = mask & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask


def _frames(
    pair: PreferencePair, picture: Image.Image, image_processor: Any, steps: Sequence[int]
) -> tuple[tuple[Frame, ...], str, bool]:
    """The rejected image at every step, the scope that came out, and whether the model's input is small."""
    noise = pair.noise
    if noise.scope not in NOISY_SCOPES:
        stored = open_image(stored_rejected(pair)) if pair.rejected_images else None
        made = rejected_inputs(image_processor, picture, pair.regions, noise, stored)
        shown = picture_of(image_processor, made.inputs)
        return (
            (Frame(noise.scope, _SCOPE_TEXT[noise.scope], _embedded(shown), own=True),),
            made.scope,
            _small(shown),
        )
    clean = dict(image_processor(images=[picture], return_tensors="pt"))
    frames = []
    for step in sorted({*steps, noise.step}):
        made = rejected_inputs(image_processor, picture, pair.regions, replace(noise, step=step), clean=clean)
        shown = picture_of(image_processor, made.inputs)
        level = noise_level(noise.schedule, step)
        caption = f"signal × {level.signal:.2f}, noise σ {level.sigma:.2f}"
        frames.append(Frame(str(step), caption, _embedded(shown, quality=72), own=step == noise.step))
    return tuple(frames), made.scope, _small(shown)


def _keyword_view(keyword: Keyword, rank: int, regions: Sequence[Region]) -> KeywordView:
    own = [region for region in regions if region.keyword == keyword.text]
    colour = rank % len(KEYWORD_COLOURS)
    if not own:
        return KeywordView(keyword.text, colour, keyword.score, None, 0.0, "")
    mask = np.logical_or.reduce([decode_rle(region.rle, region.size) for region in own])
    return KeywordView(
        text=keyword.text,
        colour=colour,
        score=keyword.score,
        confidence=max(region.score for region in own),
        area=float(mask.mean()),
        mask=data_uri(mask_overlay(mask, KEYWORD_COLOURS[colour]), lossless=True),
    )


def _keyword_marks(keywords: Sequence[Keyword]) -> list[Mark]:
    return [
        Mark(
            start, end, f"kw k{rank % len(KEYWORD_COLOURS)}", f"keyword {rank + 1}, rank {keyword.score:.3f}"
        )
        for rank, keyword in enumerate(keywords)
        for start, end in keyword.spans
    ]


def _embedded(picture: Image.Image, quality: int = 82) -> str:
    return data_uri(picture, PICTURE_SIDE, lossless=_small(picture), quality=quality)


def _small(picture: Image.Image) -> bool:
    return max(picture.size) <= _SMALL


def _settings(noise: Noise) -> dict[str, str]:
    settings = {"scope": str(noise.scope)}
    if noise.scope in NOISY_SCOPES:
        settings |= {"schedule": str(noise.schedule), "step": str(noise.step)}
    if noise.feather and noise.scope in FEATHERED_SCOPES:
        settings["feather"] = f"{noise.feather:g}"
    if noise.scope == "random":
        settings["fraction"] = f"{noise.fraction:g}"
    if noise.box is not None:
        settings["box"] = ", ".join(f"{value:.0f}" for value in noise.box)
    return settings | {"seed": str(noise.seed)}
