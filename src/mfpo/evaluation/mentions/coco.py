"""COCO objects in captions, as CHAIR (Rohrbach et al., 2018, https://arxiv.org/abs/1809.02156) finds them.

Shared by ``chair`` and ``objhal``. Words of a caption are brought to their dictionary form; two neighbours
that make one object are joined (``fire hydrant``, ``baby elephant`` is an elephant); what is left and stands
in the list of synonyms is a mention of one of COCO's 80 objects. Ground truth of an image: the objects of its
segmentation masks and those that its five human captions mention.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mfpo.errors import UserError
from mfpo.evaluation.official_data import find, sha256_of
from mfpo.evaluation.statistics import Metric

LemmaFunction: TypeAlias = Callable[[Sequence[str]], list[list[str]]]
"""Captions to the dictionary forms of their tokens."""

_ANIMALS = [
    "bird",
    "cat",
    "dog",
    "horse",
    "sheep",
    "cow",
    "elephant",
    "bear",
    "zebra",
    "giraffe",
    "animal",
    "cub",
]
_VEHICLES = ("jet", "train")
CHAIR_DOUBLES = [
    "motor bike",
    "motor cycle",
    "air plane",
    "traffic light",
    "street light",
    "traffic signal",
    "stop light",
    "fire hydrant",
    "stop sign",
    "parking meter",
    "suit case",
    "sports ball",
    "baseball bat",
    "baseball glove",
    "tennis racket",
    "wine glass",
    "hot dog",
    "cell phone",
    "mobile phone",
    "teddy bear",
    "hair drier",
    "potted plant",
    "bow tie",
    "laptop computer",
    "stove top oven",
    "home plate",
]
"""Pairs of words that CHAIR takes as one, object or not."""

_ANNOTATIONS = ("", "annotations/", "coco/annotations/", "coco2014/annotations/")
HOW_TO_GET_COCO = (
    "unpack http://images.cocodataset.org/annotations/annotations_trainval2014.zip (CC BY 4.0), or take a "
    "file of ground-truth objects ({image id: [objects]}), and name its folder with --data_dir"
)

OBJECT_METRICS = {
    "CHAIR_s": Metric(
        "hallucinated_captions", "captions", better="lower", text="captions that mention an absent object"
    ),
    "CHAIR_i": Metric(
        "hallucinated_mentions", "mentions", better="lower", text="mentions that are of absent objects"
    ),
    "Recall": Metric(
        "recalled", "gt_objects", better="higher", text="objects in the pictures that are mentioned"
    ),
}


@dataclass(frozen=True, slots=True)
class Rules:
    """Which words mean which object.

    Attributes:
        node: Object of each word that means one.
        doubles: What two words in a row are joined to.
    """

    node: Mapping[str, str]
    doubles: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Mentions:
    """Objects that a caption mentions, in order.

    Attributes:
        words: The words that mean them.
        nodes: The objects.
        idxs: Index of each mention's first token as the official script gives it, which is wrong after a
            dropped ``seat``.
        places: First and last token index of each mention.
        raw: All words of the caption, after joining.
    """

    words: list[str]
    nodes: list[str]
    idxs: list[int]
    places: list[tuple[int, int]]
    raw: list[str]


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """Objects in images.

    Attributes:
        objects: By image id.
        source: Where they come from, kept with every score.
    """

    objects: Mapping[int, Sequence[str]]
    source: Mapping[str, str]


def read_synonyms(text: str, *, strip: bool) -> list[list[str]]:
    """Lines of words that mean the same object, the object's name first.

    Args:
        text: Comma-separated words.
        strip: Whether blanks around a word are taken away. CHAIR's own script does not, so that the words
            after its double blanks (`` cheesecake``) are never found.
    """
    lines = [line.strip().split(", ") for line in text.splitlines() if line.strip()]
    return [[word.strip() if strip else word for word in line] for line in lines]


def make_rules(synonyms: Sequence[Sequence[str]], doubles: Iterable[str], *, lower: bool = False) -> Rules:
    """Rules from synonyms and pairs of words.

    Args:
        synonyms: See [`read_synonyms`].
        doubles: Pairs of words that are one.
        lower: Whether synonyms are lower-cased as captions are; the scripts don't, so ``iPhone`` is never
            found.
    """
    node = {(word.lower() if lower else word): line[0] for line in synonyms for word in line}
    joined = {double: double for double in doubles}
    for animal in _ANIMALS:
        joined |= {f"baby {animal}": animal, f"adult {animal}": animal}
    joined |= {f"passenger {vehicle}": vehicle for vehicle in _VEHICLES}
    joined |= {"bow tie": "tie", "toilet seat": "toilet", "wine glas": "wine glass"}
    return Rules(node, joined)


def find_objects(lemmas: Sequence[str], rules: Rules) -> Mentions:
    """Objects among the words of a caption.

    Args:
        lemmas: Dictionary forms of all tokens, in order.
        rules: Which words mean which object.
    """
    raw, spans = [], []
    at = 0
    while at < len(lemmas):
        pair = rules.doubles.get(" ".join(lemmas[at : at + 2]))
        raw.append(lemmas[at] if pair is None else pair)
        last = at if pair is None else min(at + 1, len(lemmas) - 1)
        spans.append((at, last))
        at = last + 1
    return _mentions(raw, spans, rules)


def objects_of_list(words: Sequence[str], rules: Rules) -> Mentions:
    """Objects among words that an extractor has already found."""
    return _mentions(list(words), [(at, at) for at in range(len(words))], rules)


def _mentions(raw: list[str], spans: Sequence[tuple[int, int]], rules: Rules) -> Mentions:
    # "The seat of the toilet" is no chair.
    seat = "toilet" in raw and "seat" in raw
    kept = [(word, span) for word, span in zip(raw, spans, strict=True) if not (seat and word == "seat")]
    # The official index counts positions after the drop in the list before it.
    found = [(word, span, spans[at][0]) for at, (word, span) in enumerate(kept) if word in rules.node]
    return Mentions(
        words=[word for word, _, _ in found],
        nodes=[rules.node[word] for word, _, _ in found],
        idxs=[index for _, _, index in found],
        places=[span for _, span, _ in found],
        raw=raw,
    )


def count_objects(mentions: Mentions, gt_objects: Collection[str], *, strict: bool) -> dict[str, Any]:
    """Counts of one caption; an object mentioned twice counts twice for CHAIR_i and once for Recall.

    Args:
        mentions: What it mentions.
        gt_objects: What is in the picture.
        strict: With the true token indices instead of the official script's.
    """
    absent = [at for at, node in enumerate(mentions.nodes) if node not in gt_objects]
    recalled = {node for node in mentions.nodes if node in gt_objects}
    total = len(mentions.nodes)
    return {
        "mscoco_gt_words": sorted(gt_objects),
        "hallucination_idxs": [mentions.places[at][0] if strict else mentions.idxs[at] for at in absent],
        "absent": absent,
        "captions": 1,
        "coco_captions": int(total > 0),
        "hallucinated_captions": int(bool(absent)),
        "mentions": total,
        "hallucinated_mentions": len(absent),
        "recalled": len(recalled),
        "gt_objects": len(gt_objects),
    }


def mention_spans(
    mentions: Mentions, absent: Collection[int], spans: Sequence[tuple[int, int] | None]
) -> dict[str, list[list[int]]]:
    """Character spans of mentions of absent and of present objects, for people to see.

    Args:
        mentions: What a caption mentions.
        absent: Which of the mentions are of absent objects.
        spans: Character span of each token of the caption.
    """
    found: dict[str, list[list[int]]] = {"absent_spans": [], "present_spans": []}
    for at, (first, last) in enumerate(mentions.places):
        start, end = spans[first], spans[last]
        if start is not None and end is not None:
            found["absent_spans" if at in absent else "present_spans"].append([start[0], end[1]])
    return found


def ground_truth(
    data_dir: str | None, variant: str, ids: Collection[int], rules: Rules, to_lemmas: LemmaFunction
) -> GroundTruth:
    """Objects in images, from a file of them or from COCO's annotations.

    Args:
        data_dir: The user's folder.
        variant: ``wordnet`` or ``pattern``: how the words of the human captions were brought to base form.
        ids: The images.
        rules: Which words mean which object, for COCO's annotations.
        to_lemmas: Captions to dictionary forms, for COCO's annotations.

    Raises:
        UserError: There is neither, or an image is not in it.
    """
    name = f"chair_gt_{variant}.json"
    places = [f"{folder}{name}{end}" for folder in ("", "coco_gt_objects/") for end in (".gz", "")]
    if variant == "wordnet":
        places.insert(0, "gt_objects.json")
    path = find(places, data_dir, HOW_TO_GET_COCO)
    if path is not None:
        return GroundTruth(_read_objects(path), {"ground_truth": f"{path.name} sha256:{sha256_of(path)}"})
    return _from_annotations(data_dir, set(ids), rules, to_lemmas)


def _read_objects(path: Path) -> dict[int, list[str]]:
    try:
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        return {int(key): list(map(str, value)) for key, value in json.loads(data).items()}
    except (OSError, EOFError, ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"no file of ground-truth objects: {error}",
            where=str(path),
            fix='it is {"image id": ["object", ...], ...}',
        ) from None


def _from_annotations(
    data_dir: str | None, ids: set[int], rules: Rules, to_lemmas: LemmaFunction
) -> GroundTruth:
    objects: dict[int, set[str]] = {}
    captions: list[tuple[int, str]] = []
    source = {}
    for part in ("val", "train"):
        for kind in ("instances", "captions"):
            name = f"{kind}_{part}2014.json"
            path = find([f"{folder}{name}" for folder in _ANNOTATIONS], data_dir, HOW_TO_GET_COCO)
            if path is None:
                if part == "train" and ids <= objects.keys():
                    continue
                where = f"--data_dir {data_dir}" if data_dir else "--data_dir"
                raise UserError(f"COCO's objects are needed, {name} is not there", where, HOW_TO_GET_COCO)
            content = _read_annotations(path)
            source[name] = f"{len(content['annotations'])} annotations"
            for image in content["images"]:
                if image["id"] in ids:
                    objects.setdefault(image["id"], set())
            names = {c["id"]: rules.node[c["name"]] for c in content.get("categories", ())}
            for annotation in content["annotations"]:
                image_id = annotation["image_id"]
                if image_id not in ids:
                    continue
                if kind == "instances":
                    objects.setdefault(image_id, set()).add(names[annotation["category_id"]])
                else:
                    captions.append((image_id, annotation["caption"]))
    for (image_id, _), lemmas in zip(captions, to_lemmas([text for _, text in captions]), strict=True):
        objects.setdefault(image_id, set()).update(find_objects(lemmas, rules).nodes)
    return GroundTruth({key: sorted(value) for key, value in objects.items()}, source)


def _read_annotations(path: Path) -> dict[str, Any]:
    """A file of COCO's annotations without outlines: kept, they would fill gigabytes of memory."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes(), object_hook=_without_outline)
        if not {"annotations", "images"} <= content.keys():
            raise KeyError("annotations, images")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise UserError(f"no COCO annotations: {error!r}", where=str(path), fix=HOW_TO_GET_COCO) from None
    return content


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    entry.pop("segmentation", None)
    return entry
