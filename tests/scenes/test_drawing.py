"""Sprites and backgrounds: what a small vision model needs in order to tell kinds and colours apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from PIL import Image, ImageOps

from mfpo.scenes.backgrounds import GROUND, WATER, draw_background
from mfpo.scenes.sprites import COLOURS, KINDS, draw_sprite

SIZE = 64


def opaque(kind: str, colour: str, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """Pixels [height, width, 3] and mask [height, width] of the object without its shadow."""
    pixels = np.asarray(draw_sprite(kind, colour, size))
    return pixels[..., :3].astype(float), pixels[..., 3] >= 128


def silhouette(kind: str) -> np.ndarray:
    """The object's mask in the middle of 48 x 48 pixels, its longer side filling them."""
    _, mask = opaque(kind, "red", 128)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    tight = Image.fromarray(mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]).convert("L")
    return np.asarray(ImageOps.pad(tight, (48, 48), Image.Resampling.BOX)) >= 128


def colour_names(rgb: np.ndarray) -> np.ndarray:
    """Colour names of pixels [n, 3], by hue, saturation and brightness alone."""
    hues = {"red": 0, "orange": 29, "yellow": 48, "green": 131, "blue": 218, "purple": 273}
    pixels = np.asarray(Image.fromarray(rgb[None].astype(np.uint8)).convert("HSV"))[0].astype(float)
    hue, saturation, value = pixels[:, 0] * 360 / 256, pixels[:, 1] / 255, pixels[:, 2] / 255
    distance = np.abs((hue[:, None] - list(hues.values()) + 180) % 360 - 180)
    greys = np.where(value > 0.6, "white", np.where(value < 0.45, "black", "grey"))
    return np.where(saturation * value < 0.16, greys, np.array(list(hues))[distance.argmin(1)])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("colour", COLOURS)
def test_a_sprite_is_cropped_opaque_and_mostly_of_its_colour(kind: str, colour: str) -> None:
    sprite = draw_sprite(kind, colour, SIZE)
    assert sprite.mode == "RGBA"
    assert max(sprite.size) == SIZE
    pixels, mask = opaque(kind, colour)
    assert 0.18 < mask.mean() < 0.95
    assert mask.any(0).mean() > 0.95  # nothing but a hair of antialiasing beside the object
    names, counts = np.unique(colour_names(pixels[mask]), return_counts=True)
    shares = dict(zip(names.tolist(), (counts / mask.sum()).tolist(), strict=True))
    own = shares.pop(colour)
    assert own >= 0.5
    assert max(shares.values(), default=0) <= 0.35


def test_no_two_kinds_share_a_silhouette() -> None:
    shapes = {kind: silhouette(kind) for kind in KINDS}
    overlaps = {
        (a, b): (shapes[a] & shapes[b]).sum() / (shapes[a] | shapes[b]).sum()
        for a, b in itertools.combinations(KINDS, 2)
    }
    closest = max(overlaps, key=lambda pair: overlaps[pair])
    assert overlaps[closest] < 0.93, closest


def test_colour_changes_no_silhouette() -> None:
    for kind in KINDS:
        _, reference = opaque(kind, "red")
        assert all((opaque(kind, colour)[1] == reference).all() for colour in COLOURS)


def test_a_sprite_is_the_same_each_time_and_belongs_to_the_caller() -> None:
    first = draw_sprite("mug", "red", 40)
    before = first.tobytes()
    first.paste((0, 0, 0, 0), (0, 0, *first.size))
    assert draw_sprite("mug", "red", 40).tobytes() == before


def test_a_small_sprite_looks_like_a_large_one() -> None:
    for kind in KINDS:
        small = draw_sprite(kind, "blue", 24)
        large = draw_sprite(kind, "blue", 160).resize(small.size, Image.Resampling.BOX)
        difference = np.abs(np.asarray(small, dtype=float) - np.asarray(large, dtype=float))
        assert difference[..., 3].mean() < 12, kind


@pytest.mark.parametrize("context", GROUND)
def test_a_background_is_deterministic_varied_and_muted(context: str) -> None:
    pictures = [np.asarray(draw_background(context, np.random.default_rng(seed), 96)) for seed in range(6)]
    again = np.asarray(draw_background(context, np.random.default_rng(0), 96))
    assert pictures[0].shape == (96, 96, 3)
    assert (pictures[0] == again).all()
    for a, b in itertools.combinations(pictures, 2):
        assert np.abs(a.astype(float) - b).mean() > 3
    for picture in pictures:
        spread = picture.max(-1).astype(float) - picture.min(-1)
        assert spread.max() < 130  # a sprite's red, blue or yellow spans more than 150
        assert 110 < picture.mean() < 235


@pytest.mark.parametrize("context", GROUND)
def test_every_colour_stands_out_from_the_background(context: str) -> None:
    picture = np.asarray(draw_background(context, np.random.default_rng(1), 96)).reshape(-1, 3).astype(float)
    for colour, tones in COLOURS.items():
        contrast = np.maximum(
            np.linalg.norm(picture - tones.base, axis=1), np.linalg.norm(picture - tones.outline, axis=1)
        )
        assert np.quantile(contrast, 0.02) > 60, colour


@pytest.mark.parametrize("context", ["kitchen", "beach", "bedroom"])
def test_the_floor_begins_where_it_is_declared(context: str) -> None:
    """Where rows change most, wall meets floor, sky meets sea or sea meets sand."""
    lines = [GROUND[context]] + ([WATER] if context == "beach" else [])
    for seed in range(12):
        rows = np.asarray(draw_background(context, np.random.default_rng(seed), 100)).mean(1)
        change = [np.abs(rows[y : y + 6].mean(0) - rows[y - 6 : y].mean(0)).sum() for y in range(30, 80)]
        assert min(abs(0.30 + 0.01 * int(np.argmax(change)) - line) for line in lines) < 0.09


@pytest.mark.parametrize("size", [96, 192, 131])
def test_a_background_has_the_size_that_was_asked_for(size: int) -> None:
    assert draw_background("park", np.random.default_rng(0), size).size == (size, size)
