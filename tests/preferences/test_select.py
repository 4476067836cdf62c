"""Which regions are used, what is said of each keyword, and that overlaps are perturbed once."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from mfpo.preferences.config import MAX_SHARE, MIN_SHARE
from mfpo.preferences.regions.masks import box_of, decode_rle, encode_rle, union_mask
from mfpo.preferences.regions.select import grown, select_regions
from mfpo.preferences.rejected import rejected_inputs
from mfpo.records import Noise, Region

SIZE = (20, 40)
TINY = CLIPImageProcessorPil(size={"height": 20, "width": 40}, do_center_crop=False)


def box(keyword: str, left: int, top: int, right: int, bottom: int, score: float = 1.0) -> Region:
    mask = np.zeros(SIZE, dtype=bool)
    mask[top:bottom, left:right] = True
    return Region(keyword, box_of(mask), score, encode_rle(mask), SIZE)


def select(keywords: list[str], regions: list[Region], **settings: float):
    return select_regions(keywords, regions, SIZE, **{"min_share": 0.01, "max_share": 0.6, **settings})


def test_every_keyword_gets_one_status_in_their_order() -> None:
    regions = [box("sky", 0, 0, 40, 18), box("man", 0, 0, 10, 20, 0.9), box("ring", 5, 5, 7, 7, 0.4)]
    kept, status = select(["man", "unicorn", "ring", "sky", "man"], regions, min_share=0.006)
    assert [(s.keyword, s.status) for s in status] == [
        ("man", "found"),
        ("unicorn", "not-found"),
        ("ring", "too-small"),
        ("sky", "too-large"),
    ]
    assert [(s.share, s.score) for s in status] == [(0.25, 0.9), (0.0, 0.0), (0.005, 0.4), (0.9, 1.0)]
    assert [region.keyword for region in kept] == ["man"]


def test_a_keyword_counts_by_the_union_of_its_instances() -> None:
    twice = [box("cup", 0, 0, 20, 10, 0.5), box("cup", 10, 0, 30, 10, 0.7)]
    kept, (status,) = select(["cup"], twice)
    assert len(kept) == 2 and (status.share, status.score) == (300 / 800, 0.7)
    # Each half is below the limit, both together are not.
    halves = [box("wall", 0, 0, 20, 16), box("wall", 20, 0, 40, 16)]
    assert select(["wall"], halves)[1][0].status == "too-large"


def test_keywords_that_overlap_are_perturbed_once() -> None:
    man, shirt = box("man", 5, 2, 20, 18), box("shirt", 8, 6, 16, 12)
    kept, status = select(["man", "shirt"], [man, shirt])
    assert [s.status for s in status] == ["found", "found"] and len(kept) == 2
    assert np.array_equal(union_mask(kept, SIZE), decode_rle(man.rle, SIZE))
    pixels: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    image, noise = Image.fromarray(pixels), Noise(step=700, seed=3)
    together = rejected_inputs(TINY, image, kept, noise)
    alone = rejected_inputs(TINY, image, [man], noise)
    assert (together.inputs["pixel_values"] == alone.inputs["pixel_values"]).all()


def test_dilate_grows_by_a_share_of_the_shorter_side() -> None:
    (kept,), (status,) = select(["cup"], [box("cup", 10, 8, 14, 12)], dilate=0.1)
    mask = decode_rle(kept.rle, SIZE)
    # Radius 2: four sides of 4 pixels, 2 deep, and at each corner the one pixel at (1, 1).
    assert mask.sum() == 16 + 4 * 4 * 2 + 4 * 1
    assert mask[10, 8] and mask[10, 15] and mask[6, 11] and not mask[6, 9] and not mask[10, 7]
    assert kept.box == (8, 6, 16, 14)
    assert status.share == 16 / 800, "shares are those before masks grow"
    assert grown(kept, 0.0) == kept


def test_a_mask_at_the_border_grows_inside_and_one_of_nothing_is_too_small() -> None:
    (kept,), _ = select(["cup"], [box("cup", 0, 0, 4, 4)], dilate=0.1)
    # Radius 2 to the right and below only; the corner has the one pixel at (1, 1).
    assert decode_rle(kept.rle, SIZE).sum() == 16 + 2 * 4 * 2 + 1 and kept.box == (0, 0, 6, 6)
    (status,) = select(["cup"], [box("cup", 3, 3, 3, 3)], min_share=0.0)[1]
    assert status.status == "too-small"


def test_limits_of_the_defaults() -> None:
    # Half of one of the 576 patches of a 336-pixel picture; and most of the picture.
    assert pytest.approx(0.5 / 576, rel=0.2) == MIN_SHARE
    assert MAX_SHARE == 0.6
