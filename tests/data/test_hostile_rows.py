"""Damaged rows of every layout, damaged files of every kind: each row is kept, or skipped with its reason."""

from __future__ import annotations

import copy
import json
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from test_layouts import LAYOUTS as EXAMPLES
from test_sources import FORMATS

from mfpo.data.layouts.pictures import ImageFiles
from mfpo.data.layouts.table import LAYOUTS, read_row
from mfpo.data.source_config import SourceConfig
from mfpo.data.sources import Source
from mfpo.errors import RowError, Skip, UserError
from mfpo.records import Sample

ROWS = {**{f"{name} row": row for name, row in FORMATS.items()}, **EXAMPLES}
DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]
VALUES: list[Any] = [
    *(
        None,
        True,
        -1,
        10**40,
        float("nan"),
        float("inf"),
        "",
        " ",
        "\0",
        "\ud800",
        "a" * 100_000,
        [],
        {},
        DEEP,
    ),
    *(
        {"bytes": None},
        {"bytes": "!!", "path": 3},
        {"bytes": "AAAA", "path": "\0"},
        {"type": "image"},
        [None],
    ),
    *([{"role": "user"}], [{"role": "user", "content": 3}], [{"from": None, "value": None}], [[]], [[[1]]]),
    *([{"role": "assistant", "content": [{"type": "image", "image": DEEP}]}], {"role": [], "content": {}}),
    *(
        "../../etc/passwd",
        "/dev/zero",
        "http://127.0.0.1/x.png",
        "HTTPS://x",
        "file:///etc/passwd",
        "hf://a/b",
    ),
    *(
        "data:image/png;base64,@@@",
        "data:,x",
        "data:" + "x" * 9000,
        "/9j/" + "A" * 99,
        "iVBORw0KGgo" + "=" * 99,
    ),
    *(
        "x" * 5000,
        "a.png\n",
        "con:",
        "%s%n",
        "<image>" * 99,
        "<script>alert(1)</script>",
        "\u202egnp.a",
        "e\u0301" * 50,
    ),
    *(
        {"Rating": "9"},
        [{"response": 3, "annotations": []}],
        {"response": [[]], "annotations": {"a": {"Rating": {}}}},
    ),
]


def damaged(chance: random.Random, row: dict[str, Any]) -> dict[str, Any]:
    """The row with one to three values changed, removed or added, at any depth."""
    row = copy.deepcopy(row)
    for _ in range(chance.randrange(1, 4)):
        place: Any = row
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = chance.choice(keys)
            if isinstance(place[key], (dict, list)) and place[key] and chance.random() < 0.6:
                place = place[key]
                continue
            if chance.random() < 0.2:
                del place[key]
            else:
                place[key] = copy.deepcopy(chance.choice(VALUES))
            break
        if chance.random() < 0.3:
            row[chance.choice(["keywords", "rejected_images", "system", "history", "id", "\ud800", "x"])] = (
                copy.deepcopy(chance.choice(VALUES))
            )
    return row


@pytest.mark.parametrize("name", ROWS)
def test_damaged_rows_of_a_layout(tmp_path: Path, name: str) -> None:
    chance = random.Random(name)
    good = ROWS[name]
    rows = [good, *(damaged(chance, good) for _ in range(150))]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "p.json").write_text(json.dumps(rows))
    for file in ("p.jsonl", "p.json"):
        source = Source(SourceConfig(dataset=str(tmp_path / file)))
        items = list(source.items())
        assert len(items) == len(rows) == source.outline().items
        assert isinstance(items[0], Sample)
        assert all(item.reason and item.where for item in items if isinstance(item, Skip))
        for item in items:
            if isinstance(item, Sample):
                places = sum(part["type"] == "image" for m in item.prompt for part in m["content"])
                assert places == len(item.images) > 0
                json.dumps([item.prompt, item.chosen, item.rejected]).encode()


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_values_of_any_kind_in_any_column(layout: Any) -> None:
    """Each layout by itself, so that no recognition stands before it."""
    chance = random.Random(layout.name)
    columns = [*layout.columns, *layout.optional, "images", "image_id"]
    for _ in range(400):
        row = {column: chance.choice(VALUES) for column in columns if chance.random() < 0.95}
        row = {**dict.fromkeys(layout.columns), **row}
        with suppress(RowError):
            assert isinstance(read_row(layout, row, "x:1", ImageFiles(Path("/nowhere"))), Sample)


