"""A row as the page of ``mfpo browse`` gets it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from page_checks import make_pair, picture
from PIL import Image

from mfpo.data.images import open_image
from mfpo.preferences.regions.masks import decode_rle, encode_rle, union_mask
from mfpo.preferences.rejected import picture_of, rejected_inputs
from mfpo.records import ImageSource, Keyword, Noise, PreferencePair
from mfpo.report.browser.records import BrowseRow, RowPictures
from mfpo.report.browser.rows import Rank, RowMaker
from mfpo.report.page import embedded_json
from mfpo.report.rows import default_image_processor


@pytest.fixture(scope="module")
def processor() -> Any:
    return default_image_processor()


def made(
    processor: Any,
    pair: PreferencePair,
    *,
    size: int = 448,
    exact: bool = True,
    asked: str = "",
    **ranks: Rank,
) -> tuple[BrowseRow, RowPictures, dict[str, Image.Image]]:
    images: dict[str, Image.Image] = {}

    def embed(image: Image.Image, name: str) -> str:
        images[name] = image
        return name

    row, pictures = RowMaker(processor, size, exact, asked, ranks).make(pair, 1, embed)
    return row, pictures, images


def test_the_exact_image_is_the_one_of_training(processor: Any) -> None:
    pair = make_pair(noise=Noise(step=700, seed=11))
    _, pictures, images = made(processor, pair)
    original = open_image(pair.images[0])
    expected = picture_of(processor, rejected_inputs(processor, original, pair.regions, pair.noise).inputs)
    assert (np.asarray(images["rejected"]) == np.asarray(expected)).all()
    assert pictures.exact is not None and (pictures.exact.width, pictures.exact.height) == (336, 336)


def test_the_preview_is_at_the_models_scale(processor: Any) -> None:
    # 96 x 64 is scaled until its shorter side has 336 pixels.
    assert made(processor, make_pair())[1].view == (504, 336)


def test_masks_shrink_with_the_pictures(processor: Any) -> None:
    _, pictures, images = made(processor, make_pair(), size=48)
    assert images["image1"].size == (48, 32) and pictures.mask_size == (32, 48)
    mask = decode_rle(pictures.masks[0], pictures.mask_size)
    expected = np.zeros((32, 48), dtype=bool)
    expected[8:24, 12:36] = True
    assert (mask == expected).all() and pictures.masks[1] == ""


def test_only_noise_with_an_edge_fades(processor: Any) -> None:
    noises = [Noise(feather=0.2), Noise("random", feather=0.2), Noise("global", feather=0.2), Noise()]
    assert [made(processor, make_pair(noise=noise))[0].noise.feather for noise in noises] == [0.2, 0.2, 0, 0]
    fallen_back = replace(make_pair(noise=noises[0]), regions=())
    assert made(processor, fallen_back)[0].noise.feather == 0


def test_the_part_that_the_model_sees_is_told(processor: Any) -> None:
    _, pictures, _ = made(processor, make_pair())
    assert pictures.seen == pytest.approx((1 / 6, 0, 5 / 6, 1), abs=0.01)
    square = replace(make_pair(), images=(picture((64, 64)),), regions=())
    assert made(processor, square)[1].seen is None and made(processor, square)[1].seen_words == ""


def test_a_random_box_has_its_share(processor: Any) -> None:
    _, pictures, _ = made(processor, make_pair(noise=Noise("random", seed=4, fraction=0.3)))
    assert decode_rle(pictures.place, pictures.mask_size).mean() == pytest.approx(0.3, abs=0.03)


def test_without_exact_images_none_is_rendered(processor: Any) -> None:
    row, pictures, images = made(processor, make_pair(), exact=False)
    assert pictures.exact is None and set(images) == {"image1"} and row.problem == ""


def test_a_fallback_needs_another_scope_to_have_been_asked_for(processor: Any) -> None:
    pair = replace(make_pair(noise=Noise("global"), keywords=()), regions=())
    assert made(processor, pair, asked="region")[0].noise.fallback == "the answer has no keywords"
    assert made(processor, pair, asked="global")[0].noise.fallback == ""


def test_regions_that_the_centre_crop_cuts_away_are_said_so(processor: Any) -> None:
    pair = make_pair()
    mask = np.zeros((64, 96), dtype=bool)
    mask[:, :10] = True
    region = replace(pair.regions[0], rle=encode_rle(mask))
    row, *_ = made(processor, replace(pair, regions=(region,)), asked="region")
    assert (row.noise.scope, row.noise.fallback) == ("global", "the centre crop cuts the regions away")


def test_stored_rejected_images_come_along(processor: Any) -> None:
    pair = replace(make_pair(), rejected_images=(picture((30, 20), seed=9),))
    _, pictures, images = made(processor, pair)
    assert pictures.stored is not None and images["stored"].size == (30, 20)


@pytest.mark.parametrize("data", [b"", b"no image", picture().read()[:60]])
def test_a_broken_picture_leaves_texts_and_a_reason(processor: Any, data: bytes) -> None:
    row, pictures, _ = made(processor, replace(make_pair(), images=(ImageSource("x.png", data),)))
    assert "x.png" in row.problem and pictures.images == (None,) and row.chosen


def test_damaged_masks_and_settings_leave_the_picture(processor: Any) -> None:
    pair = make_pair()
    for changed in (
        replace(pair, regions=(replace(pair.regions[0], rle="~"),)),
        replace(pair, regions=(replace(pair.regions[0], size=(7, 7)),)),
        replace(pair, noise=Noise(step=4000)),
        replace(pair, noise=Noise("swap")),
        replace(pair, noise=Noise(image=3)),
    ):
        row, pictures, _ = made(processor, changed)
        assert row.problem and pictures.images[0] is not None, changed


def test_numbers_that_json_lacks_become_nothing(processor: Any) -> None:
    pair = replace(make_pair(), keywords=(Keyword("mug", float("nan"), ()),))
    row, *_ = made(processor, pair, **{pair.id: Rank(float("inf"), "hard")})
    assert row.keywords[0].score is None and row.entropy is None and row.difficulty == "hard"


def test_long_and_binary_columns_are_cut(processor: Any) -> None:
    pair = replace(make_pair(), extra={"long": "x" * 9000, "data": b"abc", "none": None, "number": 0})
    extra = dict(made(processor, pair)[0].extra)
    assert len(extra["long"]) == 2001 and extra["data"] == "3 bytes" and extra["number"] == "0"
    assert "none" not in extra


def test_json_in_a_page_cannot_end_its_element() -> None:
    value = ["</script><!--", "\u2028\u2029", "a & b", "\ud800"]
    text = embedded_json(value)
    assert not set(text) & set("<>&\u2028\u2029")
    assert json.loads(text)[:3] == value[:3]
    with pytest.raises(ValueError):
        embedded_json(float("nan"))


def test_union_of_masks_is_unchanged_by_shrinking_to_the_same_size(processor: Any) -> None:
    pair = make_pair()
    _, pictures, _ = made(processor, pair)
    assert (decode_rle(pictures.masks[0], (64, 96)) == union_mask(pair.regions, (64, 96))).all()
