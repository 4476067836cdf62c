"""How good extracted keywords are: against the ones that people chose, and against what is in the picture.

    python benchmarks/keyword_quality.py
    python benchmarks/keyword_quality.py --pairs pairs.jsonl --annotations annotations.jsonl [--judgements F]

Without arguments it reads the 60 descriptions in benchmarks/descriptions, which were written for this
purpose and have no pictures. Rows with pictures come in two files: the pairs have `image` and `chosen`; the
annotations have `image` and `keywords`, the most important things of the chosen answer, most important
first, and may have `objects`, names of what is in the picture. Rows join by the file name of the image.

Methods: `multipartite` (the graph), `first` (first candidates of the text), `random` (the same candidates
in any order, mean over draws), all cut at K; `nouns` (all candidates of the text, uncut); `random-nouns` (K
of all noun phrases of the text, without the lists that say which of them name things).

Measures. A human keyword is found by a phrase of ours if, stemmed, their last words are equal ("magazines",
"several old magazines") or all words of one are among the words of the other ("traffic light", "light").
    recall           share of all human keywords found among the top K
    mrr              mean of 1 / rank of the first phrase that finds any human keyword (0 if none does)
    first_in_top_3   how often the first human keyword is among the top 3
    visible          share of the top K that name something visible, of those that were judged
    annotated        share of the top K that name an annotated object or keyword: a lower bound of `visible`,
                     since annotations do not list everything
Then what each method gains over `random` and `random-nouns` on the same rows. Intervals are 95% bootstrap
intervals over rows.

Judgements are one JSON line for each picture: `image`, `judge`, `how`, and `visible`, which says of each
phrase, in lower case, true (it can be pointed at in the picture), false, or null (not judged). `--template
F` writes such a file with all phrases that a method may choose, filled in as far as `--judgements` has
them. What is not judged is counted and left out. The last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from mfpo.preferences.candidates import find_candidates, noun_runs, read_words, stem
from mfpo.preferences.keywords import KeywordConfig, KeywordExtractor
from mfpo.preferences.tagging import load_tagger

DESCRIPTIONS = Path(__file__).parent / "descriptions" / "descriptions.jsonl"
MEASURES = ("recall", "mrr", "first_in_top_3", "visible", "annotated")
RESAMPLES = 10_000
Counts: TypeAlias = NDArray[np.float64]
"""float64 ``[rows, measures, 2]``: what was reached, and out of how much (0 where it does not apply)."""


@dataclass(frozen=True)
class Row:
    """An answer with what people say of it.

    Attributes:
        name: File name of the picture, or a number.
        text: The chosen answer.
        human: Its most important things, best first.
        objects: Names of what is in the picture, the human keywords included; empty if that is not known.
        visible: What was judged to be visible or not.
    """

    name: str
    text: str
    human: list[str]
    objects: list[str]
    visible: dict[str, bool | None]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pairs", type=Path, default=DESCRIPTIONS)
    parser.add_argument("--annotations", type=Path)
    parser.add_argument("--judgements", type=Path)
    parser.add_argument("--template", type=Path, help="write a file of judgements to fill in")
    parser.add_argument("--top_k", type=int, default=KeywordConfig.top_k)
    parser.add_argument("--position_decay", type=float, default=KeywordConfig.position_decay)
    parser.add_argument("--draws", type=int, default=200, help="random orders for each row")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    rows = load(arguments.pairs, arguments.annotations, arguments.judgements)
    generator = np.random.default_rng(arguments.seed)
    texts = [row.text for row in rows]
    phrases = {
        method: [[k.text.lower() for k in keywords] for keywords in KeywordExtractor(config).extract(texts)]
        for method, config in {
            "multipartite": KeywordConfig(top_k=1000, position_decay=arguments.position_decay),
            "first": KeywordConfig(method="first", top_k=1000),
            "nouns": KeywordConfig(method="nouns"),
        }.items()
    }
    phrases["random"] = phrases["first"]
    phrases["random-nouns"] = [noun_phrases(text) for text in texts]
    if arguments.template:
        write_template(arguments.template, rows, [phrases["nouns"], phrases["random-nouns"]])
    counts = {}
    for method, lists in phrases.items():
        draws = arguments.draws if method.startswith("random") else 0
        top = 10**6 if method == "nouns" else arguments.top_k
        counts[method] = np.array(
            [count(row, mine, top, draws, generator) for row, mine in zip(rows, lists, strict=True)]
        )
    resampled = generator.integers(0, len(rows), size=(RESAMPLES, len(rows)))
    reports = {method: report(values, resampled) for method, values in counts.items()}
    for other in ("random", "random-nouns"):
        for method in ("multipartite", "first"):
            reports[f"{method} - {other}"] = report(counts[method], resampled, counts[other])
    summary = {
        "rows": len(rows),
        "human_keywords": sum(len(row.human) for row in rows),
        "among_candidates": reports["nouns"]["recall"][0],  # type: ignore[index]
        "candidates_per_row": round(float(np.mean([len(mine) for mine in phrases["first"]])), 2),
        "top_k": arguments.top_k,
        "unjudged": {
            method: len(
                {
                    (row.name, p)
                    for row, mine in zip(rows, lists, strict=True)
                    for p in (
                        mine if method in ("nouns", "random", "random-nouns") else mine[: arguments.top_k]
                    )
                    if row.visible.get(p) is None
                }
            )
            for method, lists in phrases.items()
        },
    }
    print("   ".join(f"{name} {value}" for name, value in summary.items()))
    for name, values in reports.items():
        print(name.ljust(28) + "   ".join(f"{key} {show(value)}" for key, value in values.items()))
    print(json.dumps({**summary, "methods": reports}))


def load(pairs: Path, annotations: Path | None, judgements: Path | None) -> list[Row]:
    """The answers that have human keywords, of their own or in the annotations."""
    known = {Path(row["image"]).name: row for row in read_lines(annotations)} if annotations else {}
    judged = {Path(row["image"]).name: row["visible"] for row in read_lines(judgements)} if judgements else {}
    rows = []
    for number, pair in enumerate(read_lines(pairs)):
        name = Path(pair["image"]).name if "image" in pair else str(number)
        about = known.get(name, pair)
        human = about.get("keywords") or []
        objects = [*about.get("objects", ()), *human] if "objects" in about else []
        if human:
            rows.append(Row(name, pair["chosen"], human, objects, judged.get(name, {})))
    return rows


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def noun_phrases(text: str) -> list[str]:
    """All longest runs of nouns and adjectives that end in a noun, once each, lower case."""
    words = read_words(load_tagger()(text))
    found = []
    for start, end in noun_runs(words):
        while end > start and words[end - 1].kind != "noun":
            end -= 1
        if end > start:
            found.append(text[words[start].start : words[end - 1].end].lower())
    return list(dict.fromkeys(found))


def write_template(path: Path, rows: Sequence[Row], phrases: Sequence[Sequence[Sequence[str]]]) -> None:
    lines = []
    for number, row in enumerate(rows):
        all_phrases = dict.fromkeys(phrase for lists in phrases for phrase in lists[number])
        visible = {phrase: row.visible.get(phrase) for phrase in all_phrases}
        lines.append(json.dumps({"image": row.name, "judge": "", "how": "", "visible": visible}) + "\n")
    path.write_text("".join(lines), encoding="utf-8")


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


def count(
    row: Row, phrases: Sequence[str], top_k: int, draws: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Float64 ``[measures, 2]`` of a row's phrases, in order (no draws) or the mean of random orders."""
    found = hits(phrases, row.human)
    named = hits(phrases, row.objects).any(1)
    judged = np.array([row.visible.get(phrase) is not None for phrase in phrases], dtype=bool)
    seen = np.array([row.visible.get(phrase) is True for phrase in phrases], dtype=bool)
    orders = [generator.permutation(len(phrases)) for _ in range(draws)] or [np.arange(len(phrases))]
    results = []
    for order in orders:
        ranks = np.flatnonzero(found[order].any(1))
        top = order[:top_k]
        results.append(
            [
                (found[top].any(0).sum(), len(row.human)),
                (1 / (1 + ranks[0]) if len(ranks) else 0, 1),
                (found[order[:3], 0].any(), 1),
                (seen[top].sum(), judged[top].sum()),
                (named[top].sum(), len(top) if row.objects else 0),
            ]
        )
    return np.array(results, dtype=float).mean(0)


