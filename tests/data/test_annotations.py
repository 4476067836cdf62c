from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mfpo.data.annotation_files import BoxFormat, load_annotations
from mfpo.data.annotations import AnnotatedImage, AnnotatedObject, Annotations
from mfpo.errors import RowError, UserError


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def boxes(annotations: Annotations, name: str, size: tuple[int, int]) -> list[tuple[float, ...]]:
    image = annotations.find(name)
    assert image is not None
    return [box for item in image.objects if (box := image.pixel_box(item, size)) is not None]


@pytest.mark.parametrize(
    ("box", "box_format", "expected"),
    [
        ([0.25, 0.5, 0.75, 1.0], None, (50, 50, 150, 100)),
        ([0.25, 0.5, 0.75, 1.0], "xyxy_fraction", (50, 50, 150, 100)),
        ([50, 50, 150, 100], None, (50, 50, 150, 100)),
        ([50, 50, 100, 50], "xywh", (50, 50, 150, 100)),
    ],
)
def test_box_formats(
    tmp_path: Path, box: list[float], box_format: BoxFormat | None, expected: tuple[float, ...]
) -> None:
    path = write(tmp_path / "a.jsonl", [{"image": "a.png", "boxes": {"mug": [box]}}])
    assert boxes(load_annotations(path, box_format), "a.png", (100, 200)) == [expected]


def test_small_whole_pixels_do_not_make_fractions_of_a_file(tmp_path: Path) -> None:
    rows = [
        {"image": "a.png", "boxes": {"dot": [[0, 0, 1, 1]]}},
        {"image": "b.png", "boxes": {"mug": [[2, 2, 9, 9]]}},
    ]
    annotations = load_annotations(write(tmp_path / "a.jsonl", rows))
    assert boxes(annotations, "a.png", (100, 200)) == [(0, 0, 1, 1)]


@pytest.mark.parametrize(
    ("found", "box_format", "what"),
    [
        ([[0.1, 0.1, 0.5, 0.5], [10, 10, 50, 50]], None, "some boxes look like fractions"),
        ([[10, 10, 50, 50]], "xyxy_fraction", "is no fraction"),
        ([[50, 50, 20, 20]], None, "--box_format xywh"),
        ([[0.1, 0.1, 0.5]], None, "malformed"),
        ([[0.1, 0.1, 0.5, "x"]], None, "malformed"),
    ],
)
def test_contradictory_boxes(tmp_path: Path, found: Any, box_format: BoxFormat | None, what: str) -> None:
    path = write(tmp_path / "a.jsonl", [{"image": "a.png", "boxes": {"mug": found}}])
    with pytest.raises(UserError, match=what):
        load_annotations(path, box_format)


COCO: dict[str, Any] = {
    "images": [{"id": 4, "file_name": "a.jpg", "height": 20, "width": 30}, {"id": 5, "file_name": "b.jpg"}],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "ball"}],
    "annotations": [
        {
            "image_id": 4,
            "category_id": 1,
            "bbox": [1, 2, 10, 5],
            "segmentation": [[1, 2, 11, 2, 11, 7, 1, 7]],
        },
        {
            "image_id": 4,
            "category_id": 2,
            "bbox": [0, 0, 3, 3],
            "segmentation": {"counts": [0, 600], "size": [20, 30]},
        },
        {"image_id": 5, "category_id": 2, "bbox": [0, 1, 1, 1], "segmentation": []},
    ],
}


def test_coco_instances(tmp_path: Path) -> None:
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(COCO))
    annotations = load_annotations(path)
    assert boxes(annotations, "val2014/a.jpg", (20, 30)) == [(1, 2, 11, 7), (0, 0, 3, 3)]
    image = annotations.find("a.jpg")
    assert image is not None and image.labels == ["dog", "ball"]
    assert all(item.polygons or item.uncompressed or item.rle for item in image.objects)
    assert boxes(annotations, "b.jpg", (20, 30)) == [(0, 1, 1, 2)]


