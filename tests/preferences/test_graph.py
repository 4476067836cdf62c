"""The keyword graph: by hand on a small text, and against networkx on random and real ones."""

from __future__ import annotations

import json
import math
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mfpo.preferences import graph
from mfpo.preferences.candidates import Candidate, find_candidates, read_words
from mfpo.preferences.embeddings import load_embedder
from mfpo.preferences.keyword_config import KeywordConfig
from mfpo.preferences.keywords import keyword_graph
from mfpo.preferences.tagging import load_tagger

# "red car ... dog ... blue car ... tree": two variants of one topic, the first of them named twice.
STEMS = [("red", "car"), ("dog",), ("blue", "car"), ("tree",)]
OFFSETS = [(0, 9), (3,), (5,), (8,)]
LENGTH = 10
CANDIDATES = [
    Candidate(text=" ".join(stems), stems=stems, offsets=offsets, spans=())
    for stems, offsets in zip(STEMS, OFFSETS, strict=True)
]
E = np.exp


def pagerank(omega: np.ndarray, damping: float) -> np.ndarray:
    """N * PageRank by networkx, whose own iteration and normalisation are used."""
    ranks = nx.pagerank(
        nx.from_numpy_array(omega, create_using=nx.DiGraph), alpha=damping, tol=1e-13, max_iter=2000
    )
    return len(omega) * np.array([ranks[node] for node in range(len(omega))])


class TestTopics:
    def test_variants_are_clustered_up_to_the_distance(self) -> None:
        # {red, car} and {blue, car} share 1 of 3 words: Jaccard distance 2/3.
        assert graph.topics(STEMS, 0.74).tolist() == [0, 1, 0, 2]
        assert graph.topics(STEMS, 0.6).tolist() == [0, 1, 2, 3]

    def test_average_linkage(self) -> None:
        # "car" is at 1/2 from "red car", and at 3/4 from "big old red car", which is at 1/2 from "red car".
        # Average linkage joins a pair at 1/2 and the third at (1/2 + 3/4)/2 = 5/8.
        stems = [{"car"}, {"red", "car"}, {"big", "old", "red", "car"}]
        assert graph.topics(stems, 0.62).tolist() != [0, 0, 0]
        assert graph.topics(stems, 0.63).tolist() == [0, 0, 0]

    @pytest.mark.parametrize("count", [0, 1])
    def test_fewer_than_two_candidates(self, count: int) -> None:
        assert graph.topics(STEMS[:count], 0.74).tolist() == [0] * count

    def test_multipartite_joins_different_topics_and_complete_joins_all(self) -> None:
        topic = np.array([0, 1, 0])
        assert graph.edges(topic).tolist() == [
            [False, True, False],
            [True, False, True],
            [False, True, False],
        ]
        assert graph.edges(topic, complete=True).tolist() == (~np.eye(3, dtype=bool)).tolist()


