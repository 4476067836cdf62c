"""Which part of a picture a model sees."""

from __future__ import annotations

import pytest

from mfpo.report.crop import seen_in_words, seen_part
from mfpo.report.rows import default_image_processor
from other_models import llava_next, qwen2_vl


@pytest.mark.parametrize(
    ("size", "part", "words"),
    [
        ((320, 240), (0.125, 0, 0.875, 1), "the middle 75% of the width"),
        ((300, 600), (0, 0.25, 1, 0.75), "the middle 50% of the height"),
    ],
)
def test_clips_processor_keeps_the_central_square(
    size: tuple[int, int], part: tuple[float, ...], words: str
) -> None:
    found = seen_part(default_image_processor(), size)
    assert found == pytest.approx(part, abs=0.01)
    assert found is not None and seen_in_words(found) == words


@pytest.mark.parametrize("size", [(336, 336), (300, 296), (5, 5), (1, 7), (1, 1)])
def test_of_a_square_all_is_seen(size: tuple[int, int]) -> None:
    assert seen_part(default_image_processor(), size) is None


@pytest.mark.parametrize("build", [llava_next, qwen2_vl])
def test_processors_that_do_not_crop_show_all(build) -> None:
    processor = build().image_processor
    assert [seen_part(processor, size) for size in [(320, 240), (240, 320), (700, 200)]] == [None] * 3
