"""Files of every kind, splits, and what is read through ``datasets``, from local folders only."""

from __future__ import annotations

import gzip
import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mfpo.data import json_items, tables
from mfpo.data.json_items import BrokenJsonError
from mfpo.data.source_config import SourceConfig
from mfpo.data.sources import Source
from mfpo.errors import Skip, UserError
from mfpo.records import Sample, text_of

ROW = {"image": "a.png", "question": "What?", "chosen": "A mug.", "rejected": "A cat."}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


def read(dataset: Path | str, **settings: Any) -> list[Sample | Skip]:
    return list(Source(SourceConfig(dataset=str(dataset), **settings)).items())


def answers(dataset: Path | str, **settings: Any) -> list[str]:
    return [text_of(row.chosen) for row in read(dataset, **settings) if isinstance(row, Sample)]


def numbered(*numbers: int) -> list[dict[str, Any]]:
    return [{**ROW, "chosen": str(number)} for number in numbers]


@given(st.lists(JSON, max_size=4) | st.dictionaries(st.text(max_size=4), JSON, max_size=4), st.booleans())
def test_the_items_of_a_document_are_what_json_loads_finds(document: Any, spaced: bool) -> None:
    text = json.dumps(document, indent=1 if spaced else None, ensure_ascii=spaced)
    chunk, json_items.CHUNK = json_items.CHUNK, 3
    try:
        found = [(i.key, json.loads(i.text or "")) for i in json_items.json_items(io.BytesIO(text.encode()))]
    finally:
        json_items.CHUNK = chunk
    expected = list(document.items()) if isinstance(document, dict) else [(None, item) for item in document]
    assert found == expected


@pytest.mark.parametrize("text", ["", "3", "[1", "[{]", "[}", "[1] 2", "[1][2]", '["a', '{"a" 1}x'])
def test_documents_that_are_none(text: str) -> None:
    with pytest.raises(BrokenJsonError):
        list(json_items.json_items(io.BytesIO(text.encode())))


def test_a_broken_item_of_an_array_costs_itself(tmp_path: Path) -> None:
    good = json.dumps(ROW)
    (tmp_path / "p.json").write_text(f'[{good}, {{"image": nope}}, 3, {good}]')
    rows = read(tmp_path / "p.json")
    assert [type(row) for row in rows] == [Sample, Skip, Skip, Sample]
    assert {row.reason for row in rows if isinstance(row, Skip)} == {"broken-json"}
    (tmp_path / "cut.json").write_text(f"[{good}, {good[:20]}")
    with pytest.raises(UserError, match="the file ends inside the document"):
        read(tmp_path / "cut.json")


def test_a_large_array_is_not_held_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_items, "CHUNK", 2**14)
    row = json.dumps({**ROW, "chosen": "word " * 200}, indent=1)
    with (tmp_path / "p.json").open("w") as file:
        file.write("[" + ",".join([row] * 4000) + "]")
    assert (tmp_path / "p.json").stat().st_size > 4_000_000
    # The raw rows: making paths of names lets the interpreter's table of strings grow as it likes.
    rows = tables.table_rows(tmp_path / "p.json")
    next(rows)
    tracemalloc.start()
    assert sum(1 for _ in rows) == 3999
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 200_000


def test_rows_of_absurd_length_are_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_items, "LONGEST_ITEM", 1000)
    monkeypatch.setattr(tables, "LONGEST_ITEM", 1000)
    long = {**ROW, "chosen": "x" * 5000}
    (tmp_path / "p.jsonl").write_text("\n".join(json.dumps(row) for row in [ROW, long, ROW]))
    (tmp_path / "p.json").write_text(json.dumps([ROW, long, ROW]))
    for name in ("p.jsonl", "p.json"):
        kinds = [row.reason if isinstance(row, Skip) else "" for row in read(tmp_path / name)]
        assert kinds == ["", "row-too-large", ""]


def test_compressed_files(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(row) for row in numbered(1, 2)).encode()
    (tmp_path / "p.jsonl.gz").write_bytes(gzip.compress(lines))
    (tmp_path / "q.json.gz").write_bytes(gzip.compress(json.dumps(numbered(1, 2)).encode()))
    assert answers(tmp_path / "p.jsonl.gz") == answers(tmp_path / "q.json.gz") == ["1", "2"]
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(lines)[:-9])
    (tmp_path / "fake.jsonl.gz").write_bytes(lines)
    for name in ("cut.jsonl.gz", "fake.jsonl.gz"):
        with pytest.raises(UserError, match="not a whole gzip file"):
            read(tmp_path / name)


