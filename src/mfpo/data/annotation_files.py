"""Files of boxes and masks that came with the pictures.

Two file formats are read. Our own, as JSON Lines or as a JSON array, has one object per image::

    {"image": "images/0001.jpg",
     "boxes": {"dog": [[12, 30, 200, 180]], "ball": [[210, 160, 240, 190]]},
     "masks": {"dog": [{"counts": "<COCO compressed run lengths>", "size": [480, 640]}]},
     "size": [480, 640]}

``boxes`` and ``masks`` map a label to one entry per instance; either may be missing. A mask is run lengths as
pycocotools writes them, with ``size`` = [height, width]; as a bare string it takes the row's ``size``. A
label that has masks needs no boxes. Other keys are ignored beside boxes or masks, but for those that look
like a misspelt one, which would cost all regions of its image. The second format is COCO's instances file
(``images``, ``annotations``, ``categories``; segmentations as polygons or run lengths).

Everything refers to the picture after EXIF rotation. A box is ``xyxy_fraction`` (of width and height),
``xyxy`` or ``xywh`` (pixels); what it is, is recognised from all boxes of the file.
"""

from __future__ import annotations

import difflib
import json
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TextIO, TypeAlias, get_args

from mfpo.data.annotations import AnnotatedImage, AnnotatedObject, Annotations
from mfpo.errors import UserError, nearest
from mfpo.records import Box

BoxFormat: TypeAlias = Literal["xyxy_fraction", "xyxy", "xywh"]

LARGEST_FRACTION = 1.5
"""Boxes whose values all stay below it are taken for fractions."""
KEYS = ("image", "boxes", "masks", "size")
"""Keys of a row of ours."""
_COCO = {"images", "annotations"}
_LONGEST_KEY = 80
_ALIKE = 0.75


def load_annotations(path: str | Path, box_format: BoxFormat | None = None) -> Annotations:
    """Read an annotation file.

    Args:
        path: JSON Lines, or JSON (an array of our rows, or COCO instances).
        box_format: What the boxes are; recognised when None.

    Raises:
        UserError: The file cannot be read or parsed, a row is malformed or has an unknown key, or the
            boxes contradict their format.
    """
    path = Path(path)
    if box_format is not None and box_format not in get_args(BoxFormat):
        raise UserError(
            f"unknown box format {box_format!r}",
            where="--box_format",
            fix=f"one of {', '.join(get_args(BoxFormat))}",
        )
    try:
        with path.open(encoding="utf-8-sig") as file:
            document = _whole_document(file)
            if isinstance(document, dict) and document.keys() >= _COCO:
                images = _guarded(str(path), lambda: _coco_images(document))
                box_format = box_format or "xywh"
            else:
                rows = enumerate(document, start=1) if isinstance(document, list) else _lines(file, path)
                images = (_read_own(f"{path}:{number}", row) for number, row in rows)
            annotations = Annotations(images, where=str(path))
    except OSError as error:
        raise UserError(f"the file cannot be read: {error.strerror}", where=f"--annotations {path}") from None
    except UnicodeDecodeError:
        raise UserError("not a text file in UTF-8", where=f"--annotations {path}") from None
    if not len(annotations):
        raise UserError("the file annotates no image", where=f"--annotations {path}")
    return Annotations(_in_format(annotations, box_format or _recognise(annotations)), where=str(path))


def _whole_document(file: TextIO) -> Any:
    """The JSON document, or None for JSON Lines, which are not read as a whole."""
    document = _parsed(next((line for line in file if line.strip()), ""))
    if isinstance(document, dict) and not document.keys() >= _COCO:
        file.seek(0)
        return None
    if document is None or any(line.strip() for line in file):
        file.seek(0)
        document = _parsed(file.read())
    file.seek(0)
    # A single row of ours is also a whole document.
    return [document] if isinstance(document, dict) and "image" in document else document


