from __future__ import annotations

import pytest

from mfpo.records import in_one_line


@pytest.mark.parametrize(
    ("pieces", "line"),
    [
        (
            ["First ", "[image 1]", " and second ", "[image 2]", ". Describe."],
            "First [image 1] and second [image 2]. Describe.",
        ),
        (["[image 1]", "[image 2]", "Compare."], "[image 1] [image 2] Compare."),
        (["", "What is it?"], "What is it?"),
        ([], ""),
    ],
)
def test_places_of_images_stay_in_the_line_of_their_text(pieces: list[str], line: str) -> None:
    assert in_one_line(pieces) == line
