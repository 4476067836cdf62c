from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mfpo.data.columns import extra_types
from mfpo.data.files import read_jsonl
from mfpo.data.folder import PreferenceDataset, open_dataset, read_manifest, shard_files
from mfpo.data.writer import DatasetWriter, check_free, check_writable
from mfpo.errors import Skip, UserError
from mfpo.records import (
    ImageSource,
    Keyword,
    Noise,
    PreferencePair,
    Region,
    assistant_message,
    user_message,
)


def png(value: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (4, 3), (value % 256, 0, 0)).save(data, "PNG")
    return data.getvalue()


def pair(number: int, **changes: object) -> PreferencePair:
    row = PreferencePair(
        id=f"{number:016x}",
        images=(ImageSource(f"images/{number}.png", png(number)),),
        prompt=user_message(f"Question {number}?"),
        chosen=assistant_message("A red mug beside a mug."),
        rejected=assistant_message(""),
        keywords=(Keyword("red mug", 1.25, ((2, 9),)), Keyword("mug", 0.1, ((6, 9), (19, 22)))),
        regions=(Region("mug", (0.5, 1.0, 3.25, 2.0), 0.75, "32", (3, 4)),),
        noise=Noise(seed=2**63 - 1),
    )
    return replace(row, **changes)  # type: ignore[arg-type]


def write(folder: Path, rows: list[PreferencePair], **options: object) -> None:
    with DatasetWriter(folder, **options) as writer:  # type: ignore[arg-type]
        for row in rows:
            writer.write(row)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [
        pair(0),
        pair(1, regions=(), keywords=(), noise=Noise("crop", "ddpm-linear", box=(0, 1, 2, 3), feather=0.1)),
        pair(
            2, images=(ImageSource(None, png(7)), ImageSource("b.png", png(8))), prompt=user_message("?", 2)
        ),
        pair(3, extra={"origin": "COCO", "idx": 4, "share": 0.5, "flag": True}),
        pair(4, rejected_images=(ImageSource("r.png", png(9)),)),
    ]
    write(tmp_path, rows)
    dataset = open_dataset(tmp_path)
    assert list(dataset) == rows
    assert dataset.ids == [row.id for row in rows]
    assert dataset[-1] == rows[-1]
    with pytest.raises(IndexError):
        dataset[5]


def test_load_dataset_opens_the_folder(tmp_path: Path) -> None:
    from datasets import Image as ImageFeature
    from datasets import List, load_dataset

    rows = [pair(number, extra={"origin": "COCO"}) for number in range(5)]
    with DatasetWriter(tmp_path / "photos", rows_per_shard=2) as writer:
        for row in rows:
            writer.write(row)
            writer.skip(Skip("p.jsonl:9", "missing-image", "gone"))
    opened = load_dataset(str(tmp_path / "photos"), split="train", cache_dir=str(tmp_path / "cache"))
    assert opened.features["images"] == List(ImageFeature())
    assert opened["id"][:] == [row.id for row in rows]
    assert opened.column_names == [
        *("images", "prompt", "chosen", "rejected", "id", "keywords", "regions", "region_status", "noise"),
        "origin",
    ]
    first = opened[3]
    assert first["images"][0].getpixel((0, 0)) == (3, 0, 0)
    assert first["keywords"][1] == {"text": "mug", "score": 0.1, "spans": [[6, 9], [19, 22]]}
    assert first["regions"][0]["size"] == [3, 4]
    raw = opened.cast_column("images", List(ImageFeature(decode=False)))[3]["images"]
    assert raw == [{"bytes": png(3), "path": "images/3.png"}]


def test_trl_understands_the_rows(tmp_path: Path) -> None:
    from datasets import load_dataset
    from trl.data_utils import is_conversational, prepare_multimodal_messages

    write(tmp_path / "d", [pair(0)])
    row = load_dataset(str(tmp_path / "d"), split="train", cache_dir=str(tmp_path / "cache"))[0]
    assert is_conversational(row)
    prompt = prepare_multimodal_messages(row["prompt"], images=row["images"])
    assert [part["type"] for part in prompt[0]["content"]] == ["image", "text"]
    assert prompt[0]["content"][0]["image"] is row["images"][0]


