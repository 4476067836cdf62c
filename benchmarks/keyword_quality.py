"""How well extracted keywords agree with the ones that people chose.

    python benchmarks/keyword_quality.py --pairs pairs.jsonl --annotations annotations.jsonl

The pairs have `image` and `chosen`; the annotations have `image` and `keywords`, the most important things of
the chosen answer, most important first. Rows join by the file name of the image.

A human keyword is found by a phrase of ours if, stemmed, their last words are equal ("magazines", "several
old magazines") or all words of one are among the words of the other ("traffic light", "light").

Three methods are compared on the same candidates: `multipartite` (the graph), `first` (order of the text) and
`random` (any order, mean over the draws). Reported for each: `recall`, the share of all human keywords found
among the top K, and `first_in_top_3`, how often the first human keyword is among the top 3; then what the
graph gains over the others on the same images. Intervals are 95% bootstrap intervals over images. The last
line is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mfpo.preferences.candidates import find_candidates, read_words, stem
from mfpo.preferences.keywords import KeywordConfig, KeywordExtractor
from mfpo.preferences.tagging import load_tagger

TOP_FOR_FIRST = 3
RESAMPLES = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=Path, required=True)
    parser.add_argument("--annotations", type=Path, required=True)
    parser.add_argument("--top_k", type=int, default=KeywordConfig.top_k)
    parser.add_argument("--draws", type=int, default=200, help="random orders per image")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    texts, human = load(arguments.pairs, arguments.annotations)
    generator = np.random.default_rng(arguments.seed)
    everything = KeywordConfig(top_k=1000)
    ranked = KeywordExtractor(everything).extract(texts)
    in_order = KeywordExtractor(replace(everything, method="first")).extract(texts)
    tables = [hits([k.text for k in mine], theirs) for mine, theirs in zip(ranked, human, strict=True)]
    in_order_tables = [
        hits([k.text for k in mine], theirs) for mine, theirs in zip(in_order, human, strict=True)
    ]
    counts = {
        "multipartite": [count([table], arguments.top_k) for table in tables],
        "first": [count([table], arguments.top_k) for table in in_order_tables],
        "random": [
            count([generator.permutation(table) for _ in range(arguments.draws)], arguments.top_k)
            for table in tables
        ],
    }
    per_image = {name: np.array(values) for name, values in counts.items()}
    for other in ("first", "random"):
        per_image[f"multipartite - {other}"] = per_image["multipartite"] - per_image[other]
    whole = np.array([[table.shape[1], 1] for table in tables], dtype=float)
    resampled = generator.integers(0, len(tables), size=(RESAMPLES, len(tables)))
    reports = {name: report(values, whole, resampled) for name, values in per_image.items()}
    summary = {
        "images": len(texts),
        "human_keywords": int(whole[:, 0].sum()),
        "among_candidates": round(float(sum(table.any(0).sum() for table in tables) / whole[:, 0].sum()), 4),
        "candidates_per_image": round(float(np.mean([len(table) for table in tables])), 2),
        "top_k": arguments.top_k,
    }
    print("   ".join(f"{name} {value}" for name, value in summary.items()))
    for name, values in reports.items():
        print(name.ljust(24) + "   ".join(f"{key} {show(value)}" for key, value in values.items()))
    print(json.dumps({**summary, "methods": reports}))


def load(pairs: Path, annotations: Path) -> tuple[list[str], list[list[str]]]:
    """Chosen answers and their human keywords, of the images that have both."""
    by_image = {Path(row["image"]).name: row["keywords"] for row in read_lines(annotations)}
    rows = [row for row in read_lines(pairs) if by_image.get(Path(row["image"]).name)]
    return [row["chosen"] for row in rows], [by_image[Path(row["image"]).name] for row in rows]


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def hits(ours: Sequence[str], theirs: Sequence[str]) -> NDArray[np.bool_]:
    """Which of our phrases finds which human keyword, bool ``[ours, theirs]``."""
    table = np.zeros((len(ours), len(theirs)), dtype=bool)
    for row, mine in enumerate(ours):
        for column, keyword in enumerate(theirs):
            a, b = stems(mine), stems(keyword)
            table[row, column] = a[-1] == b[-1] or set(a) <= set(b) or set(b) <= set(a)
    return table


@cache
def stems(phrase: str) -> tuple[str, ...]:
    """Stemmed words as the candidates have them; of a phrase that is no candidate, each word's own stem."""
    candidates = find_candidates(phrase, read_words(load_tagger()(phrase)))
    if len(candidates) == 1 and candidates[0].spans == ((0, len(phrase)),):
        return candidates[0].stems
    return tuple(stem(word) for word in phrase.lower().split())


def count(orders: Sequence[NDArray[np.bool_]], top_k: int) -> tuple[float, float]:
    """Human keywords in the top K, and whether the first is in the top 3; means over orders of an image."""
    found = np.mean([table[:top_k].any(0).sum() for table in orders])
    first = np.mean([table[:TOP_FOR_FIRST, 0].any() for table in orders])
    return float(found), float(first)


def report(
    part: NDArray[np.float64], whole: NDArray[np.float64], resampled: NDArray[np.int64]
) -> dict[str, list[float]]:
    """Both measures, each [sum of part / sum of whole over the images, 2.5% quantile, 97.5% quantile].

    Args:
        part: float64 ``[images, 2]`` from [`count`].
        whole: float64 ``[images, 2]``, what each would be if everything were found.
        resampled: int64 ``[resamples, images]``, indices of images.
    """
    mean = part.sum(0) / whole.sum(0)
    low, high = np.quantile(part[resampled].sum(1) / whole[resampled].sum(1), [0.025, 0.975], axis=0)
    names = ("recall", f"first_in_top_{TOP_FOR_FIRST}")
    return {
        name: [round(float(value[column]), 4) for value in (mean, low, high)]
        for column, name in enumerate(names)
    }


def show(value: Sequence[float]) -> str:
    return f"{value[0]:.1%} [{value[1]:.1%}, {value[2]:.1%}]"


if __name__ == "__main__":
    main()
