"""The README of a dataset folder, which the Hub shows as its dataset card."""

from __future__ import annotations

from collections.abc import Sequence

_MEANINGS = {
    "images": "the images of the prompt, as their original bytes",
    "prompt": "messages up to the answer (TRL conversational format)",
    "chosen": "the preferred answer",
    "rejected": "the dispreferred answer",
    "rejected_images": "the images with their key objects corrupted",
    "id": "first 16 hex digits of the SHA-256 over images, prompt, chosen and rejected",
    "keywords": "key phrases of the chosen answer: text, score, character spans",
    "regions": "where they are: keyword, box (xyxy, pixels after EXIF rotation), score, "
    "COCO run lengths, [height, width]",
    "noise": "how the rejected image is made: scope, schedule, step, seed, fraction, box",
}

_CARD = """\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
size_categories:
- {size}
task_categories:
- image-text-to-text
tags:
- preference
- dpo
- mfpo
---

# {name}

{rows} rows of image and text preference for vision-language models, made with `mfpo`. The rejected image of a
row differs from its image only where the chosen answer's key objects are; `noise` says how, and it is drawn
in training.

```python
from datasets import load_dataset

rows = load_dataset("{name}", split="train")
```

| column | what |
|---|---|
{columns}

Rows that were left out, and why, are in `skipped.jsonl`.
"""

_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
)


def dataset_card(name: str, rows: int, columns: Sequence[str]) -> str:
    """A short dataset card.

    Args:
        name: Name of the dataset.
        rows: Number of its rows.
        columns: Its columns, in order.
    """
    table = "\n".join(f"| `{column}` | {_MEANINGS.get(column, 'from the source')} |" for column in columns)
    size = next((label for limit, label in _SIZES if rows < limit), "n>1M")
    return _CARD.format(name=name, rows=rows, size=size, columns=table)
