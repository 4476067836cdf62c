"""The README of a dataset folder, which the Hub shows as its dataset card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mfpo.data.files import write_atomic

if TYPE_CHECKING:
    import pyarrow as pa

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
    "region_status": "what became of each keyword's search",
    "noise": "how the rejected image is made: scope, schedule, step, seed, fraction, box, image, feather",
    "source_id": "the id that the row had in its source",
}

_TEXT = """
# {name}

{rows} rows of image and text preference for vision-language models, made with `mfpo`.
The rejected image of a row differs from its image only where the chosen answer's key objects are; `noise`
says how, and it is drawn in training.

```python
from datasets import load_dataset

rows = load_dataset("{name}", split="train")
```

| column | what |
|---|---|
{columns}
{made}
## Citation

The method is described in

```bibtex
@article{{jiang2024mfpo,
  title={{Modality-Fair Preference Optimization for Trustworthy MLLM Alignment}},
  author={{Jiang, Songtao and Zhang, Yan and Chen, Ruizhe and Hu, Tianxiang and Jin, Yeying and
          He, Qinglin and Feng, Yang and Wu, Jian and Liu, Zuozhu}},
  year={{2024}}
}}
```
"""

_HOW = "## How it was made"
_SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
)


@dataclass(frozen=True, slots=True)
class CardNotes:
    """What a card says of how the dataset was made.

    Attributes:
        source: Name of the source, without this machine's folders.
        kind: What the source is, and its layout.
        licence: Licence of the source as the Hub writes it; empty if the source states none.
        counts: Figures of the dataset by name.
        skipped: Rows left out by reason.
        settings: Settings that the rows depend on.
    """

    source: str = ""
    kind: str = ""
    licence: str = ""
    counts: Mapping[str, Any] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


def dataset_card(
    name: str, rows: int, schema: pa.Schema, size: tuple[int, int] = (0, 0), notes: CardNotes | None = None
) -> str:
    """A dataset card with metadata that ``datasets`` and ``huggingface_hub`` read.

    Args:
        name: Name of the dataset.
        rows: Number of its rows.
        schema: Its columns.
        size: Bytes of its files, packed and unpacked.
        notes: How it was made.
    """
    table = "\n".join(
        f"| `{column}` | {_MEANINGS.get(column, 'from the source')} |" for column in schema.names
    )
    text = _TEXT.format(name=name, rows=rows, columns=table, made="" if notes is None else _made(notes))
    head = _metadata(rows, schema, size, notes.licence if notes is not None else "")
    return f"---\n{head}---\n{text}"


def write_card(folder: Path, notes: CardNotes) -> None:
    """Write the card of a finished dataset folder again, with notes.

    Args:
        folder: The folder.
        notes: How it was made.
    """
    import pyarrow.parquet as pq

    shards = sorted((folder / "data").glob("train-*.parquet"))
    rows = packed = unpacked = 0
    for shard in shards:  # one by one: the metadata of a shard take megabytes
        metadata = pq.read_metadata(shard)
        rows += metadata.num_rows
        packed += shard.stat().st_size
        unpacked += sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
    schema = pq.read_schema(shards[0])
    card = dataset_card(folder.resolve().name, rows, schema, (packed, unpacked), notes)
    write_atomic(folder / "README.md", card)


def is_complete_card(folder: Path) -> bool:
    """Whether a folder's card has its notes; people may have edited it since, and it must stay as it is."""
    try:
        return f"\n{_HOW}\n" in (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False


def licence_of(folder: Path) -> str:
    """The licence that a folder's own card states, or nothing."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8")
        head = yaml.safe_load(text.split("---", 2)[1]) if text.startswith("---") else None
    except (OSError, ValueError, IndexError, yaml.YAMLError):
        return ""
    licence = head.get("license") if isinstance(head, dict) else None
    return licence if isinstance(licence, str) else ""


def _metadata(rows: int, schema: pa.Schema, size: tuple[int, int], licence: str) -> str:
    from datasets import DatasetInfo, Features, SplitDict, SplitInfo
    from datasets.info import DatasetInfosDict
    from huggingface_hub import DatasetCardData

    data = DatasetCardData(
        license=licence or None,
        task_categories=["image-text-to-text"],
        tags=["preference", "dpo", "mfpo", "vision-language", "hallucination"],
        size_categories=[next((label for limit, label in _SIZES if rows < limit), "n>1M")],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}],
    )
    splits = SplitDict()
    splits.add(SplitInfo(name="train", num_bytes=size[1], num_examples=rows))
    info = DatasetInfo(
        features=Features.from_arrow_schema(schema),
        splits=splits,
        download_size=size[0],
        dataset_size=size[1],
    )
    DatasetInfosDict({"default": info}).to_dataset_card_data(data)
    return str(data.to_yaml()) + "\n"


def _made(notes: CardNotes) -> str:
    lines = ["", _HOW, "", f"From {_code(notes.source)}, read as {notes.kind}.", ""]
    lines += ["| count | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in notes.counts.items()]
    lines += [f"| left out: {reason} | {count} |" for reason, count in sorted(notes.skipped.items())]
    settings = yaml.safe_dump(dict(notes.settings), sort_keys=False, allow_unicode=True)
    lines += [
        "",
        "Settings (`mfpo build`):",
        "",
        "```yaml",
        settings.replace("```", "'''").rstrip(),
        "```",
        "",
    ]
    return "\n".join(lines)


def _code(name: str) -> str:
    return f"`{json.dumps(name, ensure_ascii=False)[1:-1].replace('`', '')}`"
