"""CHAIR against the official script's output, and each of its quirks by itself."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from mfpo.errors import UserError
from mfpo.evaluation import score
from mfpo.evaluation.benchmarks.base import BenchmarkSettings
from mfpo.evaluation.benchmarks.chair import ChairBenchmark
from mfpo.evaluation.results import ScoreResult

TRUTH = {"1": ["cat", "toilet"], "2": ["person"], "3": []}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Ground truth of three images."""
    (tmp_path / "gt_objects.json").write_text(json.dumps(TRUTH))
    return tmp_path


def scored(data_dir: Path, captions: dict[int, str], **settings: Any) -> ScoreResult:
    path = data_dir / "captions.jsonl"
    path.write_text("".join(json.dumps({"image_id": k, "caption": v}) + "\n" for k, v in captions.items()))
    return score.score_answers(ChairBenchmark(BenchmarkSettings(str(data_dir), **settings)), path)


def test_every_field_of_the_golden_file(shared: Path, nltk_data: Path) -> None:
    golden = shared / "data" / "golden" / "chair"
    benchmark = ChairBenchmark(BenchmarkSettings(str(shared / "data" / "official" / "chair")))
    result = score.score_answers(benchmark, golden / "captions.jsonl")
    expected = json.loads((golden / "expected_per_caption_wordnet.json").read_text())
    assert len(result.items) == len(expected) == 110
    for item, official in zip(result.items, expected, strict=True):
        assert {name: item[name] for name in official} == official
    mentions = sum(len(item["mscoco_generated_words"]) for item in expected)
    absent = sum(len(item["mscoco_hallucinated_words"]) for item in expected)
    assert result.metrics["CHAIR_i"] == pytest.approx(100 * absent / mentions)
    assert result.metrics["CHAIR_s"] == pytest.approx(
        100 * sum(item["metrics"]["CHAIRs"] for item in expected) / 110
    )
    assert result.metrics["Len"] == pytest.approx(sum(len(item["words"]) for item in expected) / 110)
    assert result.settings["unverified"] == []
    assert "sha256" in result.settings["ground_truth"]


def test_the_two_ground_truths_in_circulation(shared: Path, nltk_data: Path) -> None:
    pytest.importorskip("textblob")
    official = str(shared / "data" / "official")
    path = shared / "data" / "golden" / "chair" / "captions.jsonl"
    result = score.score_answers(ChairBenchmark(BenchmarkSettings(official, variant="pattern")), path)
    assert result.settings["ground_truth"].startswith("chair_gt_pattern")
    assert "pattern" in result.settings["unverified"][0]


@pytest.mark.parametrize(
    ("caption", "nodes"),
    [
        ("A fire hydrant beside two wine glasses.", ["fire hydrant", "wine glass"]),
        ("A baby elephant and an adult giraffe.", ["elephant", "giraffe"]),
        ("A baby holds a kite.", ["person", "kite"]),
        ("A passenger train.", ["train"]),
        ("Two train tracks.", []),
        ("The seat of the toilet.", ["toilet"]),
        ("A toilet seat.", ["toilet"]),
        ("A seat.", ["chair"]),
        ("", []),
    ],
)
def test_quirk_greedy_pairs_of_words(data_dir: Path, caption: str, nodes: list[str]) -> None:
    assert scored(data_dir, {1: caption}).items[0]["mscoco_generated_words"] == nodes


def test_quirk_duplicates_count_in_chair_i(data_dir: Path) -> None:
    result = scored(data_dir, {1: "A dog, a dog and a cat."})
    assert result.metrics["CHAIR_i"] == pytest.approx(100 * 2 / 3)
    assert result.metrics["Recall"] == 50.0


def test_quirk_blanks(data_dir: Path) -> None:
    captions = {2: "A cheesecake."}
    assert scored(data_dir, captions).metrics["CHAIR_s"] == 0
    result = scored(data_dir, captions, mode="strict")
    assert result.items[0]["mscoco_generated_words"] == ["cake"]
    assert result.settings["modes"]["official"]["CHAIR_s"] == 0


def test_quirk_iphone(data_dir: Path) -> None:
    assert scored(data_dir, {1: "An iPhone."}).items[0]["mscoco_generated_words"] == []
    assert scored(data_dir, {1: "An iPhone."}, mode="strict").items[0]["mscoco_generated_words"] == [
        "cell phone"
    ]


def test_quirk_seat_index(data_dir: Path) -> None:
    captions = {1: "The seat of the toilet by the dog."}
    words = scored(data_dir, captions).items[0]["words"]
    assert words[scored(data_dir, captions).items[0]["hallucination_idxs"][0]] != "dog"
    assert words[scored(data_dir, captions, mode="strict").items[0]["hallucination_idxs"][0]] == "dog"


def test_quirk_len_of_an_item_is_0(data_dir: Path) -> None:
    assert scored(data_dir, {1: "A cat."}).items[0]["metrics"]["Len"] == 0.0
    assert scored(data_dir, {1: "A cat."}, mode="strict").items[0]["metrics"]["Len"] == 3.0


