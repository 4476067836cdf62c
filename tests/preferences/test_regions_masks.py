from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pycocotools import mask as coco

from mfpo.preferences.regions.masks import (
    box_mask,
    box_of,
    decode_rle,
    decode_runs,
    encode_rle,
    polygon_mask,
    union_mask,
    union_share,
)
from mfpo.records import Region

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


@st.composite
def masks(draw: st.DrawFn) -> NDArray[np.bool_]:
    seed, share = draw(st.integers(0, 2**32 - 1)), draw(st.sampled_from([0.0, 0.02, 0.3, 0.9, 1.0]))
    return np.random.default_rng(seed).random(draw(sizes)) < share


@settings(deadline=None)
@given(masks())
def test_rle_round_trip_and_equal_to_pycocotools(mask: NDArray[np.bool_]) -> None:
    rle = encode_rle(mask)
    size = mask.shape[0], mask.shape[1]
    decoded = decode_rle(rle, size)
    assert decoded.dtype == bool and np.array_equal(decoded, mask)
    theirs = coco.decode({"counts": rle.encode(), "size": list(size)})
    assert np.array_equal(decoded, theirs.astype(bool))


def test_a_large_mask_needs_numbers_of_several_characters() -> None:
    mask = np.zeros((3000, 2000), dtype=bool)
    mask[100:2900, 7:1990] = True
    assert np.array_equal(decode_rle(encode_rle(mask), (3000, 2000)), mask)


@pytest.mark.parametrize("rle", ["", "0", "x", "xx", "\x00", "é", "04", "0000000000000", "h2"])
def test_damaged_run_lengths_are_refused(rle: str) -> None:
    with pytest.raises(ValueError):
        decode_rle(rle, (5, 7))


def test_run_lengths_go_down_the_columns() -> None:
    # 1 outside, 3 inside, 2 outside in a picture of 2 rows and 3 columns
    expected = [[False, True, False], [True, True, False]]
    assert decode_runs([1, 3, 2], (2, 3)).tolist() == expected
    with pytest.raises(ValueError, match="2x3"):
        decode_runs([1, 3], (2, 3))


def region(mask: NDArray[np.bool_]) -> Region:
    return Region("k", box_of(mask), 1.0, encode_rle(mask), (mask.shape[0], mask.shape[1]))


def test_union() -> None:
    left, right = np.zeros((4, 6), dtype=bool), np.zeros((4, 6), dtype=bool)
    left[1, :3] = right[1:3, 2:4] = True
    union = union_mask([region(left), region(right)], (4, 6))
    assert np.array_equal(union, left | right)
    assert union_mask([], (4, 6)).shape == (4, 6) and not union_mask([], (4, 6)).any()
    with pytest.raises(ValueError, match=r"of \(4, 6\)"):
        union_mask([region(left)], (6, 4))


@given(st.lists(arrays(bool, (5, 7)), max_size=4))
def test_the_share_of_a_union_is_that_of_its_pixels(masks: list[NDArray[np.bool_]]) -> None:
    regions = [Region("k", (0, 0, 7, 5), 1.0, encode_rle(mask), (5, 7)) for mask in masks]
    assert union_share(regions, (5, 7)) == pytest.approx(union_mask(regions, (5, 7)).mean())


def test_the_share_of_a_region_of_another_size_is_refused() -> None:
    region = Region("k", (0, 0, 7, 5), 1.0, encode_rle(np.ones((5, 7), dtype=bool)), (5, 7))
    with pytest.raises(ValueError, match="in an image of"):
        union_share([region], (7, 5))
    with pytest.raises(ValueError, match="don't fill"):
        union_share([replace(region, size=(7, 6))], (7, 6))


@pytest.mark.parametrize(
    ("box", "rows", "columns"),
    [
        ((1, 1, 3, 2), (1, 2), (1, 3)),
        ((0.5, 0.5, 1.5, 1.5), (0, 2), (0, 2)),
        ((-5, -5, 2, 2), (0, 2), (0, 2)),
        ((3, 2, 99, 99), (2, 4), (3, 6)),
        ((7, 1, 9, 2), (0, 0), (0, 0)),
        ((-9, -9, -1, -1), (0, 0), (0, 0)),
        ((2, 2, 2, 3), (0, 0), (0, 0)),
    ],
)
def test_a_box_covers_what_it_touches(
    box: tuple[float, float, float, float], rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    expected = np.zeros((4, 6), dtype=bool)
    expected[slice(*rows), slice(*columns)] = True
    assert np.array_equal(box_mask(box, (4, 6)), expected)


@settings(deadline=None)
@given(masks())
def test_the_box_of_a_mask_is_tight(mask: NDArray[np.bool_]) -> None:
    x0, y0, x1, y1 = (int(value) for value in box_of(mask))
    outside = mask.copy()
    outside[y0:y1, x0:x1] = False
    assert not outside.any()
    if mask.any():
        inner = mask[y0:y1, x0:x1]
        assert inner[0].any() and inner[-1].any() and inner[:, 0].any() and inner[:, -1].any()


def test_polygons_are_joined() -> None:
    mask = polygon_mask([[1, 1, 4, 1, 4, 3, 1, 3], [6, 0, 8, 0, 8, 2, 6, 2]], (5, 9))
    expected = np.zeros((5, 9), dtype=bool)
    expected[1:3, 1:4] = expected[0:2, 6:8] = True
    assert np.array_equal(mask, expected)


@pytest.mark.parametrize("corner", [1e9, -1e9, float("nan"), float("inf")])
def test_a_polygon_far_outside_is_refused(corner: float) -> None:
    with pytest.raises(ValueError, match="far outside"):
        polygon_mask([[1, 1, corner, 1, 4, 3]], (5, 9))