def test_arrow_files(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(numbered(1, 2))
    for name, make in (("s.arrow", pa.ipc.new_stream), ("f.arrow", pa.ipc.new_file)):
        with make(str(tmp_path / name), table.schema) as writer:
            writer.write_table(table)
        assert answers(tmp_path / name) == ["1", "2"]
    (tmp_path / "x.arrow").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="not an Arrow file"):
        read(tmp_path / "x.arrow")


def test_a_text_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    texts = pa.array([b"good", b"bad \xff", b"good"], pa.binary()).view(pa.string())
    columns = {name: pa.array([value] * 3) for name, value in ROW.items()}
    pq.write_table(pa.table({**columns, "chosen": texts}), tmp_path / "p.parquet")
    rows = read(tmp_path / "p.parquet")
    assert [row.reason if isinstance(row, Skip) else "" for row in rows] == ["", "broken-text", ""]


def test_the_outline_of_parquet_does_not_read_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{**ROW, "image": [{"bytes": b"x" * 100, "path": "a.png"}], "n": n} for n in range(40)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    asked: list[Any] = []
    original = pq.ParquetFile.iter_batches

    def spy(self: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(kwargs["columns"])
        return original(self, *args, **kwargs)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    source = Source(SourceConfig(dataset=str(tmp_path / "p.parquet")))
    outline = source.outline()
    assert (outline.items, outline.extra) == (40, {"n": int})
    assert asked[0] is not None and not any("bytes" in leaf for leaf in asked[0])
    assert source.count() == 40


def test_the_stamp_follows_image_files(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(ROW))
    (tmp_path / "a.png").write_bytes(b"one")
    before = Source(SourceConfig(dataset=str(tmp_path / "p.jsonl"))).outline().stamp
    assert Source(SourceConfig(dataset=str(tmp_path / "p.jsonl"))).outline().stamp == before
    (tmp_path / "a.png").write_bytes(b"another")
    assert Source(SourceConfig(dataset=str(tmp_path / "p.jsonl"))).outline().stamp != before


@pytest.mark.parametrize(
    "row",
    [
        {**ROW, "image": "file://{folder}/a.png"},
        {
            **{name: value for name, value in ROW.items() if name not in ("image", "question")},
            "prompt": [
                {
                    "role": "user",
                    "content": [{"type": "image", "path": "a.png"}, {"type": "text", "text": "What?"}],
                }
            ],
        },
    ],
    ids=["file://", "inside a message"],
)
def test_the_stamp_follows_images_however_they_are_named(tmp_path: Path, row: dict[str, Any]) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps(row).replace("{folder}", str(tmp_path)))
    (tmp_path / "a.png").write_bytes(b"one")
    before = Source(SourceConfig(dataset=str(tmp_path / "p.jsonl"))).outline().stamp
    (tmp_path / "a.png").write_bytes(b"another")
    assert Source(SourceConfig(dataset=str(tmp_path / "p.jsonl"))).outline().stamp != before


def test_rejected_images_of_plain_bytes_are_seen_without_reading_them(tmp_path: Path) -> None:
    columns = {name: pa.array([value] * 2) for name, value in ROW.items()}
    columns["rejected_images"] = pa.array([[b"png"], [b"png"]], pa.list_(pa.binary()))
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    assert Source(SourceConfig(dataset=str(tmp_path / "p.parquet"))).outline().rejected_images


def test_splits_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number, split in enumerate(("train", "test")):
        pq.write_table(
            pa.Table.from_pylist(numbered(number)), tmp_path / f"data/{split}-00000-of-00001.parquet"
        )
    assert answers(tmp_path) == ["0"]
    assert answers(tmp_path, split="test") == ["1"]
    with pytest.raises(UserError, match="no file here belongs to a split validation"):
        read(tmp_path, split="validation")
    (tmp_path / "p.jsonl").write_text(json.dumps(ROW))
    with pytest.raises(UserError, match="one file has no splits"):
        read(tmp_path / "p.jsonl", split="train")


