"""The columns of the dataset contract: their types, and records to rows and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TypeAlias

from mfpo.records import Box, ImageSource, Keyword, Messages, Noise, PreferencePair, Region, RegionStatus

if TYPE_CHECKING:
    import pyarrow as pa

ExtraTypes: TypeAlias = Mapping[str, type]
"""Name of each further column and its type: bool, int, float or str."""

_ARROW_NAMES = {bool: "bool", int: "int64", float: "float64", str: "string"}
_INT64 = range(-(2**63), 2**63)


def schema(extra: ExtraTypes, *, rejected_images: bool) -> pa.Schema:
    """Arrow schema of a shard, with the features of ``datasets`` in its metadata.

    Args:
        extra: Further columns.
        rejected_images: Whether there is a column of that name.
    """
    from datasets import Features, Image, List, Value

    text, number, integer = Value("string"), Value("float64"), Value("int64")
    messages = List({"role": text, "content": List({"type": text, "text": text})})
    columns: dict[str, Any] = {
        "images": List(Image()),
        "prompt": messages,
        "chosen": messages,
        "rejected": messages,
    }
    if rejected_images:
        columns["rejected_images"] = List(Image())
    columns |= {
        "id": text,
        "keywords": List({"text": text, "score": number, "spans": List(List(integer))}),
        "regions": List(
            {"keyword": text, "box": List(number), "score": number, "rle": text, "size": List(integer)}
        ),
        "region_status": List({"keyword": text, "status": text, "share": number, "score": number}),
        "noise": {
            "scope": text,
            "schedule": text,
            "step": integer,
            "seed": integer,
            "fraction": number,
            "box": List(number),
            "image": integer,
            "feather": number,
        },
    }
    clash = columns.keys() & extra.keys()
    if clash:
        raise ValueError(f"further columns with the contract's own names: {', '.join(sorted(clash))}")
    columns |= {name: Value(_ARROW_NAMES[kind]) for name, kind in extra.items()}
    return Features(columns).arrow_schema


def extra_types(rows: Iterable[Mapping[str, Any]]) -> dict[str, type]:
    """The type of each further column that can hold its values: floats for mixed numbers, else text if mixed.

    Args:
        rows: The further columns of each row; values that are not bool, int, float or str are left out.
    """
    found: dict[str, type] = {}
    for row in rows:
        for name, value in row.items():
            kind = _kind(value)
            if kind is None:
                continue
            known = found.setdefault(name, kind)
            if known is not kind:
                found[name] = float if {known, kind} == {int, float} else str
    return found


def row_from_pair(pair: PreferencePair, extra: ExtraTypes, *, rejected_images: bool) -> dict[str, Any]:
    """A record as a row of the schema with the same arguments.

    Raises:
        ValueError: The record has a further column, or rejected images, that the schema does not have.
    """
    unknown = {name for name, value in pair.extra.items() if _kind(value) is not None} - extra.keys()
    if unknown or (pair.rejected_images and not rejected_images):
        columns = ", ".join(sorted(unknown) or ["rejected_images"])
        raise ValueError(
            f"columns that earlier rows did not have: {columns}; name them to the writer beforehand"
        )
    row: dict[str, Any] = {
        "images": [_image(source) for source in pair.images],
        "prompt": pair.prompt,
        "chosen": pair.chosen,
        "rejected": pair.rejected,
        "id": pair.id,
        "keywords": [asdict(keyword) for keyword in pair.keywords],
        "regions": [asdict(region) for region in pair.regions],
        "region_status": [asdict(status) for status in pair.region_status],
        "noise": asdict(pair.noise),
    }
    if rejected_images:
        row["rejected_images"] = [_image(source) for source in pair.rejected_images]
    for name, kind in extra.items():
        value = pair.extra.get(name)
        row[name] = None if _kind(value) is None else kind(value)
    return row


def pair_from_row(row: Mapping[str, Any]) -> PreferencePair:
    """The record of a row; columns of the contract that another tool left out get their defaults."""
    known = {field: row.get(field) for field in _CONTRACT}
    return PreferencePair(
        id=row["id"],
        images=_sources(known["images"]),
        prompt=_messages(row["prompt"]),
        chosen=_messages(row["chosen"]),
        rejected=_messages(row["rejected"]),
        keywords=tuple(_keyword(entry) for entry in known["keywords"] or ()),
        regions=tuple(_region(entry) for entry in known["regions"] or ()),
        region_status=tuple(RegionStatus(**entry) for entry in known["region_status"] or ()),
        noise=_noise(known["noise"]),
        rejected_images=_sources(known["rejected_images"]),
        extra={name: value for name, value in row.items() if name not in _CONTRACT and value is not None},
    )


_CONTRACT = (
    "images",
    "prompt",
    "chosen",
    "rejected",
    "rejected_images",
    "id",
    "keywords",
    "regions",
    "region_status",
    "noise",
)


def _kind(value: Any) -> type | None:
    if isinstance(value, bool):
        return bool
    if isinstance(value, int):
        # Larger integers have no Parquet type; as text they keep their digits.
        return int if value in _INT64 else str
    return next((kind for kind in (float, str) if isinstance(value, kind)), None)


def _image(source: ImageSource) -> dict[str, Any]:
    return {"bytes": source.read(), "path": source.path}


def _sources(entries: Any) -> tuple[ImageSource, ...]:
    return tuple(ImageSource(path=entry["path"], data=entry["bytes"]) for entry in entries or ())


def _messages(messages: Any) -> Messages:
    """Messages without the keys that Parquet fills with None."""
    return [
        {
            "role": message["role"],
            "content": [
                {key: value for key, value in part.items() if value is not None}
                for part in message["content"]
            ],
        }
        for message in messages
    ]


def _box(values: Any) -> Box:
    x0, y0, x1, y1 = values
    return x0, y0, x1, y1


def _keyword(entry: Mapping[str, Any]) -> Keyword:
    return Keyword(entry["text"], entry["score"], tuple((start, end) for start, end in entry["spans"]))


def _region(entry: Mapping[str, Any]) -> Region:
    height, width = entry["size"]
    return Region(entry["keyword"], _box(entry["box"]), entry["score"], entry["rle"], (height, width))


def _noise(entry: Mapping[str, Any] | None) -> Noise:
    if entry is None:
        return Noise()
    box = None if entry.get("box") is None else _box(entry["box"])
    later = {"image": entry.get("image") or 0, "feather": entry.get("feather") or 0.0}
    return Noise(**{**entry, **later, "box": box})
