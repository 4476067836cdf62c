"""Peak memory and speed of `mfpo rank`, and of reading rows in training, for few rows and for many.

    python benchmarks/rank_memory.py --rows 1000 50000   # --reading: without the reference pass

Each pass runs in a process of its own, with a LLaVA of two layers that is made on the spot, on synthetic rows
with pictures of 96 pixels that all differ; its largest resident set is what the system reports for it. What
grows with the rows in training is measured in another process: opening the folder, measuring all rows and
planning their order, and then the time of a row on its turn, read, decoded, noised and batched, over 512
turns in random order. Its times are CPU seconds. The last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from mfpo.data.folder import open_dataset
from mfpo.data.writer import DatasetWriter
from mfpo.difficulty.stages import plan_stages
from mfpo.models.load import load_processor
from mfpo.models.logprobs import Layout
from mfpo.preferences.encoding import SEQUENCES, EncodedRows, RowEncoder
from mfpo.preferences.lengths import measure_rows
from mfpo.preferences.regions.masks import encode_rle
from mfpo.records import ImageSource, Noise, PreferencePair, Region, assistant_message, user_message
from mfpo.scenes.llava import LlavaSize, create_llava, save_llava
from mfpo.training.batching import PreferenceCollator, TurnDataset, plan_turns

SIDE = 96
TURNS, BATCH = 512, 8
WORDS = ["a", "red", "blue", "green", "mug", "plate", "apple", "kitchen", "with", "and", "the", "image"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[1000, 50_000])
    parser.add_argument("--reading", action="store_true", help="no reference pass")
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.read:
        print(json.dumps(read(*arguments.read)))
        return
    results = []
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        size = LlavaSize(
            image_size=32,
            patch_size=8,
            vision_width=32,
            vision_layers=2,
            text_width=32,
            text_layers=2,
            vocab_size=320,
        )
        save_llava(
            create_llava([f"USER: Describe the image. ASSISTANT: {' '.join(WORDS)}."] * 4, size), model
        )
        for rows in arguments.rows:
            dataset = write_dataset(Path(folder) / f"data-{rows}", rows)
            result = {"rows": rows}
            if not arguments.reading:
                mebibytes, seconds = rank(dataset, model)
                result |= {"peak_mib": round(mebibytes), "seconds": round(seconds, 1)}
                print(f"{rows:>8} rows   {mebibytes:7.0f} MiB at most   {rows / seconds:7.0f} rows a second")
            command = [sys.executable, __file__, "--read", str(dataset), str(model)]
            reading = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            result |= json.loads(reading.splitlines()[-1])
            print(
                f"{rows:>8} rows   ready to train after {result['ready_cpu_s']:.1f} s,"
                f" {result['row_cpu_ms']:.1f} ms for a row on its turn, {result['reading_mib']} MiB at most"
            )
            results.append(result)
    peak = "reading_mib" if arguments.reading else "peak_mib"
    growth = results[-1][peak] - results[0][peak]
    more = results[-1]["rows"] - results[0]["rows"]
    print(json.dumps({"passes": results, "bytes_per_row": round(growth * 2**20 / more) if more else None}))


def read(dataset: str, model: str) -> dict[str, float]:
    """What a training does of the rows beside computing."""
    started = time.process_time()
    encoder = RowEncoder(load_processor(model), max_length=2048)
    rows = EncodedRows(open_dataset(dataset), encoder)
    measure_rows(rows)
    turns = plan_turns(plan_stages("random", len(rows)))
    ready = time.process_time()
    examples = TurnDataset(rows, turns, None, SEQUENCES)
    collator = PreferenceCollator(SEQUENCES, encoder.pad_token_id, Layout(shared=True, chunked=True))
    for start in range(0, TURNS, BATCH):
        collator([examples[turn] for turn in range(start, start + BATCH)])
    seconds = time.process_time() - ready
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "ready_cpu_s": round(ready - started, 2),
        "row_cpu_ms": round(1000 * seconds / TURNS, 2),
        "reading_mib": round(peak / 1024),
    }


def write_dataset(folder: Path, count: int) -> Path:
    """A dataset folder whose rows have a picture and a region each."""
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[20:60, 30:80] = True
    region = Region("mug", (30.0, 20.0, 80.0, 60.0), 1.0, encode_rle(mask), (SIDE, SIDE))
    with DatasetWriter(folder) as writer:
        for number in range(count):
            generator = np.random.default_rng(number)
            pixels = generator.integers(0, 256, (12, 12, 3), dtype=np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).resize((SIDE, SIDE)).save(buffer, "JPEG")
            answers = [" ".join(generator.choice(WORDS, 8)).capitalize() + "." for _ in range(2)]
            writer.write(
                PreferencePair(
                    id=f"{number:016x}",
                    images=(ImageSource(data=buffer.getvalue()),),
                    prompt=user_message("Describe the image."),
                    chosen=assistant_message(answers[0]),
                    rejected=assistant_message(answers[1]),
                    regions=(region,),
                    noise=Noise(seed=number),
                )
            )
    return folder


def rank(dataset: Path, model: Path) -> tuple[float, float]:
    """Peak memory of the pass in MiB, and its time in seconds."""
    command = [sys.executable, "-m", "mfpo.cli", "rank", "--dataset", str(dataset)]
    command += ["--model_name_or_path", str(model), "--precision", "float32"]
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit("the pass failed")
    return usage.ru_maxrss / 1024, time.perf_counter() - start


if __name__ == "__main__":
    main()
