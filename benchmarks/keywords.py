"""How many captions a second the keyword step takes, beside a textbook implementation with networkx.

    python benchmarks/keywords.py

Captions of about 60 words are put together from sentence patterns with a few hundred nouns and adjectives,
drawn as words are in texts: the n-th with a frequency of 1/n (Zipf). In one process that is warm are timed:
the whole step (tags, embeddings, graph, ranks), on captions that it has not seen; the graph and its ranks
alone, on candidates and vectors that are there; and the same graphs built edge by edge with networkx and
ranked by its PageRank, whose ranks must agree. The last line is one line of JSON, with the share of phrases
whose embedding was known from earlier captions.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence

import networkx as nx
import numpy as np
from numpy.typing import NDArray

from mfpo.preferences import graph
from mfpo.preferences.candidates import Candidate
from mfpo.preferences.embeddings import Embedder
from mfpo.preferences.keyword_config import KeywordConfig
from mfpo.preferences.keywords import KeywordExtractor, keyword_graph
from mfpo.preferences.tagging import load_tagger


def _words(text: str) -> list[str]:
    return text.split()


NOUNS = _words(
    """
    apple armchair backpack bag ball balloon banana barn basket bat bathtub bed bench bicycle bird
    blanket boat book bookshelf boot bottle bowl box boy branch bread bridge bucket building bus
    bush butterfly cabinet cake camera candle canoe car card carpet carrot cart cat ceiling chair
    chandelier cheese child church clock cloud coat computer cookie couch cow cup curtain cushion
    deer desk dish dog donut door dress drum duck elephant fan fence fireplace flag flower fork
    fountain fox frame fridge frisbee fruit giraffe girl glass glove goat grape grass guitar hammer
    handbag hat helmet hill horse hose house hydrant jacket jar jeans kettle keyboard kite knife
    ladder lake lamp laptop leaf lemon letter lion magazine mailbox man map microwave mirror monkey
    motorcycle mountain mouse mug mushroom napkin necklace notebook onion orange oven owl painting
    pan parrot path peach pear pen pencil penguin phone piano pillow pizza plant plate pond pot
    printer pumpkin purse rabbit racket railing refrigerator ribbon river road robot rock roof rope
    rug salad sandal sandwich scarf scissors sculpture sheep shelf ship shirt shoe shovel sidewalk
    sign sink skateboard skirt sled sneaker snowboard sock sofa spoon squirrel stairs statue stool
    stove strawberry street suitcase sunflower surfboard swan sweater swing table teapot teddy
    telephone television tent tie tiger toaster tomato towel tower toy tractor train tree truck
    turtle umbrella van vase violin wagon wall watch waterfall wheel window woman zebra
    """
)
ADJECTIVES = _words(
    """
    red blue green yellow white black brown grey orange purple pink wooden metal plastic large small
    tall round old new shiny rusty striped bright dark leather colorful tiny empty full wet dry
    broken folded open closed modern vintage ornate fluffy young
    """
)
PLACES = ["kitchen", "garden", "street", "park", "beach", "bedroom", "office", "market", "station", "forest"]
PATTERNS = (
    "The image shows a {a} {n} next to a {a} {n} in the {p}.",
    "In the background, there are two {a} {n}s and a {n} hanging above the {n}.",
    "A {a} {n} is standing beside the {n}, holding a {a} {n} in one hand.",
    "Several {n}s can be seen scattered around the {p}, along with a {a} {n}.",
    "On top of the {n} there is a {a} {n}, while a {n} lies on the floor.",
    "To the left, a {n} leans against a {a} {n}, and its shadow falls on the {n}.",
)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--captions", type=int, default=2000)
    parser.add_argument("--words", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=3, help="the best of so many is reported")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    texts = captions(arguments.captions * arguments.repeats, arguments.words, arguments.seed)
    KeywordExtractor().extract(captions(64, arguments.words, arguments.seed + 1))

    embedder = Embedder()
    extractor = KeywordExtractor(tagger=load_tagger(), embedder=embedder)
    whole, known, seen = [], [], set[str]()
    for start in range(0, len(texts), arguments.captions):
        part = texts[start : start + arguments.captions]
        begin = time.perf_counter()
        extractor.extract(part)
        whole.append(len(part) / (time.perf_counter() - begin))
        phrases = [c.text.lower() for candidates, _ in extractor.read(part) for c in candidates]
        known.append(sum(phrase in seen for phrase in phrases) / len(phrases))
        seen.update(phrases)

    part = texts[: arguments.captions]
    read = list(extractor.read(part))
    vectors = [embedder.embed([c.text.lower() for c in candidates]) for candidates, _ in read]
    config = KeywordConfig()
    ours, ranks = timed(read, vectors, config, arguments.repeats, rank_of)
    few = slice(0, max(1, arguments.captions // 20))
    textbook, reference = timed(read[few], vectors[few], config, 1, networkx_rank_of)
    difference = max(float(np.abs(a - b).max(initial=0)) for a, b in zip(ranks, reference, strict=False))
    assert difference < 1e-4, f"ranks differ by {difference}"
    result = {
        "captions_per_second": round(max(whole), 1),
        "captions_per_second_first": round(whole[0], 1),
        "phrases_known": round(known[int(np.argmax(whole))], 3),
        "graph_captions_per_second": round(ours, 1),
        "networkx_captions_per_second": round(textbook, 1),
        "ratio_networkx": round(ours / textbook, 1),
        "words": round(float(np.mean([len(text.split()) for text in part])), 1),
        "candidates": round(float(np.mean([len(candidates) for candidates, _ in read])), 1),
        "captions": arguments.captions,
    }
    for name, value in result.items():
        print(f"{name:32}{value:>12}")
    print(json.dumps(result))


def captions(count: int, words: int, seed: int) -> list[str]:
    """Captions of about so many words, all different."""
    generator = np.random.default_rng(seed)
    shuffled = np.random.default_rng(0)
    nouns, adjectives = shuffled.permutation(NOUNS).tolist(), shuffled.permutation(ADJECTIVES).tolist()
    texts = []
    for _ in range(count):
        text = ""
        while len(text.split()) < words - 8:
            pattern = PATTERNS[generator.integers(len(PATTERNS))]
            while "{" in pattern:
                for mark, kind in (("{a}", adjectives), ("{n}", nouns), ("{p}", PLACES)):
                    rank = int(len(kind) ** generator.random())
                    pattern = pattern.replace(mark, kind[rank - 1], 1)
            text = f"{text} {pattern}".strip()
        texts.append(text)
    return texts


def timed(read, vectors, config, repeats, rank) -> tuple[float, list[NDArray[np.float64]]]:
    """Captions a second of a ranking, and the ranks."""
    best, ranks = math.inf, []
    for _ in range(repeats):
        begin = time.perf_counter()
        ranks = [rank(c, length, v, config) for (c, length), v in zip(read, vectors, strict=True)]
        best = min(best, time.perf_counter() - begin)
    return len(read) / best, ranks


def rank_of(candidates, length, vectors, config) -> NDArray[np.float64]:
    return graph.rank(keyword_graph(candidates, length, vectors, config), config.damping)


def networkx_rank_of(
    candidates: Sequence[Candidate], length: int, vectors: NDArray[np.float32], config: KeywordConfig
) -> NDArray[np.float64]:
    """The same graph, edge by edge, as one would write it down from the equations."""
    topic = graph.topics([set(candidate.stems) for candidate in candidates], config.topic_distance)
    first = [candidate.offsets[0] for candidate in candidates]
    count = len(candidates)
    mu = np.zeros((count, count))
    for i in range(count):
        for j in range(count):
            if topic[i] != topic[j]:
                theta = sum(
                    1 / (1 + abs(a - b) ** config.phi)
                    for a in candidates[i].offsets
                    for b in candidates[j].offsets
                )
                mu[i, j] = theta + config.gamma * max(0.0, float(vectors[i] @ vectors[j]))
    walk = nx.DiGraph()
    walk.add_nodes_from(range(count))
    for i in range(count):
        leader = min(k for k in range(count) if topic[k] == topic[i])
        siblings = [k for k in range(count) if topic[k] == topic[i] and k != leader]
        for j in range(count):
            if topic[i] == topic[j]:
                continue
            weight = mu[j, i]
            if i == leader and siblings:
                gain = config.alpha_ctx * math.exp(1 / (1 + first[i]))
                weight += gain * sum(mu[j, k] for k in siblings)
            walk.add_edge(j, i, weight=weight * math.exp(-config.position_decay * first[i] / max(length, 1)))
    ranks = nx.pagerank(walk, alpha=config.damping, tol=1e-10, max_iter=1000)
    return count * np.array([ranks[node] for node in range(count)])


if __name__ == "__main__":
    main()