class TestWeights:
    def test_theta_by_hand(self) -> None:
        theta = graph.positional_weights(OFFSETS, phi=1.0)
        assert theta[0, 1] == pytest.approx(1 / (1 + 3) + 1 / (1 + 6))
        assert theta[0, 2] == pytest.approx(1 / (1 + 5) + 1 / (1 + 4))
        assert theta[1, 3] == pytest.approx(1 / (1 + 5))
        assert_allclose(theta, theta.T)
        assert not theta.diagonal().any()

    def test_phi_weakens_distant_pairs_more(self) -> None:
        theta = graph.positional_weights(OFFSETS, phi=2.0)
        assert theta[0, 1] == pytest.approx(1 / (1 + 9) + 1 / (1 + 36))
        by_phi = [graph.positional_weights(OFFSETS, phi) for phi in (0.5, 1.0, 2.0)]
        near_to_far = [theta[1, 2] / theta[1, 3] for theta in by_phi]  # distances 2 and 5
        assert near_to_far == sorted(near_to_far) and near_to_far[0] < near_to_far[-1]
        assert graph.positional_weights(OFFSETS, phi=0.0)[1, 3] == 0.5

    def test_sigma_is_the_cosine_without_negative_values(self) -> None:
        vectors = np.array([[1.0, 0.0], [0.6, 0.8], [-1.0, 0.0]], dtype=np.float32)
        sigma = graph.semantic_weights(vectors, gamma=0.5)
        assert_allclose(sigma, [[0, 0.3, 0], [0.3, 0, 0], [0, 0, 0]], atol=1e-7)
        assert_allclose(graph.semantic_weights(vectors, gamma=2.0), 4 * sigma)

    def test_tau_by_hand(self) -> None:
        mu = np.array([[0, 1, 0, 2], [1, 0, 3, 4], [0, 3, 0, 5], [2, 4, 5, 0]], dtype=float)
        first = [2, 3, 5, 8]
        tau = graph.contextual_weights(mu, np.array([0, 1, 0, 2]), first, alpha_ctx=1.1)
        gain = 1.1 * math.exp(1 / (1 + 2))
        expected = mu.copy()
        expected[1, 0] = 1 + gain * 3  # dog into the first variant: what dog gives to the sibling
        expected[3, 0] = 2 + gain * 5
        assert_allclose(tau, expected)

    def test_tau_is_mu_without_variants_or_without_alpha(self) -> None:
        mu = graph.positional_weights(OFFSETS, 1.0)
        assert_allclose(graph.contextual_weights(mu, np.arange(4), [0, 3, 5, 8], 1.1), mu)
        assert_allclose(graph.contextual_weights(mu, np.array([0, 1, 0, 2]), [0, 3, 5, 8], 0.0), mu)

    def test_kappa_by_hand(self) -> None:
        assert_allclose(graph.position_decay([0, 3, 5], 10, 1.0), [1, E(-0.3), E(-0.5)])
        assert_allclose(graph.position_decay([0, 3, 5], 10, 0.0), [1, 1, 1])

    def test_omega_puts_kappa_on_the_receiver(self) -> None:
        config = KeywordConfig(position_decay=2.0, gamma=0.0)
        omega = keyword_graph(CANDIDATES, LENGTH, None, config)
        assert omega[1, 3] == pytest.approx(1 / (1 + 5) * E(-2 * 8 / 10))
        assert omega[3, 1] == pytest.approx(1 / (1 + 5) * E(-2 * 3 / 10))
        # Into the first variant: theta, and what the sibling gets times alpha_ctx * exp(1/(1+0)).
        into_first = 1 / (1 + 3) + 1 / (1 + 6) + 1.1 * E(1) * 1 / (1 + 2)
        assert omega[1, 0] == pytest.approx(into_first)
        assert omega[0, 2] == omega[2, 0] == 0

    def test_complete_graph_joins_variants(self) -> None:
        omega = keyword_graph(CANDIDATES, LENGTH, None, KeywordConfig(graph="complete", position_decay=0))
        assert omega[0, 2] == omega[2, 0] == pytest.approx(1 / (1 + 5) + 1 / (1 + 4))


