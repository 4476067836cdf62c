"""Tokens, tags and lemmas: as NLTK has them, and without NLTK's data."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfpo.evaluation.mentions.words import NltkWords, SpacyWords, load_words, missing_nltk_data, token_spans

TEXTS = [
    "The children's 'toys' lie on two benches; an e-book—and a TV—stand nearby. It's 3.5 m wide.",
    "",
    'Dogs\n\ndogs. "Men" can\'t run!',
]


def test_words_are_those_of_nltk(nltk_data: Path) -> None:
    import nltk
    from nltk.stem import WordNetLemmatizer

    words = load_words()
    assert isinstance(words, NltkWords)
    assert words.official
    lemmatizer = WordNetLemmatizer()
    for lower in (False, True):
        for text, tagged in zip(TEXTS, words.tagged(TEXTS, lower=lower), strict=True):
            assert tagged == nltk.pos_tag(nltk.word_tokenize(text.lower() if lower else text))
            for token, tag in tagged:
                assert words.lemma(token, tag) == lemmatizer.lemmatize(token)


def test_nltk_below_3_10_is_at_hand(nltk_data: Path) -> None:
    """From 3.10 on `'word` is split into two tokens."""
    assert [token for token, _ in load_words().tagged(["an 'old toy"])[0]] == ["an", "'old", "toy"]


def test_hashes_of_the_tools_are_kept(nltk_data: Path) -> None:
    tools = load_words().describe()
    assert "nltk 3." in tools["tokenizer"]
    assert all("sha256:" in tools[name] for name in ("tokenizer", "tagger", "lemmatiser"))


def test_what_is_missing_is_named(nltk_data: Path, nltk_folder: Path, tmp_path: Path, monkeypatch) -> None:
    assert missing_nltk_data() is None
    (tmp_path / "taggers").symlink_to(nltk_folder / "taggers")
    import nltk

    monkeypatch.setattr(nltk.data, "path", [])
    monkeypatch.setenv("NLTK_DATA", str(tmp_path))
    missing = missing_nltk_data()
    assert missing is not None
    assert missing.what == "NLTK's punkt_tab"


def test_a_packaged_pipeline_takes_over(no_nltk_data: None) -> None:
    words = load_words()
    assert isinstance(words, SpacyWords)
    assert not words.official
    assert "official scripts use" in words.describe()["unofficial"]
    tagged = words.tagged(["Two dogs sat on benches near the bus."])[0]
    nouns = [words.lemma(token, tag) for token, tag in tagged if tag.startswith("NN")]
    assert nouns == ["dog", "bench", "bus"]
    assert words.lemma("sat", "VBD", "v") == "sit"
    assert words.lemma("stands", "VBZ") == "stand"
    assert words.lemma("", "NN") == ""


@pytest.mark.parametrize("official", [True, False])
def test_a_long_answer_is_tagged_whole(official: bool, request: pytest.FixtureRequest) -> None:
    request.getfixturevalue("nltk_data" if official else "no_nltk_data")
    text = "a dog and a cat, " * 3_000
    tagged = load_words().tagged([text, "a dog"])
    assert sum(token == "dog" for token, _ in tagged[0]) == 3_000
    assert len(tagged[1]) == 2


def test_tokens_are_found_in_their_text() -> None:
    text = 'A "cat"  sees\nit.'
    tokens = ["A", "``", "cat", "''", "sees", "it", "."]
    spans = token_spans(text, tokens)
    assert [text[span[0] : span[1]] if span else None for span in spans] == [
        "A",
        None,
        "cat",
        None,
        "sees",
        "it",
        ".",
    ]