def report(
    counts: Counts, resampled: NDArray[np.int64], minus: Counts | None = None
) -> dict[str, list[float] | None]:
    """Each measure as [value, 2.5% quantile, 97.5% quantile], or None where nothing can be measured.

    Args:
        counts: Of the method.
        resampled: int64 ``[resamples, rows]``, indices of rows.
        minus: Of the method it is compared with, on the same rows.
    """

    def ratio(values: Counts) -> NDArray[np.float64]:
        reached, out_of = values[..., 0].sum(-2), values[..., 1].sum(-2)
        return np.divide(reached, out_of, out=np.full_like(reached, np.nan), where=out_of > 0)

    value, spread = ratio(counts), ratio(counts[resampled])
    if minus is not None:
        value, spread = value - ratio(minus), spread - ratio(minus[resampled])
    result: dict[str, list[float] | None] = {}
    for column, name in enumerate(MEASURES):
        if np.isnan(value[column]):
            result[name] = None
            continue
        low, high = np.nanquantile(spread[:, column], [0.025, 0.975])
        result[name] = [round(float(number), 4) for number in (value[column], low, high)]
    return result


def show(value: Sequence[float] | None) -> str:
    return "-" if value is None else f"{value[0]:.1%} [{value[1]:.1%}, {value[2]:.1%}]"


if __name__ == "__main__":
    main()
