"""Two hundred damaged rows and sixty damaged annotation files: each costs at most itself, and says why."""

from __future__ import annotations

import io
import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mfpo.data.files import read_jsonl
from mfpo.data.folder import open_dataset
from mfpo.errors import UserError
from mfpo.preferences.build import build_dataset
from mfpo.preferences.config import BuildConfig

ROW = {"image": "a.png", "question": "What?", "chosen": "A red mug by a plate.", "rejected": "A cat."}
SCRIPT = "<script>document.title='pwned'</script>"
VALUES: list[Any] = [
    *(None, True, -1, 10**40, float("nan"), float("inf"), "", " ", "\0", "\ud800", "a" * 100_000, [], {}),
    *(
        [[[[[]]]]],
        {"bytes": None},
        {"bytes": "text", "path": 3},
        {"type": "image"},
        [None],
        [{"role": "user"}],
    ),
    *(
        "../../../../etc/passwd",
        "/dev/zero",
        "/proc/self/mem",
        "http://127.0.0.1/x.png",
        "file:///etc/passwd",
    ),
    *(
        ".",
        "a.png\n",
        "A" * 5000,
        "con:",
        "%s%s%n",
        "{{7*7}}",
        SCRIPT,
        "‮gnp.a",
        "e\u0301" * 50,
        "<image>" * 9,
    ),
]
BOXES: list[Any] = [
    *(None, 3, "x", [], [[]], [[0, 0, 1]], [[0, 0, 1, 1, 1]], [["a", 0, 1, 1]], [[0, 0, None, 1]]),
    *([[5, 5, 1, 1]], [[-9, -9, -1, -1]], [[0, 0, 1e300, 1]], [[float("nan")] * 4], [[float("inf")] * 4]),
]
MASKS: list[Any] = [
    *(None, "x", 3, [], [{}], [{"counts": "oops", "size": [4, 4]}], [{"counts": "0" * 99, "size": [24, 32]}]),
    *([{"counts": [10**12, 1], "size": [24, 32]}], [{"counts": [768], "size": [10**6, 10**6]}]),
    *([{"counts": "`" * 5000, "size": [24, 32]}], [{"counts": [-1, 769], "size": [24, 32]}]),
]


def picture() -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(data, "PNG")
    return data.getvalue()


def damaged_line(chance: random.Random) -> str:
    row: dict[str, Any] = {**ROW, "question": f"What? {chance.random()}"}
    damages: list[Callable[[], Any]] = [
        lambda: row.update({chance.choice([*ROW, "keywords", "rejected_images"]): chance.choice(VALUES)}),
        lambda: row.pop(chance.choice(list(row))),
        lambda: row.update({f"extra{chance.randrange(3)}": chance.choice(VALUES)}),
    ]
    for _ in range(chance.randrange(1, 4)):
        chance.choice(damages)()
    line = json.dumps(row)
    if chance.random() < 0.15:
        line = line[: chance.randrange(len(line))]
    return line


def test_damaged_rows(tmp_path: Path) -> None:
    chance = random.Random(0)
    (tmp_path / "a.png").write_bytes(picture())
    lines = [json.dumps(ROW), *(damaged_line(chance) for _ in range(200))]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "boxes.jsonl").write_text(json.dumps({"image": "a.png", "boxes": {"mug": [[1, 1, 9, 9]]}}))
    config = BuildConfig(
        dataset=str(tmp_path / "pairs.jsonl"),
        annotations=str(tmp_path / "boxes.jsonl"),
        output_dir=str(tmp_path / "out"),
    )
    summary = build_dataset(config)
    skipped = read_jsonl(tmp_path / "out/skipped.jsonl")
    blank = sum(not line.strip() for line in lines)
    assert summary.rows + len(skipped) == len(lines) - blank
    assert len(skipped) > 50 and all(entry["reason"] and entry["where"] for entry in skipped)
    for row in open_dataset(tmp_path / "out"):
        for source in row.images:
            assert source.path is None or ".." not in Path(source.path).parts
        assert not any(b"root:" in (source.data or b"") for source in row.images)


@pytest.mark.parametrize("seed", range(60))
def test_damaged_annotations(tmp_path: Path, seed: int) -> None:
    """A damaged file is refused by name, or a damaged object costs the rows that need it."""
    chance = random.Random(seed)
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "pairs.jsonl").write_text(json.dumps(ROW))
    entry = {"image": "a.png", "boxes": {"mug": [[1, 1, 9, 9]], "plate": chance.choice(BOXES)}}
    if chance.random() < 0.5:
        entry["masks"] = {"mug": chance.choice(MASKS)}
    text = json.dumps(entry)
    if chance.random() < 0.2:
        text = text[: chance.randrange(len(text))]
    path = tmp_path / "boxes.jsonl"
    path.write_text(text)
    config = BuildConfig(
        dataset=str(tmp_path / "pairs.jsonl"), annotations=str(path), output_dir=str(tmp_path / "out")
    )
    with suppress(UserError):
        assert build_dataset(config).rows == 1
        return
    with pytest.raises(UserError, match=str(tmp_path)):
        build_dataset(config)