def test_shards_are_cut_by_rows_and_by_bytes(tmp_path: Path) -> None:
    write(tmp_path / "rows", [pair(number) for number in range(5)], rows_per_shard=2)
    assert [path.name for path in shard_files(tmp_path / "rows")] == [
        f"train-0000{index}-of-00003.parquet" for index in range(3)
    ]
    same = (ImageSource("a.png", png(0)),)
    rows = [pair(number, images=same) for number in range(4)]
    write(tmp_path / "bytes", rows, bytes_per_shard=len(png(0)) + 1)
    assert len(shard_files(tmp_path / "bytes")) == 2
    manifest = read_manifest(tmp_path / "rows")
    assert manifest is not None and [shard["rows"] for shard in manifest["shards"]] == [2, 2, 1]


def test_random_access_across_shards_and_row_groups(tmp_path: Path) -> None:
    rows = [pair(number) for number in range(90)]
    write(tmp_path, rows, rows_per_shard=40)
    dataset = PreferenceDataset(tmp_path)
    for index in np.random.default_rng(0).permutation(90):
        assert dataset[int(index)] == rows[index]


def _third(dataset: PreferenceDataset) -> str:
    return dataset[2].id


def test_it_can_be_pickled_and_read_in_other_processes(tmp_path: Path) -> None:
    write(tmp_path, [pair(number) for number in range(3)])
    dataset = open_dataset(tmp_path)
    assert dataset[2].id == pair(2).id
    assert pickle.loads(pickle.dumps(dataset))[2] == dataset[2]  # noqa: S301
    child = os.fork()
    if child == 0:
        os._exit(0 if dataset[2] == pair(2) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with get_context("spawn").Pool(1) as pool:
        assert pool.apply(_third, (dataset,)) == pair(2).id


class InterruptError(BaseException):
    pass


def interrupted(folder: Path, rows: list[PreferencePair], after: int, **options: object) -> None:
    def write_some() -> None:
        with DatasetWriter(folder, **options) as writer:  # type: ignore[arg-type]
            for position, row in enumerate(rows):
                if position == after:
                    raise InterruptError
                writer.position = position + 1
                writer.skip(Skip(f"row {position}", "test"))
                writer.write(row)

    with pytest.raises(InterruptError):
        write_some()


def finish(folder: Path, rows: list[PreferencePair], **options: object) -> int:
    """Goes on like a resumed build; gives the position it began at."""
    with DatasetWriter(folder, **options) as writer:  # type: ignore[arg-type]
        start = writer.position
        for position, row in enumerate(rows[start:], start=start):
            writer.position = position + 1
            writer.skip(Skip(f"row {position}", "test"))
            writer.write(row)
    return start


ROWS = [pair(number) for number in range(7)]


@pytest.mark.parametrize(("after", "start"), [(0, 0), (1, 0), (2, 2), (5, 4), (6, 6)])
def test_a_resumed_folder_equals_an_uninterrupted_one(tmp_path: Path, after: int, start: int) -> None:
    options = {"rows_per_shard": 2, "fingerprint": "abc"}
    finish(tmp_path / "whole", ROWS, **options)
    interrupted(tmp_path / "resumed", ROWS, after, **options)
    assert not shard_files(tmp_path / "resumed")
    with pytest.raises(UserError, match="is unfinished" if start else "finished no rows"):
        open_dataset(tmp_path / "resumed")
    assert finish(tmp_path / "resumed", ROWS, **options) == start
    for name in [
        *(f"data/{path.name}" for path in shard_files(tmp_path / "whole")),
        "skipped.jsonl",
        "manifest.json",
    ]:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "resumed").iterdir()) == [
        *("README.md", "data", "manifest.json", "skipped.jsonl")
    ]


def test_a_shard_without_its_record_is_written_again(tmp_path: Path) -> None:
    options = {"rows_per_shard": 2, "fingerprint": "abc"}
    interrupted(tmp_path, ROWS, 5, **options)
    (tmp_path / ".build/00001.json").unlink()
    (tmp_path / ".build/00001.parquet").write_bytes(b"PAR1 cut off")
    assert finish(tmp_path, ROWS, **options) == 2
    assert list(open_dataset(tmp_path)) == ROWS


