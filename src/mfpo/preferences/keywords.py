"""Ranked keywords of an answer by a multipartite graph (paper 3.1, "Keyword Selection")."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from mfpo.errors import UserError
from mfpo.preferences import graph
from mfpo.preferences.candidates import Candidate, find_candidates, read_words
from mfpo.preferences.embeddings import Embedder, load_embedder
from mfpo.preferences.keyword_config import KEYWORD_METHODS, KeywordConfig
from mfpo.preferences.phrases import keywords_of, load_phrase_source
from mfpo.preferences.tagging import Tagger, load_tagger
from mfpo.records import Keyword

__all__ = ["KeywordConfig", "KeywordExtractor", "keyword_graph"]

# The graph is quadratic in the candidates and its solution cubic; no answer is this long.
MAX_CHARACTERS = 50_000


class KeywordExtractor:
    """Finds and ranks the keywords of texts; equal texts get equal keywords, whatever they are batched with.

    Args:
        config: Settings; the defaults when None.
        tagger: spaCy pipeline with tags and lemmas; the process's own of the name in ``config`` when None.
        embedder: Sentence embeddings; the process's own of the name in ``config`` when None.

    Raises:
        UserError: The tagger or the embedding model cannot be loaded.
    """

    def __init__(
        self,
        config: KeywordConfig | None = None,
        tagger: Tagger | None = None,
        embedder: Embedder | None = None,
    ) -> None:
        self.config = config or KeywordConfig()
        method = self.config.method
        self._needs_vectors = method == "multipartite" and self.config.gamma > 0
        self._source = load_phrase_source(method) if method not in KEYWORD_METHODS else None
        self._tagger = tagger
        if tagger is None and method != "given" and self._source is None:
            self._tagger = load_tagger(self.config.spacy_model)
        self._embedder = embedder or (
            load_embedder(self.config.embedding_model) if self._needs_vectors else None
        )

    def extract(
        self, texts: Sequence[str], given: Sequence[Sequence[str] | None] | None = None
    ) -> list[tuple[Keyword, ...]]:
        """The top K keywords of each text, best first; ties go to the first occurrence.

        The method ``nouns`` gives all of them. Keywords that come from elsewhere may lack spans, where the
        text does not have them.

        Args:
            texts: Answers; of one longer than 50,000 characters only the beginning is read.
            given: Keywords that came with each text, for the method ``given``; None for a text without.

        Returns:
            One tuple per text, whose spans index the text; empty where no noun names a visible thing.

        Raises:
            UserError: The method is ``given``, and there are none; or a function of the user's own gave
                something else than lists of strings.
        """
        if self._source is not None:
            phrases: Sequence[Sequence[str] | None] = self._source(list(texts))
        elif self.config.method == "given":
            if given is None:
                raise no_keywords_given()
            phrases = given
        else:
            return self._from_graph(texts)
        return [
            keywords_of(text, list(own or ())[: self.config.top_k])
            for text, own in zip(texts, phrases, strict=True)
        ]

    def _from_graph(self, texts: Sequence[str]) -> list[tuple[Keyword, ...]]:
        read = list(self.read(texts))
        vectors = self._vectors([candidates for candidates, _ in read])
        return [
            self._keywords(candidates, self._scores(candidates, length, vectors))
            for candidates, length in read
        ]

    def read(self, texts: Sequence[str]) -> Iterator[tuple[list[Candidate], int]]:
        """Candidates and number of words of each text."""
        assert self._tagger is not None, "the method reads texts"
        for doc in self._tagger.pipe(text[:MAX_CHARACTERS] for text in texts):
            words = read_words(doc)
            yield find_candidates(doc.text, words), len(words)

    def _vectors(self, texts: Sequence[Sequence[Candidate]]) -> dict[str, NDArray[np.float32]]:
        """Embedding of every candidate that meets another one, by its phrase in lower case."""
        if not self._needs_vectors or self._embedder is None:
            return {}
        phrases = {c.text.lower() for candidates in texts if len(candidates) > 1 for c in candidates}
        unique = sorted(phrases)
        return dict(zip(unique, self._embedder.embed(unique), strict=True))

    def _scores(
        self, candidates: Sequence[Candidate], length: int, vectors: dict[str, NDArray[np.float32]]
    ) -> NDArray[np.float64]:
        if self.config.method != "multipartite":
            return 1 / (1 + np.arange(len(candidates), dtype=np.float64))
        stacked = None
        if self._needs_vectors and len(candidates) > 1:
            stacked = np.stack([vectors[candidate.text.lower()] for candidate in candidates])
        return graph.rank(keyword_graph(candidates, length, stacked, self.config), self.config.damping)

    def _keywords(self, candidates: Sequence[Candidate], scores: NDArray[np.float64]) -> tuple[Keyword, ...]:
        # Rounded: what differs by floating-point error alone is a tie. Stable: ties keep the text's order.
        best = np.argsort(-np.round(scores, 10), kind="stable").tolist()
        if self.config.method != "nouns":
            best = without_repeats(candidates, best)[: self.config.top_k]
        return tuple(
            Keyword(text=candidates[index].text, score=float(scores[index]), spans=candidates[index].spans)
            for index in best
        )


def without_repeats(candidates: Sequence[Candidate], order: Sequence[int]) -> list[int]:
    """Leave out of a ranking what names the same kind of thing as a better one, in more words or in fewer.

    "A tall man ... the man" is one thing with one region, and should not take two of the K places. "Red car"
    and "blue car" are two. The heads must be equal: a "bus stop" is no bus.

    Args:
        candidates: The candidates.
        order: Their indices, best first.
    """
    kept: list[int] = []
    for index in order:
        stems = candidates[index].stems
        others = [candidates[better].stems for better in kept]
        if not any(stems[-1] == o[-1] and (set(o) <= set(stems) or set(stems) <= set(o)) for o in others):
            kept.append(index)
    return kept


def no_keywords_given() -> UserError:
    """What to say where the method is ``given`` and nothing brings keywords."""
    return UserError(
        "the rows bring no keywords",
        where="--keywords given",
        fix="a column `keywords` is needed: a list of phrases, or one text with commas between them",
    )


def keyword_graph(
    candidates: Sequence[Candidate], length: int, vectors: NDArray[np.floating] | None, config: KeywordConfig
) -> NDArray[np.float64]:
    """Edge weights omega of a text's candidates, see [`mfpo.preferences.graph`].

    Args:
        candidates: N candidates in the order of their first occurrence.
        length: Number of words of the text.
        vectors: ``[N, d]`` unit vectors of the candidates; no semantic weights when None.
        config: phi, gamma, alpha_ctx, lambda and which nodes are joined.

    Returns:
        float64 ``[N, N]``, the weight from row into column, 0 where there is no edge.
    """
    first = [candidate.offsets[0] for candidate in candidates]
    topic = graph.topics([set(candidate.stems) for candidate in candidates], config.topic_distance)
    mu = graph.positional_weights([candidate.offsets for candidate in candidates], config.phi)
    if vectors is not None:
        mu = mu + graph.semantic_weights(vectors, config.gamma)
    mu = mu * graph.edges(topic, complete=config.graph == "complete")
    tau = graph.contextual_weights(mu, topic, first, config.alpha_ctx)
    return tau * graph.position_decay(first, length, config.position_decay)[None, :]
