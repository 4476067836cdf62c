"""Pieces of marked texts."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mfpo.report.marks import Mark, changed_words, layered, pieces


def changed(before: str, after: str) -> list[str]:
    return [after[mark.start : mark.end] for mark in changed_words(before, after)]


def test_changed_words_ignore_case_and_punctuation() -> None:
    assert changed("A red mug, on a table.", "a red mug on a Table!") == []


def test_neighbouring_changed_words_share_a_mark() -> None:
    assert changed("A man in brown shorts sits.", "A man in blue jeans sits, holding a cup.") == [
        "blue jeans",
        "holding a cup",
    ]


def test_only_what_the_second_text_adds_is_marked() -> None:
    assert changed("A red mug and a spoon.", "A red mug.") == []


def test_texts_that_repeat_themselves_are_compared_word_by_word() -> None:
    """Placed side by side, the "b" at the end would be new, after minutes for long texts."""
    assert changed("b " + "a " * 300, "a " * 300 + "b c d") == ["c d"]


def test_hyphens_and_apostrophes_stay_inside_words() -> None:
    assert changed("a t-shirt", "a t-bone") == ["t-bone"]
    assert changed("the dog's bowl", "the cat's bowl") == ["cat's"]


def test_scripts_without_spaces_are_compared_sign_by_sign() -> None:
    assert changed("红色杯子", "蓝色杯子") == ["蓝"]


def test_the_first_of_overlapping_marks_is_kept() -> None:
    parts = pieces("double-decker bus", [Mark(0, 17, "first"), Mark(14, 17, "second")])
    assert [(part.text, part.style) for part in parts] == [("double-decker bus", "first")]


def test_marks_outside_the_text_are_dropped() -> None:
    assert [part.text for part in pieces("mug", [Mark(2, 9, "x"), Mark(-1, 2, "x"), Mark(1, 1, "x")])] == [
        "mug"
    ]


@given(st.text(max_size=40), st.lists(st.tuples(st.integers(-2, 45), st.integers(-2, 45)), max_size=6))
def test_pieces_join_to_the_text(text: str, spans: list[tuple[int, int]]) -> None:
    assert "".join(part.text for part in pieces(text, [Mark(*span, "x") for span in spans])) == text


@given(st.text(max_size=60), st.text(max_size=60))
def test_a_text_has_no_changes_against_itself_and_marks_lie_inside(before: str, after: str) -> None:
    assert changed_words(after, after) == []
    assert all(0 <= mark.start < mark.end <= len(after) for mark in changed_words(before, after))


def test_keywords_and_changes_may_overlap() -> None:
    parts = list(layered("a red mug here", [[(2, 9)], [(6, 9)]], [Mark(6, 14, "x")]))
    assert parts == [("a ", -1, False), ("red ", 0, False), ("mug", 0, True), (" here", -1, True)]


@given(st.text(max_size=40), st.lists(st.tuples(st.integers(-2, 45), st.integers(-2, 45)), max_size=6))
def test_layers_join_to_the_text(text: str, spans: list[tuple[int, int]]) -> None:
    parts = list(layered(text, [spans[:3], spans[3:]], changed_words("a b", text)))
    assert "".join(part for part, *_ in parts) == text