class TestRank:
    def test_two_nodes_by_hand(self) -> None:
        # Each sends all it has to the other, whatever the weights: r = 1.
        assert_allclose(graph.rank(np.array([[0.0, 5.0], [0.1, 0.0]]), 0.85), [1, 1])

    def test_three_nodes_by_hand(self) -> None:
        # 0 splits evenly, 1 and 2 send all to 0: r0 = 0.5 + 0.5 (r1 + r2), r1 = r2 = 0.5 + 0.5 * r0 / 2.
        omega = np.array([[0, 1, 1], [7, 0, 0], [2, 0, 0]], dtype=float)
        assert_allclose(graph.rank(omega, 0.5), [4 / 3, 5 / 6, 5 / 6])

    def test_a_node_without_edges_keeps_the_base_rank(self) -> None:
        omega = np.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]], dtype=float)
        assert_allclose(graph.rank(omega, 0.85), [1, 1, 0.15])
        assert_allclose(graph.rank(np.zeros((1, 1)), 0.85), [0.15])
        assert graph.rank(np.zeros((0, 0)), 0.85).shape == (0,)

    def test_solves_the_equation_it_states(self) -> None:
        omega = keyword_graph(CANDIDATES, LENGTH, None, KeywordConfig())
        ranks = graph.rank(omega, 0.85)
        for node in range(len(ranks)):
            received = sum(ranks[j] * omega[j, node] / omega[j].sum() for j in range(len(ranks)))
            assert ranks[node] == pytest.approx(0.15 + 0.85 * received)

    @settings(max_examples=60, deadline=None)
    @given(
        weights=st.integers(2, 12).flatmap(
            lambda n: st.lists(st.lists(st.floats(0.01, 10), min_size=n, max_size=n), min_size=n, max_size=n)
        ),
        kept=st.randoms(use_true_random=False),
        damping=st.floats(0.0, 0.95),
    )
    def test_equals_networkx_on_random_graphs(self, weights: list[list[float]], kept, damping: float) -> None:
        omega = np.array(weights)
        count = len(omega)
        omega[np.array([[kept.random() < 0.4 for _ in range(count)] for _ in range(count)])] = 0
        omega[np.arange(count), (np.arange(count) + 1) % count] += 0.5  # every node sends something
        np.fill_diagonal(omega, 0)
        assert_allclose(graph.rank(omega, damping), pagerank(omega, damping), rtol=1e-8, atol=1e-9)

    @settings(max_examples=60, deadline=None)
    @given(
        phrases=st.lists(
            st.frozensets(
                st.sampled_from(["red", "car", "dog", "tree", "blue", "sky"]), min_size=1, max_size=3
            ),
            min_size=2,
            max_size=12,
            unique=True,
        ),
        order=st.randoms(use_true_random=False),
        phi=st.floats(0, 3),
        gamma=st.floats(0, 3),
        alpha=st.floats(0, 3),
        decay=st.floats(0, 5),
        complete=st.booleans(),
    )
    def test_keyword_graphs_equal_networkx(
        self, phrases, order, phi: float, gamma: float, alpha: float, decay: float, complete: bool
    ) -> None:
        places = list(range(3 * len(phrases)))
        order.shuffle(places)
        chunks = sorted(sorted(places[3 * i : 3 * i + order.randint(1, 3)]) for i in range(len(phrases)))
        candidates = [
            Candidate(" ".join(sorted(words)), tuple(sorted(words)), tuple(offsets), ())
            for words, offsets in zip(phrases, chunks, strict=True)
        ]
        generator = np.random.default_rng(order.randint(0, 10**6))
        vectors = generator.normal(size=(len(candidates), 4))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        config = KeywordConfig(
            phi=phi,
            gamma=gamma,
            alpha_ctx=alpha,
            position_decay=decay,
            graph="complete" if complete else "multipartite",
        )
        omega = keyword_graph(candidates, len(places), vectors, config)
        assert (omega >= 0).all()
        if (omega.sum(1) > 0).all():
            ranks = graph.rank(omega, config.damping)
            assert_allclose(ranks, pagerank(omega, config.damping), rtol=1e-8, atol=1e-9)
            assert ranks.mean() == pytest.approx(1)
        else:
            assert len(set(graph.topics([c.stems for c in candidates], 0.74))) == 1

    def test_equals_networkx_on_real_captions(self, shared: Path) -> None:
        lines = (shared / "data/photo_pairs/pairs.jsonl").read_text().splitlines()
        compared = 0
        for doc in load_tagger().pipe(json.loads(line)["chosen"] for line in lines):
            words = read_words(doc)
            candidates = find_candidates(doc.text, words)
            vectors = load_embedder().embed([candidate.text.lower() for candidate in candidates])
            omega = keyword_graph(candidates, len(words), vectors, KeywordConfig())
            assert (omega.sum(1) > 0).all()
            assert_allclose(graph.rank(omega, 0.85), pagerank(omega, 0.85), rtol=1e-8)
            compared += 1
        assert compared == 24
