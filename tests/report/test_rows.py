"""A row as the pages show it."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
from page_checks import make_pair
from PIL import Image

from mfpo.records import ImageSource, Noise, PreferencePair
from mfpo.report.rows import default_image_processor, mask_overlay, row_view


@pytest.fixture(scope="module")
def processor() -> Any:
    return default_image_processor()


def decoded(uri: str) -> Image.Image:
    head, _, data = uri.partition(",")
    assert head in ("data:image/png;base64", "data:image/jpeg;base64")
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_without_a_model_pictures_are_336_px_as_for_llava(processor: Any) -> None:
    view = row_view(make_pair(), processor)
    assert {decoded(frame.image).size for frame in view.frames} == {(336, 336)}
    assert not view.pixelated


def test_a_frame_for_every_step_and_the_own_one_among_them(processor: Any) -> None:
    view = row_view(make_pair(noise=Noise(step=650)), processor, steps=(0, 900))
    assert [(frame.label, frame.own) for frame in view.frames] == [
        ("0", False),
        ("650", True),
        ("900", False),
    ]


def test_noise_grows_with_the_step_inside_the_region_only(processor: Any) -> None:
    frames = [
        np.asarray(decoded(f.image), float)
        for f in row_view(make_pair(), processor, steps=(0, 500, 900)).frames
    ]
    clean, *noisy = frames
    # The picture of 96 x 64 is scaled to 504 x 336 and cropped to columns 84..420: the mask is 84..252 by
    # 42..294.
    inside = [np.abs(frame - clean)[90:246, 50:286].mean() for frame in noisy]
    outside = [np.abs(frame - clean)[:70].mean() for frame in noisy]
    assert inside[0] > 15 and inside[1] > 1.5 * inside[0]
    assert max(outside) < 5


def test_the_share_is_of_the_whole_picture(processor: Any) -> None:
    assert row_view(make_pair(), processor).share == pytest.approx(32 * 48 / (64 * 96))


def test_a_row_without_regions_says_that_noise_became_global(processor: Any) -> None:
    pair = make_pair(keywords=())
    view = row_view(pair, processor)
    assert (view.scope, view.asked_scope, view.share) == ("global", "region", 0.0)


@pytest.mark.parametrize("scope", ["crop", "erase", "black"])
def test_scopes_without_noise_have_one_frame(processor: Any, scope: Any) -> None:
    view = row_view(make_pair(noise=Noise(scope=scope)), processor)
    assert [(frame.label, frame.own) for frame in view.frames] == [(scope, True)]
    assert "step" not in view.settings


def test_keywords_are_marked_where_their_spans_are(processor: Any) -> None:
    view = row_view(make_pair("A mug, a mug and a table."), processor)
    marked = [(piece.text, piece.style) for piece in view.chosen if piece.style]
    assert marked == [("mug", "kw k0"), ("mug", "kw k0"), ("table", "kw k1")]
    assert [piece.text for piece in view.rejected if piece.style] != []


def test_keywords_without_a_region_have_no_mask(processor: Any) -> None:
    first, second = row_view(make_pair(), processor).keywords
    assert first.confidence == 0.9 and decoded(first.mask).mode == "P"
    assert second.confidence is None and second.mask == ""


def test_a_picture_that_cannot_be_read_leaves_a_reason(processor: Any) -> None:
    pair = make_pair()
    broken = PreferencePair(pair.id, (ImageSource("gone.png", b""),), pair.prompt, pair.chosen, pair.rejected)
    view = row_view(broken, processor)
    assert "gone.png" in view.problem and view.frames == () and view.image == ""


def test_overlay_is_transparent_outside_and_outlined() -> None:
    mask = np.zeros((40, 40), dtype=bool)
    mask[10:30, 10:30] = True
    alpha = np.asarray(mask_overlay(mask, "#0072b2").convert("RGBA"))[..., 3]
    assert (alpha[~mask] == 0).all() and (alpha[15:25, 15:25] == 110).all() and alpha[10, 20] == 255


def test_a_single_pixel_survives_shrinking() -> None:
    mask = np.zeros((2000, 2000), dtype=bool)
    mask[1234, 567] = True
    overlay = mask_overlay(mask, "#d55e00", max_side=200)
    assert max(overlay.size) == 200
    assert np.asarray(overlay.convert("RGBA"))[..., 3].any()