@pytest.fixture
def carded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two subsets and two splits, which only its card tells apart."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "carded"
    for number, name in enumerate(("easy/a.jsonl", "easy/b.jsonl", "hard/a.jsonl")):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join(json.dumps(row) for row in numbered(number, number)))
    (folder / "README.md").write_text(
        "---\nlicense: cc-by-4.0\nconfigs:\n"
        "- config_name: easy\n  default: true\n  data_files:\n"
        "  - split: train\n    path: easy/a.jsonl\n  - split: test\n    path: easy/b.jsonl\n"
        "- config_name: hard\n  data_files:\n  - split: train\n    path: hard/a.jsonl\n---\n"
    )
    return folder


@pytest.mark.parametrize("streaming", [False, True])
def test_subsets_and_splits_by_a_card(carded: Path, streaming: bool) -> None:
    assert answers(carded, streaming=streaming) == ["0", "0"]
    assert answers(carded, split="test", streaming=streaming) == ["1", "1"]
    assert answers(carded, subset="hard", streaming=streaming, limit=1) == ["2"]
    with pytest.raises(UserError, match="datasets cannot load it"):
        read(carded, subset="none", streaming=streaming)


def test_a_stream_is_not_read_for_its_outline(carded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Source(SourceConfig(dataset=str(carded), subset="hard"))
    assert source.outline().items == 2
    stream = Source(SourceConfig(dataset=str(carded), streaming=True))
    assert (stream.table.count(), stream.outline().extra) == (None, {})


def test_saved_datasets_with_splits(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    rows = DatasetDict({name: Dataset.from_list(numbered(n)) for n, name in enumerate(("train", "test"))})
    rows.save_to_disk(str(tmp_path / "saved"))
    assert answers(tmp_path / "saved") == ["0"]
    assert answers(tmp_path / "saved", split="test") == ["1"]
    with pytest.raises(UserError, match="name one with --split: test, train"):
        read(tmp_path / "saved", split="dev")


def test_rows_from_the_hub_name_no_file_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network is not needed: what ``load_dataset`` would bring stands in for it."""
    import datasets

    secret = tmp_path / "secret.png"
    secret.write_bytes(b"secret")
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "a.png").write_bytes(b"a")
    (pictures / "link.png").symlink_to(secret)
    names = ["a.png", str(secret), "../secret.png", "link.png", "/etc/passwd", "https://example.com/a.png"]
    rows = datasets.Dataset.from_list([{**ROW, "image": name} for name in names])
    asked: dict[str, Any] = {}

    def load(path: str, **settings: Any) -> Any:
        asked.update(settings, dataset=path)
        return rows

    monkeypatch.setattr(datasets, "load_dataset", load)
    settings = {"split": "train[:10]", "subset": "s", "revision": "abc", "streaming": True}
    found = read("owner/name", image_dir=str(pictures), **settings)
    reasons = [row.reason if isinstance(row, Skip) else "" for row in found]
    assert reasons == ["", *["outside-image-dir"] * 4, "remote-image"]
    assert asked == {
        "dataset": "owner/name",
        "name": "s",
        "split": "train[:10]",
        "revision": "abc",
        "streaming": True,
    }
    assert {row.reason for row in read("owner/name") if isinstance(row, Skip)} == {
        "outside-image-dir",
        "remote-image",
    }


def test_plain_bytes_beside_a_path(tmp_path: Path) -> None:
    """The outline is made without the bytes, and comes to the same further columns as the rows."""
    rows = [{**ROW, "image": b"x", "image_path": "x/a.png"}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "p.parquet")
    source = Source(SourceConfig(dataset=str(tmp_path / "p.parquet")))
    (row,) = source.items()
    assert isinstance(row, Sample) and row.images[0].data == b"x"
    assert row.extra.keys() == source.outline().extra.keys() == {"image_path"}


def test_names_that_no_file_can_have() -> None:
    for name in ("a\0b", "x" * 5000):
        with pytest.raises(UserError):
            read(name)


def test_a_folder_of_pictures_with_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets
    from PIL import Image

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "pictures/train").mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "pictures/train/a.png")
    row = {"file_name": "a.png", "question": "What?", "chosen": "A mug.", "rejected": "A cat."}
    (tmp_path / "pictures/train/metadata.jsonl").write_text(json.dumps(row))
    for dataset in (tmp_path / "pictures", tmp_path / "pictures/train"):
        (found,) = read(dataset)
        assert isinstance(found, Sample), found
        assert found.images[0].read() == (tmp_path / "pictures/train/a.png").read_bytes()
