"""Synthetic preference rows with pictures and boxes, for the benchmarks of `mfpo build`."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
from PIL import Image

NOUNS = ["mug", "plate", "dog", "bench", "bicycle", "lamp", "sofa", "kite", "boat", "horse", "clock", "vase"]
COLOURS = ["red", "blue", "green", "yellow", "white", "black", "orange", "brown"]
PICTURE = 96


def write_rows(folder: Path, count: int, *, broken_every: int = 0) -> tuple[Path, Path]:
    """Write rows about pictures that all differ.

    Args:
        folder: Where to; nothing is written anew if it holds these rows already.
        count: How many.
        broken_every: Every so many rows a picture is cut off; 0 for none.

    Returns:
        The rows and the annotations, both JSON Lines.
    """
    pairs, annotations = folder / f"pairs-{count}.jsonl", folder / f"annotations-{count}.jsonl"
    if pairs.is_file() and annotations.is_file():
        return pairs, annotations
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with pairs.open("w") as rows, annotations.open("w") as boxes:
        for number in range(count):
            generator = np.random.default_rng(number)
            first, second, third = generator.permutation(len(NOUNS))[:3]
            colours = generator.permutation(COLOURS)[:2]
            name = f"{number:06d}.jpg"
            cut = 300 if broken_every and number % broken_every == broken_every - 1 else None
            (folder / "images" / name).write_bytes(_picture(generator)[:cut])
            row = {
                "image": f"images/{name}",
                "question": f"What is in picture {number}?",
                "chosen": f"A {colours[0]} {NOUNS[first]} stands beside a {colours[1]} {NOUNS[second]}.",
                "rejected": f"A {colours[1]} {NOUNS[first]} stands beside a {NOUNS[third]}.",
            }
            rows.write(json.dumps(row) + "\n")
            places = {NOUNS[first]: [[0.1, 0.2, 0.4, 0.7]], NOUNS[second]: [[0.5, 0.5, 0.9, 0.95]]}
            boxes.write(json.dumps({"image": name, "boxes": places}) + "\n")
    return pairs, annotations


def _picture(generator: np.random.Generator) -> bytes:
    small = generator.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(small).resize((PICTURE, PICTURE), Image.Resampling.BICUBIC).save(data, "JPEG")
    return data.getvalue()