def test_hallucinated_words_are_marked(data_dir: Path) -> None:
    item = scored(data_dir, {1: "Two Fire  Hydrants stand by the Cats."}).items[0]
    assert [item["answer"][start:end] for start, end in item["absent_spans"]] == ["Fire  Hydrants"]
    assert [item["answer"][start:end] for start, end in item["present_spans"]] == ["Cats"]


@pytest.mark.parametrize(
    "content",
    [
        '{"image_id": 1, "caption": "A dog."}',
        '[{"image_id": "COCO_val2014_000000000001.jpg", "text": "A dog."}]',
        '{"image_id": "000000000001", "response": "A dog."}',
        '{"id": "1", "question": "?", "answer": "A dog.", "image": "x.jpg", "kind": "describe"}',
        '{"overall": {}, "imgToEval": {"0": {"image_id": 1, "caption": "A dog."}}}',
    ],
)
def test_formats_in_circulation_are_read(data_dir: Path, content: str) -> None:
    path = data_dir / "captions.json"
    path.write_text(content)
    result = score.score_answers(ChairBenchmark(BenchmarkSettings(str(data_dir))), path)
    assert result.metrics["CHAIR_s"] == 100.0
    assert result.items[0]["image_id"] == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ('{"image_id": 4, "caption": "a"}', "1 of 1 images have no ground truth, the first is 4"),
        ('{"image_id": "x", "caption": "a"}', "must be a whole number"),
        ('{"image_id": 1, "caption": "a"}\n{"image_id": 1, "caption": "b"}', "image 1 is answered twice"),
        ('{"image_id": 1}', "no text 'caption'"),
        ('{"imgToEval": {"0": 3}}', "is no object"),
    ],
)
def test_malformed_captions_are_told(data_dir: Path, content: str, told: str) -> None:
    path = data_dir / "captions.jsonl"
    path.write_text(content)
    with pytest.raises(UserError, match=told):
        score.score_answers(ChairBenchmark(BenchmarkSettings(str(data_dir))), path)


def test_ground_truth_from_coco_annotations(tmp_path: Path) -> None:
    """Objects of the masks and of the human captions, train and val."""
    folder = tmp_path / "annotations"
    folder.mkdir()
    categories = [{"id": 17, "name": "cat"}, {"id": 18, "name": "dog"}]
    for part, image, category, caption in (
        ("val", 1, 17, "A cat on a couch."),
        ("train", 2, 18, "Two dogs."),
    ):
        images = [{"id": image}]
        masks = [{"image_id": image, "category_id": category}, {"image_id": 99, "category_id": 17}]
        (folder / f"instances_{part}2014.json").write_text(
            json.dumps({"images": images, "annotations": masks, "categories": categories})
        )
        (folder / f"captions_{part}2014.json").write_text(
            json.dumps({"images": images, "annotations": [{"image_id": image, "caption": caption}]})
        )
    result = scored(tmp_path, {1: "A cat and a dog on a sofa.", 2: "A dog and a sofa."})
    assert [item["mscoco_gt_words"] for item in result.items] == [["cat", "couch"], ["dog"]]
    assert [item["hallucinated_mentions"] for item in result.items] == [1, 1]
    (folder / "captions_val2014.json").unlink()
    with pytest.raises(UserError, match=r"captions_val2014\.json is not there"):
        scored(tmp_path, {1: "A cat."})


def test_outlines_of_coco_annotations_are_not_kept(tmp_path: Path) -> None:
    """They are nine tenths of 450 MB of text, and six times that as lists of Python's numbers."""
    mask = {"image_id": 1, "category_id": 17, "segmentation": [[0.25] * 500]}
    for part in ("val", "train"):
        instances = {
            "images": [{"id": 1}],
            "annotations": [mask] * 500,
            "categories": [{"id": 17, "name": "cat"}],
        }
        (tmp_path / f"instances_{part}2014.json").write_text(json.dumps(instances))
        (tmp_path / f"captions_{part}2014.json").write_text('{"images": [], "annotations": []}')
    size = (tmp_path / "instances_val2014.json").stat().st_size
    scored(tmp_path, {1: "A cat."})  # WordNet and the libraries are in memory now
    tracemalloc.start()
    scored(tmp_path, {1: "A cat."})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * size  # twice the text, as bytes and as characters


def test_pictures_of_a_folder_are_the_questions(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "val2014"
    folder.mkdir()
    for number in (5, 3):
        Image.new("RGB", (4, 4)).save(folder / f"COCO_val2014_{number:012d}.jpg")
    (folder / "notes.txt").write_text("")
    benchmark = ChairBenchmark(BenchmarkSettings(str(tmp_path)))
    items = benchmark.load()
    assert [(item.id, item.question) for item in items] == [
        ("3", "Please describe this image in detail."),
        ("5", "Please describe this image in detail."),
    ]
    assert benchmark.open_image(items[0]).size == (4, 4)