def test_masks_and_boxes_of_one_label(tmp_path: Path) -> None:
    row = {
        "image": "a.png",
        "size": [4, 4],
        "boxes": {"mug": [[0, 0, 2, 2]], "plate": [[0, 0, 4, 3]]},
        "masks": {"mug": [{"counts": "04", "size": [4, 4]}], "fork": ["0b", "0b"]},
    }
    image = load_annotations(write(tmp_path / "a.jsonl", [row])).find("a.png")
    assert image is not None
    assert [(item.label, item.box, item.rle) for item in image.objects] == [
        ("mug", (0, 0, 2, 2), "04"),
        ("plate", (0, 0, 4, 3), None),
        ("fork", None, "0b"),
        ("fork", None, "0b"),
    ]


@pytest.mark.parametrize(
    ("row", "where"),
    [
        ("{broken", ":2"),
        ('{"boxes": {}}', ":2"),
        ('{"image": "a", "masks": {"m": ["04"]}}', ":2"),
        ("[]", ":2"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: str, where: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"image": "b.png", "boxes": {}}\n' + row + "\n")
    with pytest.raises(UserError) as caught:
        load_annotations(path)
    assert str(caught.value).startswith(f"{path}{where}")


BOXES = {"dog": [[1, 1, 2, 2]]}


@pytest.mark.parametrize(
    ("row", "key", "hint"),
    [
        ({"image": "a.png", "box": BOXES}, "box", "did you mean 'boxes'"),
        ({"img": "a.png", "boxes": BOXES}, "img", "did you mean 'image'"),
        ({"image": "a.png", "boxes": BOXES, "mask": {}}, "mask", "did you mean 'masks'"),
        ({"image": "a.png", "objects": BOXES}, "objects", "choose one of|did you mean"),
    ],
)
def test_an_unknown_key_is_refused(tmp_path: Path, row: dict[str, Any], key: str, hint: str) -> None:
    first = {"image": "b.png", "boxes": BOXES}
    path = write(tmp_path / "a.jsonl", [first, row])
    with pytest.raises(UserError, match=hint) as caught:
        load_annotations(path)
    assert str(caught.value).startswith(f"{path}:2: unknown key {key!r}\n")
    (tmp_path / "a.json").write_text(json.dumps([first, row]))
    with pytest.raises(UserError, match=f"unknown key {key!r}"):
        load_annotations(tmp_path / "a.json")


def test_further_keys_of_known_files_are_read_over(tmp_path: Path) -> None:
    notes = {"context": "street", "objects": ["dog"], "keywords": ["dog"], "image_id": 7, "licence": 4}
    path = write(tmp_path / "a.jsonl", [{"image": "a.png", "boxes": BOXES, **notes}])
    assert boxes(load_annotations(path), "a.png", (9, 9)) == [(1, 1, 2, 2)]
    more = {"info": {}, "licenses": [], "images": [{**image, "flickr_url": "x"} for image in COCO["images"]]}
    objects = [{**entry, "iscrowd": 0, "area": 1.5, "score": 0.5} for entry in COCO["annotations"]]
    (tmp_path / "coco.json").write_text(json.dumps({**COCO, **more, "annotations": objects}))
    assert len(load_annotations(tmp_path / "coco.json")) == 2


def test_real_annotations_are_read(shared: Path) -> None:
    assert len(load_annotations(shared / "data/photo_pairs/annotations.jsonl")) == 24


def test_files_that_are_no_annotations(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_annotations(tmp_path / "nothing.jsonl")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(UserError, match="annotates no image"):
        load_annotations(tmp_path / "empty.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="UTF-8"):
        load_annotations(tmp_path / "binary")


def names(*images: str) -> Annotations:
    return Annotations([AnnotatedImage(name, ()) for name in images])


@pytest.mark.parametrize(
    ("annotated", "asked", "found"),
    [
        (["a.jpg"], "/data/images/a.jpg", "a.jpg"),
        (["images/a.jpg"], "/data/images/a.jpg", "images/a.jpg"),
        (["images/a.jpg"], "a.jpg", "images/a.jpg"),
        (["train/a.jpg", "val/a.jpg"], "/data/val/a.jpg", "val/a.jpg"),
        (["./images/a.jpg"], "x/../images/a.jpg", "./images/a.jpg"),
        (["images\\a.jpg"], "images/a.jpg", "images\\a.jpg"),
        (["a.jpg"], "b.jpg", None),
        (["a.jpg"], "ba.jpg", None),
    ],
)
def test_joining_by_name(annotated: list[str], asked: str, found: str | None) -> None:
    image = names(*annotated).find(asked)
    assert (image.name if image else None) == found


def test_an_ambiguous_basename_is_not_guessed() -> None:
    with pytest.raises(RowError, match="ambiguous-annotation"):
        names("train/a.jpg", "val/a.jpg").find("test/a.jpg")


fractions = st.floats(0, 1, allow_nan=False)
label_names = st.text(min_size=1, max_size=8)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(
        label_names,
        st.lists(st.tuples(fractions, fractions, fractions, fractions), min_size=1, max_size=3),
        min_size=1,
    )
)
def test_own_format_round_trip(tmp_path_factory: pytest.TempPathFactory, drawn: dict[str, list[Any]]) -> None:
    expected = {
        label: [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in found]
        for label, found in drawn.items()
    }
    path = tmp_path_factory.getbasetemp() / "round_trip.jsonl"
    write(path, [{"image": "a.png", "boxes": expected}])
    image = load_annotations(path).find("a.png")
    assert image is not None and image.labels == list(expected)
    read = [(item.label, image.pixel_box(item, (1, 1))) for item in image.objects]
    assert read == [(label, box) for label, found in expected.items() for box in found]


def test_names_that_are_no_unicode_and_everything_else_come_back(tmp_path: Path) -> None:
    rows = [
        {"image": "x/\ud800.png", "boxes": {"dog": [[0, 1, 2.1, 3.25]]}},
        {"image": "b.png", "masks": {"dog": [{"counts": "abc", "size": [4, 5]}]}, "size": [4, 5]},
        {"image": "c.png", "masks": {"dog": [{"counts": [1, 2, 3], "size": [2, 3]}]}},
        {"image": "d.png", "masks": {"dog": [[[0, 0, 4, 0, 4, 4.5]]]}},
    ]
    annotations = load_annotations(write(tmp_path / "a.jsonl", rows), "xyxy")
    first, second, third, fourth = annotations
    assert annotations.find("/elsewhere/\ud800.png") == first
    assert first.objects == (AnnotatedObject("dog", (0.0, 1.0, 2.1, 3.25)),)
    assert (second.size, second.objects) == ((4, 5), (AnnotatedObject("dog", rle="abc", size=(4, 5)),))
    assert third.objects == (AnnotatedObject("dog", uncompressed=(1, 2, 3), size=(2, 3)),)
    assert fourth.objects == (AnnotatedObject("dog", polygons=((0.0, 0.0, 4.0, 0.0, 4.0, 4.5),)),)


def test_a_name_that_stands_twice_has_the_objects_of_both_rows(tmp_path: Path) -> None:
    rows = [{"image": "a.png", "boxes": {noun: [[1, 1, 2, 2]]}} for noun in ("dog", "cat")]
    annotations = load_annotations(write(tmp_path / "a.jsonl", rows))
    assert len(annotations) == 1
    assert [image.labels for image in annotations] == [["dog", "cat"]]


def test_a_row_written_over_many_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"image": "a.png", "boxes": {"mug": [[1, 1, 2, 2]]}}, indent=1))
    assert boxes(load_annotations(path), "a.png", (9, 9)) == [(1, 1, 2, 2)]