def test_killed_while_the_shards_get_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = {"rows_per_shard": 2, "fingerprint": "abc"}
    interrupted(tmp_path / "killed", ROWS, 6, **options)
    shutil.copytree(tmp_path / "killed", tmp_path / "whole")
    finish(tmp_path / "whole", ROWS, **options)

    moves = 0
    replace_file = Path.replace

    def fail_third(self: Path, target: Path) -> Path:
        nonlocal moves
        if "train-" in str(target):
            moves += 1
            if moves == 3:
                raise InterruptError
        return replace_file(self, target)

    monkeypatch.setattr(Path, "replace", fail_third)
    with pytest.raises(InterruptError):
        finish(tmp_path / "killed", ROWS, **options)
    assert read_manifest(tmp_path / "killed") is None
    with pytest.raises(UserError, match="unfinished"):
        open_dataset(tmp_path / "killed")
    finish(tmp_path / "killed", ROWS, **options)
    assert list(open_dataset(tmp_path / "killed")) == ROWS
    skipped = [read_jsonl(tmp_path / name / "skipped.jsonl") for name in ("killed", "whole")]
    assert skipped[0] == skipped[1] and len(skipped[0]) == 7


def test_another_dataset_in_the_folder_is_not_touched(tmp_path: Path) -> None:
    write(tmp_path, ROWS[:3], fingerprint="one")
    before = shard_files(tmp_path)[0].read_bytes()
    with pytest.raises(UserError, match=r"already here.*\n.*--overwrite"):
        DatasetWriter(tmp_path, fingerprint="two")
    with pytest.raises(UserError, match="already here"):
        DatasetWriter(tmp_path)
    assert shard_files(tmp_path)[0].read_bytes() == before
    write(tmp_path, ROWS, fingerprint="two", overwrite=True, rows_per_shard=4)
    assert list(open_dataset(tmp_path)) == ROWS


def test_an_unfinished_dataset_with_other_settings_is_not_continued(tmp_path: Path) -> None:
    interrupted(tmp_path, ROWS, 5, rows_per_shard=2, fingerprint="one")
    with pytest.raises(UserError, match="other settings"):
        DatasetWriter(tmp_path, fingerprint="two")
    assert finish(tmp_path, ROWS, rows_per_shard=2, fingerprint="two", overwrite=True) == 0
    assert list(open_dataset(tmp_path)) == ROWS


def test_what_finished_no_row_does_not_block_other_settings(tmp_path: Path) -> None:
    """A build that fails at once is repeated with the mistake mended."""
    interrupted(tmp_path, ROWS, 1, rows_per_shard=2, fingerprint="one")
    check_free(tmp_path, "two")
    assert finish(tmp_path, ROWS, rows_per_shard=2, fingerprint="two") == 0
    assert list(open_dataset(tmp_path)) == ROWS
    with pytest.raises(UserError, match="already here"):
        check_free(tmp_path, "one")
    check_free(tmp_path, "one", overwrite=True)


@pytest.mark.parametrize("name", ["README.md", "config.yaml", "skipped.jsonl", "manifest.json"])
def test_files_of_somebody_else_are_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("years of work")
    for fingerprint in ("", "one"):
        with pytest.raises(UserError, match=f"{name} would be replaced") as caught:
            DatasetWriter(tmp_path, fingerprint=fingerprint)
        assert "--overwrite" in caught.value.fix
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "years of work"
    write(tmp_path, ROWS, fingerprint="one", overwrite=True)
    assert list(open_dataset(tmp_path)) == ROWS


def test_other_peoples_files_beside_a_dataset_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    interrupted(tmp_path, ROWS, 5, rows_per_shard=2, fingerprint="one")
    (tmp_path / "README.md").write_text("written by somebody while the build was interrupted")
    finish(tmp_path, ROWS, rows_per_shard=2, fingerprint="one")
    assert list(open_dataset(tmp_path)) == ROWS and (tmp_path / "notes.txt").is_file()


def test_what_nobody_can_go_on_with_does_not_stay(tmp_path: Path) -> None:
    interrupted(tmp_path, ROWS, 5, rows_per_shard=2)
    assert not list(tmp_path.iterdir())


def test_a_check_of_a_folder_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    for folder in (tmp_path / "old", tmp_path / "new/in/new"):
        check_writable(folder, keep=False)
    assert [path.name for path in tmp_path.rglob("*")] == ["old"]
    check_writable(tmp_path / "new/in/new")
    assert (tmp_path / "new/in/new").is_dir()