def test_parquet_of_odd_types(tmp_path: Path) -> None:
    """Columns that a layout reads as text hold numbers, times, maps, decimals, dictionaries, nothing."""
    import datetime
    import decimal

    odd = [
        pa.array([1, 2]),
        pa.array([datetime.datetime(2024, 1, 1)] * 2),
        pa.array([[("a", 1)], []], pa.map_(pa.string(), pa.int64())),
        pa.array([decimal.Decimal("1.5")] * 2),
        pa.array(["a", "b"]).dictionary_encode(),
        pa.nulls(2),
        pa.array([b"\xff", None]),
        pa.array([2**64 - 1, 0], pa.uint64()),
    ]
    good = {name: pa.array(["a.png", "b.png"]) for name in ("image", "question", "chosen", "rejected")}
    for number, array in enumerate(odd):
        for name in (*good, "extra"):
            path = tmp_path / f"{number}-{name}.parquet"
            pq.write_table(pa.table({**good, name: array}), path)
            source = Source(SourceConfig(dataset=str(path)))
            assert len(list(source.items())) == source.outline().items == 2


@pytest.mark.parametrize("seed", range(40))
def test_damaged_files(tmp_path: Path, seed: int) -> None:
    """Bytes changed, cut or doubled in files of every kind."""
    chance = random.Random(seed)
    rows = [{"image": "a.png", "question": "q", "chosen": f"c{n}", "rejected": "r"} for n in range(30)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    with pa.ipc.new_stream(str(tmp_path / "p.arrow"), pa.Table.from_pylist(rows).schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows))
    (tmp_path / "p.json").write_text(json.dumps(rows))
    (tmp_path / "p.csv").write_text("image,question,chosen,rejected\n" + "a.png,q,c,r\n" * 30)
    import gzip

    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode()))
    for path in sorted(tmp_path.iterdir()):
        data = bytearray(path.read_bytes())
        for _ in range(chance.randrange(1, 6)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.3:
            data = data[: chance.randrange(len(data))]
        path.write_bytes(data)
        with suppress(UserError):
            source = Source(SourceConfig(dataset=str(path)))
            assert all(isinstance(item, (Sample, Skip)) for item in source.items())
            source.outline()


@pytest.mark.slow
def test_a_build_of_damaged_rows_of_all_layouts(tmp_path: Path) -> None:
    from mfpo.data.files import read_jsonl
    from mfpo.data.folder import open_dataset
    from mfpo.preferences.build import build_dataset
    from mfpo.preferences.config import BuildConfig

    chance = random.Random(1)
    for name in ("a.png", "7.jpg"):
        Image.new("RGB", (32, 24), "red").save(tmp_path / name)
    lines = [json.dumps(damaged(chance, row) if n else row) for row in ROWS.values() for n in range(9)]
    (tmp_path / "p.jsonl").write_text("\n".join(lines))
    (tmp_path / "boxes.jsonl").write_text(json.dumps({"image": "a.png", "boxes": {"mug": [[1, 1, 9, 9]]}}))
    config = BuildConfig(
        dataset=str(tmp_path / "p.jsonl"),
        annotations=str(tmp_path / "boxes.jsonl"),
        output_dir=str(tmp_path / "out"),
    )
    summary = build_dataset(config)
    skipped = read_jsonl(tmp_path / "out/skipped.jsonl")
    assert summary.rows + len(skipped) == len(lines)
    assert summary.rows > 10 and len(skipped) > 80 and all(entry["reason"] for entry in skipped)
    assert len(list(open_dataset(tmp_path / "out"))) == summary.rows
