from __future__ import annotations

import io
import json
import re
from collections import Counter
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mfpo.data.files import read_jsonl
from mfpo.data.folder import open_dataset, read_manifest, shard_files
from mfpo.data.images import open_image
from mfpo.data.writer import DatasetWriter
from mfpo.errors import UserError
from mfpo.preferences import build, rejected
from mfpo.preferences.build import build_dataset
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.noise import draw_step
from mfpo.preferences.regions.base import BACKENDS, load_backend
from mfpo.preferences.regions.masks import union_mask
from mfpo.preferences.worker import Request, Worker
from mfpo.records import PreferencePair, row_id, row_seed

CHOSEN, REJECTED = "A red mug stands beside a plate.", "A blue mug stands beside a fork."
BOXES = {"mug": [[0.25, 0.25, 0.5, 0.75]], "plates": [[0.5, 0.5, 1.0, 1.0]]}


def picture(seed: int = 0, size: tuple[int, int] = (32, 24)) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(values)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


class Source:
    """A JSON Lines file with an image folder and annotations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.annotations: list[dict[str, Any]] = []
        (folder / "images").mkdir(parents=True)

    def add(
        self, name: str, data: bytes | None, *, boxes: dict[str, Any] | None = None, **row: object
    ) -> None:
        if data is not None:
            (self.folder / "images" / name).write_bytes(data)
        values = {"image": f"images/{name}", "question": "What?", "chosen": CHOSEN, "rejected": REJECTED}
        self.lines.append(json.dumps({**values, **row}))
        self.annotations.append({"image": name, "boxes": BOXES if boxes is None else boxes})

    def config(self, output: str | Path, **settings: Any) -> BuildConfig:
        (self.folder / "pairs.jsonl").write_text("\n".join(self.lines) + "\n")
        rows = "".join(json.dumps(row) + "\n" for row in self.annotations)
        (self.folder / "annotations.jsonl").write_text(rows)
        return BuildConfig(
            dataset=str(self.folder / "pairs.jsonl"),
            annotations=str(self.folder / "annotations.jsonl"),
            output_dir=str(output),
            **settings,
        )


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return Source(tmp_path / "source")


def with_pictures(source: Source, count: int) -> Source:
    for number in range(count):
        source.add(f"{number}.png", encoded(picture(number)), number=number)
    return source


def test_a_row_from_end_to_end(source: Source, tmp_path: Path) -> None:
    data = encoded(picture(), "JPEG")
    source.add("a.jpg", data, origin_dataset="COCO")
    summary = build_dataset(source.config(tmp_path / "out", seed=3))
    (row,) = open_dataset(tmp_path / "out")
    assert row.images[0].data == data and row.images[0].path == "images/a.jpg"
    assert row.id == row_id([data], row.prompt, row.chosen, row.rejected)
    assert {keyword.text for keyword in row.keywords} == {"red mug", "plate"}
    assert all(CHOSEN[start:end] == word.text for word in row.keywords for start, end in word.spans)
    assert {(place.keyword, place.box, place.score, place.size) for place in row.regions} == {
        ("red mug", (8, 6, 16, 18), 1.0, (24, 32)),
        ("plate", (16, 12, 32, 24), 1.0, (24, 32)),
    }
    noise = row.noise
    assert (noise.scope, noise.schedule, noise.step, noise.seed) == (
        "region",
        "vcd",
        500,
        row_seed(3, row.id),
    )
    assert row.extra == {"origin_dataset": "COCO"}
    assert (summary.rows, summary.keywords, summary.found) == (1, 2, 2)
    assert (tmp_path / "out/config.yaml").is_file()


def test_every_bad_input_is_a_counted_skip_or_a_kept_row(source: Source, tmp_path: Path) -> None:
    jpeg = encoded(picture(1, (64, 64)), "JPEG")
    rotated = Image.Exif()
    rotated[0x0112] = 6
    kept = {
        "cmyk.jpg": encoded(picture(2).convert("CMYK"), "JPEG"),
        "palette.png": encoded(picture(3).convert("P")),
        "deep.png": encoded(Image.fromarray(np.full((24, 32), 40_000, dtype=np.uint16))),
        "moving.gif": encoded(picture(4), "GIF", save_all=True, append_images=[picture(5)]),
        "rotated.jpg": encoded(picture(6), "JPEG", exif=rotated.tobytes()),
    }
    bomb = encoded(picture(7)).replace(b"\0\0\0\x20\0\0\0\x18", b"\0\0\xff\xff\0\0\xff\xff", 1)
    lost = {
        "nothing.jpg": (None, "missing-image"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "truncated-image"),
        "empty.jpg": (b"", "empty-image"),
        "page.jpg": (b"<html></html>", "not-an-image"),
        "bomb.png": (fixed_header(bomb), "image-too-large"),
    }
    for name, data in kept.items():
        source.add(name, data)
    for name, (broken, _) in lost.items():
        source.add(name, broken)
    plain = encoded(picture(8))
    source.add("plain.png", plain, chosen="")
    source.add("plain.png", plain, chosen=REJECTED)
    source.add("plain.png", plain, chosen="It is running quickly.")
    source.add("plain.png", plain, chosen="It is running quickly.")
    source.add("plain.png", plain, chosen=None)
    source.lines.append('{"image": "images/plain.png", "question"')
    source.lines.append(json.dumps({"unrelated": 1}))
    source.add("last.png", encoded(picture(9)))

    summary = build_dataset(source.config(tmp_path / "out"))
    assert summary.rows == len(kept) + 1 + 1
    expected = Counter(reason for _, reason in lost.values())
    assert summary.skipped == expected + Counter(
        ["duplicate", "missing-value", "missing-value", "no-preference", "broken-json", "wrong-columns"]
    )
    assert summary.rows + summary.skipped.total() == len(source.lines)
    by_line = {entry["where"]: entry["reason"] for entry in read_jsonl(tmp_path / "out/skipped.jsonl")}
    assert by_line["pairs.jsonl:6"] == "missing-image" and by_line["pairs.jsonl:16"] == "broken-json"
    rows = list(open_dataset(tmp_path / "out"))
    assert [row.images[0].path for row in rows][-1] == "images/last.png"
    without = [row for row in rows if not row.regions]
    assert [row.noise.scope for row in without] == ["global"] * len(without)
    assert summary.without_region == len(without) >= 1


def fixed_header(data: bytes) -> bytes:
    """A PNG whose header was edited, with a checksum that fits again."""
    import struct
    import zlib

    assert data[16:24] == b"\0\0\xff\xff\0\0\xff\xff"
    return data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:]


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_boxes_fit_a_picture_that_exif_turns(source: Source, tmp_path: Path, orientation: int) -> None:
    upright = Image.new("RGB", (48, 32), "white")
    upright.paste("red", (6, 4, 18, 28))
    turn = {
        1: None,
        3: Image.Transpose.ROTATE_180,
        6: Image.Transpose.ROTATE_90,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = upright.transpose(turn) if turn is not None else upright
    source.add("a.png", encoded(stored, exif=exif.tobytes()), boxes={"mug": [[6, 4, 18, 28]]})
    build_dataset(source.config(tmp_path / "out"))
    row = open_dataset(tmp_path / "out")[0]
    image = np.asarray(open_image(row.images[0]))
    mask = union_mask(row.regions, image.shape[:2])
    assert np.array_equal(mask, image[..., 1] == 0) and mask.any()


def test_load_dataset_opens_what_was_built(source: Source, tmp_path: Path) -> None:
    from datasets import load_dataset

    build_dataset(with_pictures(source, 3).config(tmp_path / "out"))
    rows = load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.num_rows == 3 and rows[2]["images"][0].size == (32, 24)
    assert rows["number"][:] == [0, 1, 2]


def test_a_built_folder_can_be_built_again(source: Source, tmp_path: Path) -> None:
    config = with_pictures(source, 3).config(tmp_path / "one")
    build_dataset(config)
    build_dataset(replace(config, dataset=str(tmp_path / "one"), output_dir=str(tmp_path / "two")))
    assert list(open_dataset(tmp_path / "one")) == list(open_dataset(tmp_path / "two"))


def all_bytes(folder: Path) -> dict[str, bytes]:
    paths = [*shard_files(folder), folder / "skipped.jsonl"]
    return {path.name: path.read_bytes() for path in paths}


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "DatasetWriter", partial(DatasetWriter, rows_per_shard=2))


def interrupt_at(monkeypatch: pytest.MonkeyPatch, picture: int, error: type[BaseException]) -> list[str]:
    """Let the search fail at its n-th picture; gives the list of names that it has seen."""
    made: list[str] = []
    original = Worker.search

    def search(self: Worker, request: Request) -> Any:
        if len(made) == picture:
            raise error
        made.append(str(request.image.path))
        return original(self, request)

    monkeypatch.setattr(Worker, "search", search)
    return made


@pytest.mark.usefixtures("small_shards")
def test_an_interrupted_build_goes_on_where_it_was(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_pictures(source, 3)
    source.add("gone.png", None)
    source.add("0.png", None, number=0)
    for number in range(3, 7):
        source.add(f"{number}.png", encoded(picture(number)), number=number)
    source.add("4.png", None, number=4)
    build_dataset(source.config(tmp_path / "whole"))

    with monkeypatch.context() as patch:
        interrupt_at(patch, 5, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            build_dataset(source.config(tmp_path / "resumed"))
    assert not shard_files(tmp_path / "resumed")
    made = interrupt_at(monkeypatch, 99, KeyboardInterrupt)
    summary = build_dataset(source.config(tmp_path / "resumed"))
    assert len(made) == 2, "five of seven pictures were searched before"
    assert all_bytes(tmp_path / "whole") == all_bytes(tmp_path / "resumed")
    assert summary.skipped == {"missing-image": 1, "duplicate": 2}
    assert build_dataset(source.config(tmp_path / "resumed")) == summary and len(made) == 2


@pytest.mark.usefixtures("small_shards")
@pytest.mark.parametrize("between", [0, 20])
def test_an_equal_row_after_one_that_was_left_out_is_kept(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, between: int
) -> None:
    """Whether both are in one window of 16 rows, in two open ones, or before and after an interruption."""
    data = encoded(picture(99))
    swapped = {"rejected_images": ["images/other.png"]}
    source.add("other.png", encoded(picture(98)), **swapped)
    source.add("same.png", data)
    for number in range(between):
        source.add(f"{number}.png", encoded(picture(number)), number=number, **swapped)
    source.add("same.png", data, **swapped)
    source.add("same.png", data, **swapped)
    source.add("same.png", data)
    for number in range(40, 44):
        source.add(f"{number}.png", encoded(picture(number)), number=number, **swapped)
    summary = build_dataset(source.config(tmp_path / "whole", noise_scope="swap"))
    assert summary.skipped == {"missing-rejected-image": 1, "duplicate": 2}
    assert summary.rows == 6 + between
    for stop in (1, 2, 4, 8, 18, 24):
        folder = tmp_path / f"resumed-{stop}"
        with monkeypatch.context() as patch:
            kill_after_rows(patch, stop)
            if stop < summary.rows:
                with pytest.raises(KeyboardInterrupt):
                    build_dataset(source.config(folder, noise_scope="swap"))
        assert build_dataset(source.config(folder, noise_scope="swap")) == summary
        assert all_bytes(folder) == all_bytes(tmp_path / "whole")


def kill_after_rows(monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """End a build once it has written so many rows."""
    write, written = DatasetWriter.write, 0

    def write_or_end(self: DatasetWriter, pair: PreferencePair) -> None:
        nonlocal written
        if written == rows:
            raise KeyboardInterrupt
        write(self, pair)
        written += 1

    monkeypatch.setattr(DatasetWriter, "write", write_or_end)


@pytest.mark.usefixtures("small_shards")
def test_settings_do_not_mix_in_one_folder(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = with_pictures(source, 40).config(tmp_path / "out")
    with monkeypatch.context() as patch:
        interrupt_at(patch, 36, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            build_dataset(config)
    other = replace(config, noise_step=700)
    with pytest.raises(UserError, match="unfinished dataset with other settings"):
        build_dataset(other)
    build_dataset(replace(config, num_workers=1))
    with pytest.raises(UserError, match="already here"):
        build_dataset(other)
    build_dataset(replace(other, overwrite=True))
    assert {row.noise.step for row in open_dataset(tmp_path / "out")} == {700}


def test_a_manifest_of_another_program_is_not_replaced(source: Source, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/manifest.json").write_text('{"version": 3}')
    config = with_pictures(source, 2).config(tmp_path / "out")
    with pytest.raises(UserError, match=r"manifest\.json would be replaced"):
        build_dataset(config)
    assert build_dataset(replace(config, overwrite=True)).rows == 2


def test_a_changed_source_is_another_dataset(source: Source, tmp_path: Path) -> None:
    build_dataset(with_pictures(source, 2).config(tmp_path / "out"))
    source.add("new.png", encoded(picture(9)), number=9)
    with pytest.raises(UserError, match="already here"):
        build_dataset(source.config(tmp_path / "out"))


def test_the_number_of_workers_changes_no_bit(source: Source, tmp_path: Path) -> None:
    with_pictures(source, 6)
    source.add("cut.png", encoded(picture(9))[:300])
    source.add("0.png", None, number=0)
    for workers in (1, 4):
        build_dataset(source.config(tmp_path / str(workers), num_workers=workers))
    assert all_bytes(tmp_path / "1") == all_bytes(tmp_path / "4")
    assert len(read_jsonl(tmp_path / "4/skipped.jsonl")) == 2


@pytest.mark.slow
def test_workers_draw_the_same_pictures(source: Source, tmp_path: Path, tiny_llava: Path) -> None:
    with_pictures(source, 3)
    for workers in (1, 2):
        config = source.config(tmp_path / str(workers), num_workers=workers)
        build_dataset(replace(config, materialize=True, model_name_or_path=str(tiny_llava)))
    assert all_bytes(tmp_path / "1") == all_bytes(tmp_path / "2")


@pytest.mark.parametrize("scope", ["global", "random", "crop", "black", "erase"])
def test_scopes(source: Source, tmp_path: Path, scope: str) -> None:
    build_dataset(with_pictures(source, 2).config(tmp_path / "out", noise_scope=scope, noise_fraction=0.3))
    for row in open_dataset(tmp_path / "out"):
        assert row.noise.scope == scope and row.noise.fraction == 0.3 and len(row.regions) == 2
        assert (row.noise.box is not None) == (scope == "crop")
        if row.noise.box is not None:
            x0, y0, x1, y1 = row.noise.box
            assert 0 <= x0 < x1 <= 32 and 0 <= y0 < y1 <= 24
            assert 0.005 < (x1 - x0) * (y1 - y0) / (32 * 24) < 0.25


def test_rejected_images_that_cannot_be_used_are_told_by_their_column(source: Source, tmp_path: Path) -> None:
    (source.folder / "images/page.png").write_bytes(b"<html></html>")
    source.add("a.png", encoded(picture()), rejected_images=["images/gone.png"])
    source.add("b.png", encoded(picture(1)), rejected_images=["images/page.png"])
    source.add("c.png", encoded(picture(2)))
    build_dataset(source.config(tmp_path / "out"))
    skips = read_jsonl(tmp_path / "out/skipped.jsonl")
    assert [skip["reason"] for skip in skips] == ["missing-image", "not-an-image"]
    column = "(in column rejected_images, the pictures for --noise_scope swap)"
    assert all(skip["detail"].endswith(column) for skip in skips)


def test_swap_needs_the_picture_to_swap_in(source: Source, tmp_path: Path) -> None:
    with_pictures(source, 2)
    (source.folder / "images/swapped.png").write_bytes(encoded(picture(50)))
    first = json.loads(source.lines[0])
    source.lines[0] = json.dumps({**first, "rejected_images": ["images/swapped.png"]})
    summary = build_dataset(source.config(tmp_path / "out", noise_scope="swap"))
    assert summary.skipped == {"missing-rejected-image": 1}
    (row,) = open_dataset(tmp_path / "out")
    assert row.rejected_images[0].data == encoded(picture(50))


def test_materialized_images_have_the_models_resolution(
    source: Source, tmp_path: Path, tiny_llava: Path
) -> None:
    config = with_pictures(source, 2).config(
        tmp_path / "out", materialize=True, model_name_or_path=str(tiny_llava), noise_step=900
    )
    build_dataset(config)
    for row in open_dataset(tmp_path / "out"):
        (source_image,) = row.rejected_images
        image = open_image(source_image)
        assert source_image.path == f"{row.id}.png" and image.size == (32, 32)
    with pytest.raises(UserError, match="--model_name_or_path"):
        build_dataset(replace(config, model_name_or_path=None))


def test_a_picture_that_the_image_processor_refuses_costs_its_row(
    source: Source, tmp_path: Path, tiny_llava: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Qwen's does with one that is 200 times as wide as high."""
    inputs, calls = rejected.rejected_inputs, []

    def refusing(*args: Any) -> Any:
        calls.append(args)
        if len(calls) == 2:
            raise ValueError("absolute aspect ratio must be smaller than 200")
        return inputs(*args)

    monkeypatch.setattr(rejected, "rejected_inputs", refusing)
    config = with_pictures(source, 3).config(
        tmp_path / "out", materialize=True, model_name_or_path=str(tiny_llava)
    )
    assert build_dataset(config).skipped == {"unusable-image": 1}
    assert len(list(open_dataset(tmp_path / "out"))) == 2


