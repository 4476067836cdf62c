"""Regions beside given boxes: areas counted by hand, and the command end to end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mfpo.data.annotation_files import load_annotations
from mfpo.data.folder import open_dataset
from mfpo.errors import UserError
from mfpo.preferences.build import build_dataset
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.regions.check import check_regions, told, wilson_interval

BACKEND = """
from mfpo.preferences.regions.masks import box_mask, encode_rle
from mfpo.records import Region

BOXES = {"red mug": (0, 0, 20, 20), "plate": (20, 10, 40, 30)}


class Fixed:
    def segment(self, image, keywords, *, name=None):
        size = image.height, image.width
        return [
            Region(word, BOXES[word], 0.5, encode_rle(box_mask(BOXES[word], size)), size)
            for word in keywords
            if word in BOXES
        ]
"""


def test_found_regions_are_compared_with_boxes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The mug's mask lies in its box by 3/4, the plate's by 1/4; the fork is not found."""
    (tmp_path / "fixed_backend.py").write_text(BACKEND)
    monkeypatch.syspath_prepend(str(tmp_path))
    Image.new("RGB", (80, 40), "grey").save(tmp_path / "a.png")
    row = {"chosen": "A red mug, a plate and a fork.", "rejected": "A cat.", "question": "What?"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps({"image": "a.png", **row}))
    boxes = {"mug": [[0, 5, 40, 25]], "plate": [[30, 20, 50, 40]], "fork": [[60, 0, 70, 30]]}
    (tmp_path / "boxes.jsonl").write_text(json.dumps({"image": "a.png", "boxes": boxes}))
    config = BuildConfig(
        dataset=str(tmp_path / "pairs.jsonl"),
        output_dir=str(tmp_path / "out"),
        regions="fixed_backend:Fixed",
        annotations=str(tmp_path / "boxes.jsonl"),
        check_regions=True,
    )
    build_dataset(replace(config, annotations=None, check_regions=False))
    (tmp_path / "out/region_check/worst").mkdir(parents=True)
    (tmp_path / "out/region_check/worst/of-an-earlier-check.png").touch()
    build_dataset(config)
    assert "3 keywords have given boxes, 2 were found, 1 of them right (50%" in capsys.readouterr().out
    report = json.loads((tmp_path / "out/region_check/report.json").read_text())
    by_keyword = {entry["keyword"]: entry for entry in report["all"]}
    assert by_keyword["red mug"]["inside"] == 0.75 and by_keyword["red mug"]["covered"] == 300 / 800
    assert by_keyword["plate"]["inside"] == 0.25 and by_keyword["plate"]["right"] is False
    assert by_keyword["fork"]["found"] is False
    assert [entry["keyword"] for entry in report["worst"]] == ["plate", "fork", "red mug"]
    pictures = sorted((tmp_path / "out/region_check/worst").iterdir())
    with Image.open(pictures[0]) as drawn:
        assert len(pictures) == 3 and drawn.size == (640, 346)
    with pytest.raises(UserError, match="--annotations"):
        build_dataset(BuildConfig(dataset="x", output_dir="y", check_regions=True))
    (tmp_path / "boxes.jsonl").write_text(json.dumps({"image": "a.png", "box": boxes}))
    with pytest.raises(UserError, match="unknown key 'box'"):
        build_dataset(replace(config, output_dir=str(tmp_path / "told_before_the_build")))
    assert not (tmp_path / "told_before_the_build").exists()


@pytest.fixture
def ambiguous(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BuildConfig:
    """A picture whose stored name, without folders, is annotated under two folders."""
    (tmp_path / "fixed_backend.py").write_text(BACKEND)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "train").mkdir()
    row = {"chosen": "A red mug and a plate.", "rejected": "A cat.", "question": "What?"}
    for name, colour in (("a", "grey"), ("b", "white")):
        Image.new("RGB", (80, 40), colour).save(tmp_path / f"train/{name}.png")
    rows = [{"image": f"{name}.png", **row} for name in ("a", "b")]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in rows))
    annotations = [
        {"image": "train/a.png", "boxes": {"mug": [[0, 0, 20, 20]]}},
        {"image": "val/a.png", "boxes": {"mug": [[60, 0, 80, 20]]}},
        {"image": "b.png", "size": [20, 20], "boxes": {"mug": [[0, 0, 20, 20]]}},
    ]
    (tmp_path / "boxes.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in annotations))
    return BuildConfig(
        dataset=str(tmp_path / "pairs.jsonl"),
        image_dir=str(tmp_path / "train"),
        output_dir=str(tmp_path / "out"),
        regions="fixed_backend:Fixed",
        annotations=str(tmp_path / "boxes.jsonl"),
        check_regions=True,
    )


def test_the_whole_name_of_a_picture_finds_its_boxes(
    ambiguous: BuildConfig, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the short name was looked for, and the picture was left out without a word."""
    build_dataset(ambiguous)
    said = capsys.readouterr().out.splitlines()[-1]
    assert "1 keywords have given boxes, 1 were found, 1 of them right" in said
    assert said.endswith("; annotations of 1 picture could not be used (1 annotation-size)")
    report = json.loads((Path(ambiguous.output_dir) / "region_check/report.json").read_text())
    assert [(entry["where"], entry["reason"]) for entry in report["unusable"]] == [
        ("b.png", "annotation-size")
    ]


def test_a_check_that_compares_nothing_is_no_silence(
    ambiguous: BuildConfig, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build_dataset(replace(ambiguous, check_regions=False))
    dataset, annotations = open_dataset(ambiguous.output_dir), load_annotations(tmp_path / "boxes.jsonl")
    report = check_regions(dataset, annotations, tmp_path / "check")
    assert (report.keywords, [skip.reason for skip in report.unusable]) == (
        0,
        ["ambiguous-annotation", "annotation-size"],
    )
    said = told(report, tmp_path / "check")
    assert said.startswith("WARNING: no region was checked: the annotations of 2 pictures could not be used")
    assert "a.png could be train/a.png or val/a.png" in said and "--image_dir" in said
    (tmp_path / "boxes.jsonl").write_text(json.dumps({"image": "c.png", "boxes": {"mug": [[0, 0, 9, 9]]}}))
    capsys.readouterr()
    build_dataset(ambiguous)
    assert "WARNING: no region was checked: no picture has a box" in capsys.readouterr().err


def test_wilson_interval() -> None:
    """Wilson (1927) for 9 of 10: [0.596, 0.982]."""
    assert wilson_interval(9, 10) == pytest.approx((0.5958, 0.9821), abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)
