"""A benchmark with a judge, small enough to see through; as a script, the `mfpo` command that knows it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from mfpo.errors import RowError
from mfpo.evaluation import benchmarks
from mfpo.evaluation.benchmarks.base import Benchmark, Item, Judge, JudgeRequest
from mfpo.evaluation.statistics import Metric
from mfpo.records import Prediction

NUM_ITEMS = 40


class ToyBenchmark(Benchmark):
    """Forty questions about noise; the judge rates each answer from 0 to 6."""

    name = "toy"
    max_new_tokens = 8
    judge = Judge("gpt-toy", required=True, purpose="rates each answer from 0 to 6")
    metrics: ClassVar[dict[str, Metric]] = {
        "score": Metric("rating", "answers", scale=1, better="higher"),
        "good": Metric("good", "answers", better="higher"),
    }
    broken: ClassVar[set[str]] = set()

    def load(self) -> list[Item]:
        count = self.settings.num_samples or NUM_ITEMS
        return [Item(f"{n:02d}", "What is it?" + " Really?" * (n % 5), f"{n}.png") for n in range(count)]

    def open_image(self, item: Item) -> Image.Image:
        if "TOY_LOG" in os.environ:
            with Path(os.environ["TOY_LOG"]).open("a") as log:
                log.write(f"{item.id}\n")
        if item.id in self.broken:
            raise RowError("truncated-image", f"{item.image} ends early")
        noise = np.random.default_rng(int(item.id)).integers(0, 255, (32, 32, 3), dtype=np.uint8)
        return Image.fromarray(noise)

    def judge_requests(self, items: Sequence[Item], answers: Mapping[str, Prediction]) -> list[JudgeRequest]:
        return [
            JudgeRequest(i.id, (("user", f"Rate {i.id}: {answers[i.id].answer}"),), 10, 0.0) for i in items
        ]

    def record(self, item: Item, answer: str, reply: str | None = None) -> dict[str, Any]:
        match = re.search(r"rating: (\d)", reply or "")
        rating = int(match[1]) if match else 0
        return {"answers": 1, "rating": rating, "good": int(rating >= 3)}


def register() -> None:
    benchmarks.BENCHMARKS["toy"] = "toy_benchmark:ToyBenchmark"


if __name__ == "__main__":
    from mfpo.cli.main import main

    register()
    sys.exit(main())