def test_several_pictures_in_a_row(source: Source, tmp_path: Path) -> None:
    with_pictures(source, 2)
    source.lines = [json.dumps({**json.loads(source.lines[0]), "image": ["images/0.png", "images/1.png"]})]
    build_dataset(source.config(tmp_path / "out"))
    (row,) = open_dataset(tmp_path / "out")
    assert [image.path for image in row.images] == ["images/0.png", "images/1.png"]
    assert [part["type"] for part in row.prompt[0]["content"]] == ["image", "image", "text"]


def test_a_dry_run_counts_and_writes_nothing(
    source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with_pictures(source, 3)
    source.add("gone.png", None)
    source.add("cut.png", encoded(picture(3))[:200])
    summary = build_dataset(source.config(tmp_path / "out", dry_run=True))
    assert (summary.rows, summary.skipped) == (3, {"missing-image": 1, "truncated-image": 1})
    assert not (tmp_path / "out").exists()
    assert "missing-image" in capsys.readouterr().out


def test_inspect_shows_the_first_rows(
    source: Source, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source.add("gone.png", None)
    with_pictures(source, 9)
    build_dataset(source.config(tmp_path / "out", inspect=True))
    shown = capsys.readouterr().out
    assert "pairs.jsonl:1" in shown and "missing-image" in shown
    assert "red mug" in shown and "8 6 16 18" in shown and REJECTED in shown
    assert "pairs.jsonl:5" in shown and "pairs.jsonl:6" not in shown
    assert not (tmp_path / "out").exists()


def test_equal_pictures_under_two_names_have_their_own_boxes(source: Source, tmp_path: Path) -> None:
    source.add("a.png", encoded(picture()), boxes={"mug": [[0, 0, 0.5, 0.5]]})
    source.add("b.png", encoded(picture()), boxes={"plate": [[0.5, 0.5, 1, 1]]}, question="And here?")
    build_dataset(source.config(tmp_path / "out"))
    found = [[region.keyword for region in row.regions] for row in open_dataset(tmp_path / "out")]
    assert found == [["red mug"], ["plate"]]


def test_names_in_a_table_beside_the_source_are_part_of_it(source: Source, tmp_path: Path) -> None:
    """LLaMA-Factory's dataset_info.json renames columns; changed, it makes other rows."""
    source.add("a.png", encoded(picture()), answer="A plate.", worse="A fork.")
    source.lines = [source.lines[0].replace('"question"', '"instruction"')]
    info = source.folder / "dataset_info.json"
    columns = {"prompt": "instruction", "chosen": "answer", "rejected": "worse", "images": "image"}
    info.write_text(json.dumps({"mine": {"file_name": "pairs.jsonl", "columns": columns}}))
    build_dataset(source.config(tmp_path / "out"))
    info.unlink()
    with pytest.raises(UserError, match="already here"):
        build_dataset(source.config(tmp_path / "out"))


def test_stored_names_tell_nothing_of_this_machine(source: Source, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    for name in ("b.png", "c.png"):
        (tmp_path / "elsewhere" / name).write_bytes(encoded(picture(ord(name[0]))))
    source.add("a.png", encoded(picture()))
    source.add("b.png", None, image=str(tmp_path / "elsewhere/b.png"))
    source.add("c.png", None, image="../elsewhere/c.png")
    build_dataset(source.config(tmp_path / "out"))
    names = [row.images[0].path for row in open_dataset(tmp_path / "out")]
    assert names == ["images/a.png", "b.png", "c.png"]


def test_limit(source: Source, tmp_path: Path) -> None:
    assert build_dataset(with_pictures(source, 4).config(tmp_path / "out", limit=2)).rows == 2


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"dataset": ""}, "--dataset"),
        ({"output_dir": ""}, "--output_dir"),
        ({"check_regions": True, "annotations": None}, "--check_regions"),
        ({"noise_step": 1000}, "step"),
        ({"noise_scope": "regions"}, "did you mean 'region'"),
        ({"noise_fraction": 0.0}, "--noise_fraction"),
        ({"noise_step_max": 400}, "--noise_step_max"),
        ({"noise_feather": 2.0}, "--noise_feather"),
        ({"num_workers": 0}, "--num_workers"),
        ({"limit": 0}, "--limit"),
        ({"top_k": 0}, "top_k"),
        ({"min_region": 5.0}, "--min_region"),
        ({"min_region": 0.7}, "no region is at least 0.7 and at most 0.6"),
        ({"dilate": -0.1}, "--dilate"),
        ({"dilate": float("nan")}, "--dilate"),
        ({"box_threshold": 35.0}, "--box_threshold"),
        ({"mask_threshold": 1.0}, "all pixels or none"),
        ({"keywords": "given"}, "bring no keywords"),
        ({"regions": "grounded"}, "--regions"),
        ({"annotations": None, "regions": "annotations"}, "--annotations"),
        ({"annotations": "/nowhere.jsonl"}, "cannot be read"),
        ({"dataset": "/nowhere.jsonl"}, "no such file"),
    ],
)
def test_settings_that_cannot_work(source: Source, tmp_path: Path, change: dict[str, Any], what: str) -> None:
    config = replace(with_pictures(source, 1).config(tmp_path / "out"), **change)
    with pytest.raises(UserError, match=what):
        build_dataset(config)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"regions": "own_backend:Hole"}, "has no 'Hole'"),
        ({"regions": "clipseg", "device": "cpu"}, "the region model cannot be loaded"),
        ({"regions": "annotations", "annotations": "bad.jsonl"}, "unknown key 'box'"),
    ],
)
def test_a_backend_that_cannot_be_had_is_told_before_a_bar_and_a_folder(
    source: Source,
    tmp_path: Path,
    calls: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    what: str,
    workers: int,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_text('{"image": "0.png", "box": {}}')
    right = with_pictures(source, 2).config(tmp_path / "out")
    wrong = replace(right, annotations=None, num_workers=workers)
    with pytest.raises(UserError, match=what):
        build_dataset(replace(wrong, **change))
    assert not (tmp_path / "out").exists() and capsys.readouterr().err == ""
    assert build_dataset(right).rows == 2


def test_a_first_build_that_finished_no_row_does_not_block_the_second(
    source: Source, tmp_path: Path, calls: Path
) -> None:
    config = with_pictures(source, 12).config(tmp_path / "out")
    with pytest.raises(UserError, match="failed on 10 pictures"):
        build_dataset(replace(config, regions="own_backend:Broken"))
    assert build_dataset(config).rows == 12


@pytest.mark.parametrize(
    ("boxes", "name", "change", "what"),
    [
        (BOXES, "other.png", {}, "No image of a row is named in .*annotations.jsonl: it names 'other.png'"),
        (
            {"sofa": BOXES["mug"]},
            "0.png",
            {},
            "1 of 1 images are annotated, and their labels, such as 'sofa'",
        ),
        ({}, "0.png", {}, "1 of 1 images are annotated, and there are no boxes or masks"),
        (BOXES, "0.png", {"max_region": 0.01}, "What was found was dropped: 2 too-large"),
    ],
)
def test_why_no_row_has_a_region(
    source: Source,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    boxes: dict[str, Any],
    name: str,
    change: dict[str, Any],
    what: str,
) -> None:
    with_pictures(source, 1)
    source.annotations = [{"image": name, "boxes": boxes}]
    build_dataset(source.config(tmp_path / "out", **change))
    shown = capsys.readouterr().out
    assert re.search(what, shown) and ("named in" in shown) == (name == "other.png")


def test_a_source_without_one_usable_row(source: Source, tmp_path: Path) -> None:
    source.add("gone.png", None)
    with pytest.raises(UserError, match=r"no row can be used \(1 missing-image\)\n.*--image_dir"):
        build_dataset(source.config(tmp_path / "out"))
    source.lines = ['{"a": 1}']
    with pytest.raises(UserError, match="fit no known layout; found a;"):
        build_dataset(source.config(tmp_path / "out"))


def test_an_unwritable_folder_is_told_before_any_work(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    made = interrupt_at(monkeypatch, 99, KeyboardInterrupt)
    with pytest.raises(UserError, match="cannot be written"):
        build_dataset(with_pictures(source, 1).config(tmp_path / "file/out"))
    assert not made


BACKEND = """
import os
from mfpo.preferences.regions.masks import encode_rle
from mfpo.records import Region
import numpy as np

class Whole:
    def segment(self, image, keywords, *, name=None):
        with open(os.environ["CALLS"], "a") as file:
            file.writelines(f"{os.path.basename(name)} {word}\\n" for word in keywords)
        mask = np.zeros((image.height, image.width), bool)
        mask[:6, :8] = True
        rle = encode_rle(mask)
        return [Region(word, (0, 0, 8, 6), 0.5, rle, mask.shape) for word in keywords]

class Known(Whole):
    fingerprint = "known-1"

class Failing(Whole):
    def segment(self, image, keywords, *, name=None):
        if name.endswith("1.png"):
            raise ZeroDivisionError("by zero")
        return super().segment(image, keywords, name=name)

class Picky(Whole):
    def segment(self, image, keywords, *, name=None):
        if "plate" in keywords:
            raise ZeroDivisionError("no plates")
        return super().segment(image, keywords, name=name)

class Broken:
    def segment(self, image, keywords, *, name=None):
        raise ZeroDivisionError("by zero")

class Dying(Whole):
    def segment(self, image, keywords, *, name=None):
        if name.endswith("1.png"):
            os._exit(9)
        return super().segment(image, keywords, name=name)

class DyingOnce(Whole):
    def segment(self, image, keywords, *, name=None):
        mark = os.environ["CALLS"] + ".died"
        if not os.path.exists(mark):
            open(mark, "w").close()
            os._exit(9)
        return super().segment(image, keywords, name=name)

class Wrong:
    def segment(self, image, keywords, *, name=None):
        size = image.height, image.width
        return [Region("unicorn", (0, 0, 1, 1), 1.0, encode_rle(np.ones(size, bool)), size)]

class Nothing:
    def segment(self, image, keywords, *, name=None):
        return None

class Damaged:
    def segment(self, image, keywords, *, name=None):
        return [Region(word, (0, 0, 1, 1), 1.0, "04", (image.height, image.width)) for word in keywords]
"""


@pytest.fixture
def calls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """File with a line for each picture and keyword that the backends of ``own_backend`` are asked for."""
    (tmp_path / "own_backend.py").write_text(BACKEND)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("MFPO_CACHE", str(tmp_path / "cache"))
    (tmp_path / "calls").touch()
    return tmp_path / "calls"


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(
    ("name", "reason", "lost"),
    [("Failing", "region-error", 1), ("DyingOnce", "", 0), ("Dying", "worker-died", 1)],
)
def test_a_backend_that_fails_on_a_picture_costs_one_row(
    source: Source, tmp_path: Path, calls: Path, name: str, workers: int, reason: str, lost: int
) -> None:
    if workers == 1 and "Dying" in name:
        pytest.skip("without workers it is this process that dies")
    config = with_pictures(source, 4).config(
        tmp_path / "out", regions=f"own_backend:{name}", num_workers=workers
    )
    summary = build_dataset(config)
    assert summary.rows == 4 - lost and summary.skipped == ({reason: lost} if lost else {})
    for entry in read_jsonl(tmp_path / "out/skipped.jsonl"):
        assert entry["where"] == "pairs.jsonl:2"


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("Wrong", "unicorn"),
        ("Damaged", "run lengths that don't fill"),
        ("Nothing", "something else than a list"),
        ("Broken", "failed on 10 pictures in a row; the last: ZeroDivision"),
    ],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_broken_backend_ends_the_build(
    source: Source, tmp_path: Path, calls: Path, name: str, what: str, workers: int
) -> None:
    config = with_pictures(source, 12).config(
        tmp_path / "out", regions=f"own_backend:{name}", num_workers=workers
    )
    with pytest.raises(UserError, match=what):
        build_dataset(config)


def test_rows_without_keywords_of_their_own_come_in_any_number(source: Source, tmp_path: Path) -> None:
    """More of them than a window holds, before the first that has some."""
    for number in range(40):
        source.add("a.png", encoded(picture()), question=f"What {number}?")
    source.add("a.png", None, keywords=["plate"])
    for workers in (1, 2):
        summary = build_dataset(source.config(tmp_path / str(workers), keywords="given", num_workers=workers))
        assert summary.scopes == {"global": 40, "region": 1}
    assert all_bytes(tmp_path / "1") == all_bytes(tmp_path / "2")


def test_the_backend_that_auto_stood_for_is_recorded(
    source: Source, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = load_backend("own_backend:Known")
    own.fingerprint = "clipseg-0123456789abcdef"
    monkeypatch.setitem(BACKENDS, "auto", lambda _: own)
    config = replace(with_pictures(source, 1).config(tmp_path / "out"), annotations=None)
    build_dataset(config)
    assert read_manifest(tmp_path / "out")["region_backend"] == own.fingerprint
    assert "\nregions: clipseg\n" in (tmp_path / "out/README.md").read_text()


@pytest.mark.usefixtures("small_shards")
def test_a_build_does_not_go_on_with_another_backend(
    source: Source, tmp_path: Path, calls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``auto`` is one model on a GPU, and another without."""
    own = load_backend("own_backend:Known")
    monkeypatch.setitem(BACKENDS, "auto", lambda _: own)
    config = replace(with_pictures(source, 40).config(tmp_path / "out"), annotations=None)
    own.fingerprint = "grounded-sam2-1"
    with monkeypatch.context() as patch:
        interrupt_at(patch, 36, KeyboardInterrupt)
        with pytest.raises(KeyboardInterrupt):
            build_dataset(config)
    own.fingerprint = "clipseg-1"
    with pytest.raises(UserError, match=r"shards have regions of grounded-sam2-1, .*auto is clipseg-1 here"):
        build_dataset(config)
    own.fingerprint = "grounded-sam2-1"
    build_dataset(config)
    assert read_manifest(tmp_path / "out")["region_backend"] == "grounded-sam2-1"
    assert not list((tmp_path / "out").glob("**/region_backend.json"))


def test_one_keyword_that_fails_costs_only_the_rows_that_have_it(
    source: Source, tmp_path: Path, calls: Path
) -> None:
    with_pictures(source, 1)
    source.add("0.png", None, chosen="A mug stands here.")
    summary = build_dataset(source.config(tmp_path / "out", regions="own_backend:Picky"))
    assert (summary.rows, summary.skipped) == (1, {"region-error": 1})
    (row,) = open_dataset(tmp_path / "out")
    assert [region.keyword for region in row.regions] == ["mug"]


@pytest.mark.parametrize("workers", [1, 2])
def test_equal_pictures_are_searched_once(source: Source, tmp_path: Path, calls: Path, workers: int) -> None:
    data = encoded(picture())
    for number in range(40):
        source.add(f"{number}.png", data, chosen=CHOSEN if number % 2 else "A red mug and a spoon.", n=number)
        source.lines[-1] = json.dumps({**json.loads(source.lines[-1]), "question": f"What? {number}"})
    config = source.config(tmp_path / "out", regions="own_backend:Known", num_workers=workers)
    assert build_dataset(config).rows == 40
    asked = [line.split(maxsplit=1)[1] for line in calls.read_text().splitlines()]
    assert sorted(asked) == ["plate", "red mug", "spoon"]


def test_only_what_is_new_is_searched_again(source: Source, tmp_path: Path, calls: Path) -> None:
    config = with_pictures(source, 3).config(tmp_path / "one", regions="own_backend:Known", top_k=1)
    build_dataset(config)
    first = calls.read_text().splitlines()
    assert len(first) == 3
    build_dataset(
        replace(config, output_dir=str(tmp_path / "two"), noise_step=900, noise_schedule="ddpm-linear")
    )
    assert calls.read_text().splitlines() == first, "noise needs no segmentation"
    build_dataset(replace(config, output_dir=str(tmp_path / "three"), top_k=2))
    new = calls.read_text().splitlines()[3:]
    assert sorted(new) == [f"{number}.png plate" for number in range(3)] or sorted(new) == [
        f"{number}.png red mug" for number in range(3)
    ]
    build_dataset(replace(config, output_dir=str(tmp_path / "anew"), top_k=2, regions="own_backend:Whole"))
    assert rows_of(tmp_path / "three") == rows_of(tmp_path / "anew")


def test_steps_drawn_and_feather_stand_in_the_rows(source: Source, tmp_path: Path) -> None:
    config = with_pictures(source, 6).config(tmp_path / "out", noise_step=300, noise_step_max=900)
    build_dataset(replace(config, noise_feather=0.05))
    rows = rows_of(tmp_path / "out")
    assert [row.noise.step for row in rows] == [draw_step(300, 900, row.noise.seed) for row in rows]
    assert len({row.noise.step for row in rows}) > 1 and {row.noise.feather for row in rows} == {0.05}


def rows_of(folder: Path) -> list[PreferencePair]:
    return list(open_dataset(folder))


def test_regions_that_are_too_large_or_too_small_are_dropped_with_their_reason(
    source: Source, tmp_path: Path
) -> None:
    source.add(
        "a.png", encoded(picture()), boxes={"mug": [[0, 0, 0.9, 0.9]], "plate": [[0.5, 0.5, 0.52, 0.52]]}
    )
    config = source.config(tmp_path / "out", min_region=0.01, max_region=0.7)
    summary = build_dataset(config)
    (row,) = open_dataset(tmp_path / "out")
    assert row.regions == () and row.noise.scope == "global" and summary.without_region == 1
    assert {(entry.keyword, entry.status) for entry in row.region_status} == {
        ("red mug", "too-large"),
        ("plate", "too-small"),
    }
    shares = {entry.keyword: entry.share for entry in row.region_status}
    assert shares["red mug"] == pytest.approx(29 * 22 / (32 * 24))


@pytest.mark.parametrize(("noise_image", "expected"), [(0, 0), (1, 1), (-1, 1)])
def test_the_image_that_is_searched_is_said(
    source: Source, tmp_path: Path, noise_image: int, expected: int
) -> None:
    with_pictures(source, 2)
    source.annotations = [{"image": f"{expected}.png", "boxes": BOXES}]
    source.lines = [json.dumps({**json.loads(source.lines[0]), "image": ["images/0.png", "images/1.png"]})]
    build_dataset(source.config(tmp_path / "out", noise_image=noise_image))
    (row,) = open_dataset(tmp_path / "out")
    assert row.noise.image == expected and len(row.regions) == 2
    with pytest.raises(UserError, match="image-count"):
        build_dataset(source.config(tmp_path / "none", noise_image=2))


@pytest.mark.slow
def test_real_photographs(shared: Path, tmp_path: Path) -> None:
    photos = shared / "data/photo_pairs"
    config = BuildConfig(
        dataset=str(photos / "pairs.jsonl"),
        annotations=str(photos / "annotations.jsonl"),
        output_dir=str(tmp_path / "photos"),
    )
    summary = build_dataset(config)
    assert summary.rows == 24 and not summary.skipped
    assert summary.found_share > 0.45
    for row in open_dataset(tmp_path / "photos"):
        height, width = row.regions[0].size
        assert open_image(row.images[0]).size == (width, height)
        assert row.noise.scope == "region" and union_mask(row.regions, (height, width)).any()
