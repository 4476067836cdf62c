"""Which phrases of a text are candidates, where they stand, and which of them are one node."""

from __future__ import annotations

import pytest

from mfpo.preferences.candidates import Candidate, find_candidates, read_words
from mfpo.preferences.tagging import load_tagger


def candidates_of(text: str) -> list[Candidate]:
    return find_candidates(text, read_words(load_tagger()(text)))


def phrases(text: str) -> list[str]:
    return [candidate.text for candidate in candidates_of(text)]


def test_longest_runs_headed_by_a_noun() -> None:
    assert phrases("A young man with a small black dog sits on an old wooden bench.") == [
        "young man",
        "small black dog",
        "old wooden bench",
    ]


def test_an_adjective_without_a_noun_is_no_candidate() -> None:
    assert phrases("The bench is wooden and very old.") == ["bench"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("There is a man in a t-shirt.", ["man", "t-shirt"]),
        ("There is a red double-decker bus.", ["red double-decker bus"]),
        ("A dark-haired woman opens a flat-screen TV.", ["dark-haired woman", "flat-screen TV"]),
        ("The white built-in shelves hold books.", ["white built-in shelves", "books"]),
        ("There is a two-story house.", ["two-story house"]),
        ("There is a double‑decker bus.", ["double‑decker bus"]),
    ],
)
def test_hyphenated_words_stay_whole(text: str, expected: list[str]) -> None:
    assert phrases(text) == expected


def test_a_dash_joins_nothing() -> None:
    assert phrases("A dog - the cat sleeps.") == ["dog", "cat"]


def test_a_hyphenated_word_is_one_word_of_the_offset() -> None:
    bus = candidates_of("One double-decker bus passes a dog.")
    # One(0) double-decker(1) bus(2) passes(3) a(4) dog(5)
    assert [candidate.offsets for candidate in bus] == [(1,), (5,)]


@pytest.mark.parametrize(
    "text",
    [
        "The image shows a dog on the left side of the picture.",
        "In the background of the photo there is a dog.",
        "A close-up of a dog in the middle of the scene.",
        "There is a pair of things near the dog at the top right.",
        "In the foreground, on the left-hand side, a dog adds to the cozy atmosphere.",
        "The color of the dog is a warm brown.",
        "Several other dogs, various different dogs and many dogs.",
    ],
)
def test_what_is_no_visible_thing_is_left_out(text: str) -> None:
    assert [candidate.key for candidate in candidates_of(text)] == ["dog"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The living room scene is bright.", ["living room"]),
        ("A woman in a tank top stands at the top of the stairs.", ["woman", "tank top", "stairs"]),
        ("A picture frame hangs over the side table.", ["picture frame", "side table"]),
        ("A couple sits with a couple of dogs.", ["couple", "dogs"]),
        ("A group of people wait behind an empty plate.", ["people", "empty plate"]),
    ],
)
def test_the_company_of_a_word_decides(text: str, expected: list[str]) -> None:
    assert phrases(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "A red car is next to two red cars.",
        "A double-decker bus is next to two double-decker buses.",
        "A man is next to two men.",
        "A child is next to two children.",
        "A person is next to two people.",
        "A sharp knife is next to two sharp knives.",
        "A wooden shelf is next to two wooden shelves.",
        "A T-shirt is next to two t-shirts.",
        "A café is next to two cafés.",
    ],
)
def test_plural_and_singular_are_one_node(text: str) -> None:
    (candidate,) = candidates_of(text)
    assert len(candidate.spans) == len(candidate.offsets) == 2
    assert candidate.text == text[slice(*candidate.spans[0])]
    assert candidate.offsets[0] < candidate.offsets[1]


def test_spans_index_every_occurrence() -> None:
    text = "A Red Car  is here.\nBehind the red car, a dog sees two red cars."
    spans = {candidate.text: [text[a:b] for a, b in candidate.spans] for candidate in candidates_of(text)}
    assert spans == {"Red Car": ["Red Car", "red car", "red cars"], "dog": ["dog"]}


def test_a_line_break_ends_a_phrase() -> None:
    assert phrases("wooden table\nred car\n\nblack dog") == ["wooden table", "red car", "black dog"]


def test_double_spaces_and_line_breaks_do_not_move_offsets() -> None:
    plain = candidates_of("A dog sits. A cat sleeps.")
    spaced = candidates_of("A  dog sits.\n\nA   cat sleeps.")
    assert [c.offsets for c in plain] == [c.offsets for c in spaced]


@pytest.mark.parametrize(
    "text", ["", "   \n", "It is raining.", "Yes, there are two.", "!!! 123 ??? -- 4-5", "a b c"]
)
def test_no_candidates(text: str) -> None:
    assert candidates_of(text) == []


def test_letters_of_other_languages() -> None:
    text = "A naïve café owner holds a piñata; 猫 sits beside a Köln Straße sign."
    found = candidates_of(text)
    assert found
    for candidate in found:
        assert [text[a:b] for a, b in candidate.spans]
        assert candidate.text == text[slice(*candidate.spans[0])]
    assert any("café" in candidate.text for candidate in found)