def _parsed(text: str) -> Any:
    """The JSON value; None where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _lines(file: TextIO, path: Path) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(file, start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"broken JSON: {error}", where=f"{path}:{number}", fix="repair the line"
                ) from None


def _guarded(where: str, read: Any) -> Any:
    """What ``read`` returns; a malformed row becomes a message that says where it is."""
    try:
        return read()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        detail = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"malformed annotation: {detail}",
            where=where,
            fix='{"image": NAME, "boxes": {LABEL: [[x0, y0, x1, y1], ...]}} per image, or COCO instances',
        ) from None


def _read_own(where: str, row: Any) -> AnnotatedImage:
    row_keys = row.keys() if isinstance(row, Mapping) else ()
    unknown = [key for key in row_keys if key not in KEYS]
    if "boxes" in row_keys or "masks" in row_keys:
        missing = [key for key in KEYS if key not in row_keys]
        unknown = [key for key in unknown if difflib.get_close_matches(key, missing, cutoff=_ALIKE)]
    if unknown:
        key = unknown[0][:_LONGEST_KEY]
        hint = "a line has image, boxes, masks and size, or the file is one of COCO instances"
        raise UserError(f"unknown key {key!r}", where=where, fix=f"{nearest(key, KEYS)} ({hint})")
    return _guarded(where, lambda: _own_image(row))


def _own_image(row: Any) -> AnnotatedImage:
    if not isinstance(row, Mapping):
        raise TypeError("a JSON object is needed")
    size = _size(row["size"]) if row.get("size") else None
    boxes, masks = row.get("boxes") or {}, row.get("masks") or {}
    objects: list[AnnotatedObject] = []
    for label in dict.fromkeys([*boxes, *masks]):
        label_boxes, label_masks = boxes.get(label) or [], masks.get(label) or []
        paired = len(label_boxes) == len(label_masks)
        if label_masks:
            objects += [
                _with_mask(label, mask, _box(label_boxes[index]) if paired else None, size)
                for index, mask in enumerate(label_masks)
            ]
        else:
            objects += [AnnotatedObject(label, box=_box(box)) for box in label_boxes]
    return AnnotatedImage(str(row["image"]), tuple(objects), size=size)


def _coco_images(document: Mapping[str, Any]) -> list[AnnotatedImage]:
    names = {category["id"]: str(category["name"]) for category in document["categories"]}
    objects: dict[Any, list[AnnotatedObject]] = defaultdict(list)
    sizes = {
        image["id"]: (int(image["height"]), int(image["width"]))
        for image in document["images"]
        if "height" in image
    }
    for entry in document["annotations"]:
        label, image_id = names[entry["category_id"]], entry["image_id"]
        box = _box(entry["bbox"]) if entry.get("bbox") else None
        segmentation = entry.get("segmentation")
        if not segmentation and box is None:
            continue
        objects[image_id].append(
            _with_mask(label, segmentation, box, sizes.get(image_id))
            if segmentation
            else AnnotatedObject(label, box)
        )
    return [
        AnnotatedImage(
            str(image.get("file_name") or PurePosixPath(image["coco_url"]).name),
            tuple(objects[image["id"]]),
            size=sizes.get(image["id"]),
        )
        for image in document["images"]
    ]


def _with_mask(label: str, mask: Any, box: Box | None, size: tuple[int, int] | None) -> AnnotatedObject:
    """An object whose mask is run lengths (a string, or a record with counts and size) or polygons."""
    if isinstance(mask, Mapping):
        size, mask = _size(mask["size"]), mask["counts"]
        if isinstance(mask, list):
            return AnnotatedObject(label, box, uncompressed=tuple(int(run) for run in mask), size=size)
    if isinstance(mask, str):
        if size is None:
            raise ValueError(f"the mask of {label!r} needs a size [height, width]")
        return AnnotatedObject(label, box, rle=mask, size=size)
    polygons = tuple(tuple(float(value) for value in polygon) for polygon in mask)
    if any(len(polygon) < 6 or len(polygon) % 2 for polygon in polygons):
        raise ValueError(f"a polygon of {label!r} has fewer than three corners")
    return AnnotatedObject(label, box, polygons=polygons)


def _box(values: Any) -> Box:
    a, b, c, d = (float(value) for value in values)
    if not all(math.isfinite(value) for value in (a, b, c, d)):
        raise ValueError("a box with a corner that is not finite")
    return a, b, c, d


def _size(values: Any) -> tuple[int, int]:
    height, width = (int(value) for value in values)
    return height, width


def _recognise(annotations: Annotations) -> BoxFormat:
    small = large = None
    for image in annotations:
        for item in image.objects:
            if item.box is None:
                continue
            if max(item.box) > LARGEST_FRACTION:
                large = large or (image.name, item.box)
            elif any(value != int(value) for value in item.box):
                small = small or (image.name, item.box)
    if small and large:
        raise UserError(
            f"some boxes look like fractions ({small[0]}: {list(small[1])}), others like pixels "
            f"({large[0]}: {list(large[1])})",
            where=annotations.where,
            fix="write them in one unit, or say which with --box_format",
        )
    return "xyxy" if large else "xyxy_fraction"


def _in_format(annotations: Annotations, box_format: BoxFormat) -> Iterator[AnnotatedImage]:
    """The images with boxes as xyxy."""
    for image in annotations:
        objects = []
        for item in image.objects:
            box = item.box
            if box is not None:
                if box_format == "xywh":
                    box = (box[0], box[1], box[0] + box[2], box[1] + box[3])
                _check_box(box, box_format, image.name, item.label, annotations.where)
            objects.append(replace(item, box=box))
        yield replace(image, objects=tuple(objects), fractions=box_format == "xyxy_fraction")


def _check_box(box: Box, box_format: BoxFormat, image: str, label: str, where: str) -> None:
    if box_format == "xyxy_fraction" and max(box) > LARGEST_FRACTION:
        raise UserError(
            f"the box {list(box)} of {label!r} in {image} is no fraction",
            where=where,
            fix="give --box_format xyxy or xywh",
        )
    if box[2] < box[0] or box[3] < box[1]:
        hint = (
            "give --box_format xywh if they are x, y, width, height" if box_format != "xywh" else "correct it"
        )
        raise UserError(
            f"the box {list(box)} of {label!r} in {image} ends before it begins", where=where, fix=hint
        )
