"""How long CHAIR takes on 500 captions, beside the procedure of the script in circulation.

    NLTK_DATA=... python benchmarks/chair.py --data_dir DATA --predictions CAPTIONS.jsonl

Ours: a whole ``mfpo score`` in a process of its own (start of Python, loading of tools and ground truth,
both modes, intervals, score file), and the same with tools loaded for one, two and four times as many
captions; each in wall and in CPU seconds, the least and the worst of the repeats. Wall seconds mean little on
a machine that others use, so its load average stands beside. The script's procedure: for each caption
``nltk.word_tokenize``, ``nltk.pos_tag`` and a new WordNet lemmatiser, and for each word a new set of all
synonyms; it is timed in CPU seconds on the first ``--official`` captions with WordNet loaded, ground truth
and totals left out, and must find the same objects. Captions are put together from the sentences of
``--predictions``, no two alike. The last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nltk
from nltk.stem import WordNetLemmatizer

from answers import mix
from mfpo.evaluation.answer_files import read_rows
from mfpo.evaluation.benchmarks.base import BenchmarkSettings
from mfpo.evaluation.benchmarks.chair import ChairBenchmark
from mfpo.evaluation.mentions.coco import Rules
from mfpo.evaluation.mentions.words import load_words
from mfpo.evaluation.score import score_answers

_POS = {"J": "a", "V": "v", "N": "n", "R": "r"}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data_dir", required=True)
    parser.add_argument("--predictions", required=True)
    parser.add_argument("--captions", type=int, default=500)
    parser.add_argument(
        "--official", type=int, default=50, help="captions that the script's procedure scores"
    )
    parser.add_argument("--sentences", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    assert load_words().official, "NLTK's data is needed"
    load_words().tagged(["a dog"])
    texts = [row.text("caption") for row in read_rows(arguments.predictions)]
    benchmark = ChairBenchmark(BenchmarkSettings(arguments.data_dir))
    ids = sorted(benchmark.truth([]).objects)
    sizes = [arguments.captions * factor for factor in (1, 2, 4)]
    warm: dict[int, list[Times]] = {size: [] for size in sizes}
    whole: list[Times] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "captions.jsonl"
        for repeat in range(arguments.repeats):
            for size in reversed(sizes):
                captions = mix(texts, size, arguments.sentences, seed=f"{repeat} {size}")
                rows = [{"image_id": at, "caption": text} for at, text in zip(ids, captions, strict=False)]
                path.write_text("\n".join(map(json.dumps, rows)))
                start = Times.now()
                result = score_answers(benchmark, path)
                warm[size].append(start.passed())
            whole.append(whole_process(path, arguments.data_dir))
    official = official_procedure(captions[: arguments.official], result.items, benchmark.rules())
    per_caption = min(times.cpu for times in warm[arguments.captions]) / arguments.captions
    found = {
        **described("whole_process", whole),
        **{name: s for size in sizes for name, s in described(f"warm_{size}", warm[size]).items()},
        "official_s_per_caption": round(official, 4),
        "ours_s_per_caption": round(per_caption, 6),
        "ratio_official": round(official / per_caption, 1),
        "captions": arguments.captions,
        "official_captions": arguments.official,
        "words_per_caption": round(sum(len(text.split()) for text in captions) / len(captions), 1),
        "load_average": round(os.getloadavg()[0], 1),
    }
    for name, value in found.items():
        print(f"{name:30}{value:>12}")
    print(json.dumps(found))


@dataclass(frozen=True)
class Times:
    """Seconds on the clock, and seconds of the processor in this process and in its children."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> Times:
        """What the clocks show."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return cls(time.perf_counter(), time.process_time() + children.ru_utime + children.ru_stime)

    def passed(self) -> Times:
        """What has passed since."""
        now = Times.now()
        return Times(now.wall - self.wall, now.cpu - self.cpu)


def whole_process(path: Path, data_dir: str) -> Times:
    """What a whole ``mfpo score`` takes."""
    arguments = ["score", "--benchmark", "chair", "--predictions", str(path), "--data_dir", data_dir]
    start = Times.now()
    subprocess.run([sys.executable, "-m", "mfpo.cli", *arguments], check=True, capture_output=True)
    return start.passed()


def described(name: str, times: Sequence[Times]) -> dict[str, float]:
    """The least and the largest of repeated measurements."""
    return {
        f"{name}_{kind}_s{which}": round(pick(getattr(t, kind) for t in times), 2)
        for kind in ("wall", "cpu")
        for which, pick in (("", min), ("_worst", max))
    }


def official_procedure(captions: Sequence[str], ours: Sequence[Mapping[str, Any]], rules: Rules) -> float:
    """CPU seconds a caption of the script's procedure; its objects must be ours."""
    synonyms = list(rules.node)
    nltk.pos_tag(nltk.word_tokenize("a dog"))
    WordNetLemmatizer().lemmatize("dogs")
    start = time.process_time()
    for caption, record in zip(captions, ours, strict=False):
        lemmatizer = WordNetLemmatizer()
        tagged = nltk.pos_tag(nltk.word_tokenize(caption.lower()))
        lemmas = [lemmatizer.lemmatize(word, _POS.get(tag[:1], "n")) for word, tag in tagged]
        words, at = [], 0
        while at < len(lemmas):
            pair = " ".join(lemmas[at : at + 2])
            joined = pair in rules.doubles
            words.append(rules.doubles[pair] if joined else lemmas[at])
            at += 2 if joined else 1
        if "toilet" in words and "seat" in words:
            words = [word for word in words if word != "seat"]
        places = [at for at, word in enumerate(words) if word in set(synonyms)]
        found = [rules.node[word] for word in words if word in set(synonyms)]
        assert len(places) == len(found)
        assert found == record["mscoco_generated_words"], f"objects differ: {caption}"
    return (time.process_time() - start) / len(captions)


if __name__ == "__main__":
    main()
