"""Semantic entropy against values computed by hand, and its pass over a dataset."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

from killed import kill_after_chunks
from mfpo.data.files import save_config
from mfpo.data.writer import DatasetWriter
from mfpo.difficulty import chunks, semantic
from mfpo.difficulty.config import RankConfig
from mfpo.difficulty.rank import rank
from mfpo.difficulty.semantic import (
    SemanticEntropies,
    SemanticSettings,
    cluster_entropy,
    cluster_meanings,
    same_embedding,
    same_entailment,
    semantic_entropies,
)
from mfpo.errors import UserError
from mfpo.models.load import load_vlm
from mfpo.preferences import embeddings
from mfpo.preferences.entailment import Entailment
from mfpo.records import ImageSource
from preference_rows import make_pair, make_pairs

SETTINGS = SemanticSettings(samples=4, max_new_tokens=5)


@pytest.fixture
def vlm(tiny_llava):
    return load_vlm(str(tiny_llava), device="cpu", dtype="float32")


def test_entropy_by_hand():
    assert cluster_entropy([0, 0, 0, 0]) == 0
    assert cluster_entropy([0, 0, 1, 1]) == pytest.approx(math.log(2))
    # Three quarters and one quarter: 3/4 log(4/3) + 1/4 log 4.
    assert cluster_entropy([0, 0, 1, 0]) == pytest.approx(0.75 * math.log(4 / 3) + 0.25 * math.log(4))
    assert cluster_entropy([0, 0, 1, 0]) == pytest.approx(0.5623, abs=1e-4)
    assert cluster_entropy(range(10)) == pytest.approx(math.log(10))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=12))
def test_entropy_depends_on_the_sizes_of_clusters_alone(clusters):
    renamed = [7 - number for number in reversed(clusters)]
    assert cluster_entropy(renamed) == pytest.approx(cluster_entropy(clusters))
    assert 0 <= cluster_entropy(clusters) <= math.log(len(clusters)) + 1e-12


def test_an_answer_joins_the_first_meaning_it_agrees_with():
    compared = []

    def same_first_letter(question, answer, others):
        compared.append((answer, list(others)))
        return [other[0] == answer[0] for other in others]

    answers = ["mug", "plate", "mat", "pear", "apple", "arm"]
    assert cluster_meanings("What?", answers, same_first_letter) == [0, 1, 0, 1, 2, 2]
    # Each is compared with one answer of each meaning only.
    assert compared[-1] == ("arm", ["mug", "plate", "apple"])


def test_sentence_embeddings_tell_meanings_apart():
    same = same_embedding(SemanticSettings(similarity=0.8))
    answers = ["A cat sits on the sofa.", "A cat is sitting on the sofa.", "Two planes at an airport."]
    assert cluster_meanings("What is shown?", answers, same) == [0, 0, 1]


def test_entailment_must_hold_both_ways():
    follows = {("Q? a red mug", "Q? a mug"), ("Q? a mug", "Q? a cup"), ("Q? a cup", "Q? a mug")}

    class Table:
        def entails(self, pairs):
            return [pair in follows for pair in pairs]

    same = same_entailment(Table())
    assert cluster_meanings("Q?", ["a red mug", "a mug", "a cup"], same) == [0, 1, 1]


@pytest.fixture
def classifier(tmp_path):
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "mug", "plate", "red"]
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("\n".join(words))
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        id2label={0: "CONTRADICTION", 1: "ENTAILMENT", 2: "NEUTRAL"},
        label2id={"CONTRADICTION": 0, "ENTAILMENT": 1, "NEUTRAL": 2},
    )
    model = BertForSequenceClassification(config)
    torch.nn.init.zeros_(model.classifier.weight)
    model.classifier.bias.data = torch.tensor([0.0, 1.0, 0.0])
    model.save_pretrained(tmp_path / "nli")
    BertTokenizerFast(str(vocabulary)).save_pretrained(tmp_path / "nli")
    return tmp_path / "nli"


def test_answers_are_embedded_a_batch_at_a_time(vlm, monkeypatch):
    """A batch has one shape, so one answer alone costs as much as 32."""
    monkeypatch.setattr(embeddings, "_embedder", lru_cache(embeddings.Embedder))
    forward, lengths = embeddings.Embedder._forward, []
    monkeypatch.setattr(
        embeddings.Embedder,
        "_forward",
        lambda self, ids, length: lengths.append(length) or forward(self, ids, length),
    )
    found = semantic_entropies(vlm, make_pairs(6), SETTINGS, batch_size=24, progress=False)
    assert sum(len(set(answers)) for answers in found.answers) > 12
    assert len(lengths) == len(set(lengths))


def test_an_entailment_model_is_asked(classifier, vlm):
    assert Entailment(str(classifier)).entails([("a mug", "a plate")] * 40) == [True] * 40
    settings = replace(SETTINGS, entailment_model=str(classifier))
    found = semantic_entropies(vlm, make_pairs(2), settings, batch_size=4, progress=False)
    assert found.clusters == [[0] * 4] * 2 and found.entropies.tolist() == [0.0, 0.0]


def test_a_classifier_of_something_else_is_refused(classifier):
    model = BertForSequenceClassification.from_pretrained(classifier)
    model.config.id2label = {0: "good", 1: "bad", 2: "ugly"}
    model.save_pretrained(classifier)
    with pytest.raises(UserError, match="no label entailment, only good, bad, ugly"):
        Entailment(str(classifier))
    with pytest.raises(UserError, match="no entailment model can be loaded"):
        Entailment(str(classifier.parent / "nowhere"))


def test_samples_are_the_rows_own_and_entropies_follow_from_them(vlm):
    pairs = make_pairs(4)
    pairs[1] = make_pair(1, images=(ImageSource(path="/nowhere/a.png"),))
    settings = replace(SETTINGS, similarity=0.7)
    found = semantic_entropies(vlm, pairs, settings, batch_size=3, progress=False)
    assert found.ids == [pairs[i].id for i in (0, 2, 3)]
    assert [skip.reason for skip in found.skips] == ["missing-image"]
    alone = semantic_entropies(vlm, pairs[2:3], settings, batch_size=8, progress=False)
    assert alone.answers == found.answers[1:2], "whatever else is answered"
    for clusters, entropy in zip(found.clusters, found.entropies.tolist(), strict=True):
        assert entropy == cluster_entropy(clusters)
    other = semantic_entropies(vlm, pairs, replace(settings, seed=1), batch_size=3, progress=False)
    assert other.answers != found.answers
    with pytest.raises(UserError, match="at least 2 answers"):
        semantic_entropies(vlm, pairs, replace(settings, samples=1), batch_size=3)


@pytest.mark.slow
def test_a_killed_pass_goes_on(vlm, tiny_llava, tmp_path, monkeypatch):
    with DatasetWriter(tmp_path / "data") as writer:
        for pair in make_pairs(7):
            writer.write(pair)
    config = RankConfig(
        dataset=str(tmp_path / "data"),
        model_name_or_path=str(tiny_llava),
        precision="float32",
        semantic=True,
        semantic_samples=4,
        semantic_max_new_tokens=5,
    )
    save_config(config, tmp_path / "rank.yaml")
    # Three chunks of the reference pass, and two of the three of this one.
    kill_after_chunks(5, "rank", "--config", str(tmp_path / "rank.yaml"), rows=3)
    monkeypatch.setattr(chunks, "CHUNK_ROWS", 3)
    generate, answered = semantic.generate, []

    def counting(vlm, images, prompts, **settings):
        answered.append(settings["ids"])
        return generate(vlm, images, prompts, **settings)

    monkeypatch.setattr(semantic, "generate", counting)
    result = rank(vlm, config, "float32")
    assert answered == [[make_pairs(7)[6].id]], "only the last chunk is left"
    rank(vlm, config, "float32")
    assert len(answered) == 1, "nothing is sampled twice"
    monkeypatch.setattr(semantic, "generate", generate)
    folder = tmp_path / "data" / "reference"
    found = SemanticEntropies.load(folder, result.fingerprint)
    whole = semantic_entropies(vlm, make_pairs(7), SETTINGS, batch_size=16, progress=False)
    assert found.answers == whole.answers and torch.equal(found.entropies, whole.entropies)
    assert found.settings == SETTINGS and not list(folder.glob("*.parts"))


def test_answers_of_other_code_are_made_again(tmp_path, monkeypatch):
    found = SemanticEntropies(["a"], torch.zeros(1).double(), [["A mug."] * 4], [[0] * 4], [], SETTINGS)
    found.save(tmp_path, "f00")
    digest, loaded = SETTINGS.digest, SemanticEntropies.load(tmp_path, "f00")
    assert loaded.settings == SETTINGS and loaded.answers == found.answers
    monkeypatch.setattr(semantic, "code_digest", lambda parts: f"changed {parts}")
    assert SemanticEntropies.load(tmp_path, "f00") is None
    assert SETTINGS.digest != digest, "nor are the chunks of an interrupted pass used"