def test_a_failed_overwrite_keeps_the_old_dataset(tmp_path: Path) -> None:
    write(tmp_path, ROWS, fingerprint="one")
    interrupted(tmp_path, ROWS[:3], 2, rows_per_shard=1, fingerprint="two", overwrite=True)
    assert list(open_dataset(tmp_path)) == ROWS


def test_no_rows_is_an_error_that_says_why(tmp_path: Path) -> None:
    def write_nothing() -> None:
        with DatasetWriter(tmp_path) as writer:
            writer.skip(Skip("p.jsonl:1", "missing-image", "a.png does not exist"))

    with pytest.raises(
        UserError, match=r"1 missing-image.*\n.*--image_dir; .*p.jsonl:1.*a.png does not exist"
    ):
        write_nothing()


def _blocked_by_a_file(folder: Path) -> Path:
    folder.write_text("a file")
    return folder / "inside"


def _read_only(folder: Path) -> Path:
    folder.mkdir(mode=0o500)
    return folder


@pytest.mark.parametrize("make", [_blocked_by_a_file, _read_only])
def test_an_unwritable_folder_is_refused_at_once(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    folder = make(tmp_path / "target")
    if make is _read_only and os.access(folder, os.W_OK):
        pytest.skip("this user may write anywhere")
    with pytest.raises(UserError, match="cannot be written"):
        DatasetWriter(folder)


def test_folders_that_are_no_datasets(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no dataset in this folder"):
        open_dataset(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="not a Parquet file"):
        open_dataset(tmp_path)


def test_a_file_in_the_place_of_a_dataset_says_what_makes_one(tmp_path: Path) -> None:
    pairs = tmp_path / "my pairs.jsonl"
    pairs.write_text("{}")
    with pytest.raises(UserError) as caught:
        open_dataset(pairs)
    assert str(caught.value).startswith(f"--dataset {pairs}: a file, and not a dataset folder")
    assert f"`mfpo build --dataset '{pairs}' --output_dir 'data/my pairs'`" in caught.value.fix
    write(tmp_path / "built", [pair(0)])
    with pytest.raises(UserError, match=rf"--dataset {tmp_path}/built$"):
        open_dataset(shard_files(tmp_path / "built")[0])


def test_a_late_new_column_is_a_programming_error(tmp_path: Path) -> None:
    rows = [pair(0), pair(1, extra={"new": 1})]
    with pytest.raises(ValueError, match="new"):
        write(tmp_path, rows, rows_per_shard=1)
    write(tmp_path, rows, rows_per_shard=1, extra_columns={"new": int}, overwrite=True)
    assert [row.extra for row in open_dataset(tmp_path)] == [{}, {"new": 1}]


def test_types_of_further_columns() -> None:
    rows = [
        {"a": 1, "b": True, "c": 1, "d": "x", "e": None, "f": [1], "g": 2**70},
        {"a": 0.5, "b": 1, "c": 2, "d": 3, "e": 1},
    ]
    assert extra_types(rows) == {"a": float, "b": str, "c": int, "d": str, "e": int, "g": str}


def test_the_card_is_one_that_the_hub_can_read(tmp_path: Path) -> None:
    import yaml

    write(tmp_path / "photos", [pair(0)])
    header = (tmp_path / "photos/README.md").read_text().split("---\n")[1]
    assert yaml.safe_load(header)["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*"}]
    json.loads((tmp_path / "photos/manifest.json").read_text())


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
keywords = st.builds(
    Keyword,
    texts,
    st.floats(0, 10),
    st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=2).map(tuple),
)
boxes = st.tuples(*[st.floats(0, 1e4, allow_nan=False)] * 4)
regions = st.builds(
    Region, texts, boxes, st.floats(0, 1), texts, st.tuples(st.integers(1, 9999), st.integers(1, 9999))
)


@settings(max_examples=30, deadline=None)
@given(texts, st.lists(keywords, max_size=3), st.lists(regions, max_size=3), st.none() | boxes)
def test_any_row_round_trip(
    tmp_path_factory: pytest.TempPathFactory,
    text: str,
    words: list[Keyword],
    places: list[Region],
    box: tuple[float, float, float, float] | None,
) -> None:
    row = pair(
        1,
        chosen=assistant_message(text),
        keywords=tuple(words),
        regions=tuple(places),
        noise=Noise(scope="crop", box=box),
    )
    folder = tmp_path_factory.mktemp("round-trip")
    write(folder, [row])
    assert open_dataset(folder)[0] == row
