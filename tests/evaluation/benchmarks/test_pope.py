"""POPE by hand, its quirks, and the two label files in circulation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mfpo.errors import UserError
from mfpo.evaluation import score
from mfpo.evaluation.benchmarks.base import BenchmarkSettings
from mfpo.evaluation.benchmarks.pope import PopeBenchmark, official_yes
from mfpo.evaluation.results import ScoreResult

LABELS = {"random": "yes yes no no", "popular": "yes no no no", "adversarial": "no yes"}


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A small POPE: ten questions in three sets."""
    for split, labels in LABELS.items():
        rows = [
            {
                "question_id": at,
                "image": f"{at % 2}.jpg",
                "text": f"Is there a {split} thing {at}?",
                "label": label,
            }
            for at, label in enumerate(labels.split(), start=1)
        ]
        (tmp_path / f"coco_pope_{split}.json").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


def scored(data_dir: Path, answers: str, **settings: Any) -> ScoreResult:
    path = data_dir / "answers.jsonl"
    path.write_text("\n".join(json.dumps({"answer": answer}) for answer in answers.split("|")))
    return score.score_answers(PopeBenchmark(BenchmarkSettings(str(data_dir), **settings)), path)


def test_metrics_by_hand(data_dir: Path) -> None:
    """Random: tp 1, fn 1, fp 1, tn 1. Popular: tp 1, tn 3. Adversarial: fp 1, fn 1."""
    metrics = scored(data_dir, "Yes|No|Yes|No|Yes|No|No|No|Yes|No").metrics
    expected = {
        "random_Accuracy": 0.5,
        "random_Precision": 0.5,
        "random_Recall": 0.5,
        "random_F1": 0.5,
        "random_Yes_ratio": 0.5,
        "popular_Accuracy": 1.0,
        "popular_F1": 1.0,
        "adversarial_F1": 0.0,
        "Accuracy": 0.6,
        "F1": 2 * 2 / (2 * 2 + 2 + 2),
        "mean_F1": 0.5,
        "Unparsed": 0.0,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answer", "yes"),
    [
        ("Yes, there is.", True),
        ("No, there is no car.", False),
        ("There is not. Yes.", False),
        ("Yes. There is no dog.", True),
        ("no", False),
        ("NO", True),
        ("There is nothing.", True),
        ("I don't know", True),
        ("", True),
    ],
)
def test_quirk_all_else_is_yes(answer: str, yes: bool) -> None:
    assert official_yes(answer) is yes


@pytest.mark.parametrize("answer", ["No\n", "(no)", "No,thing", "No!", "a no-go"])
def test_quirk_blanks_only(answer: str) -> None:
    assert official_yes(answer)


def test_quirk_the_first_sentence_without_commas() -> None:
    assert not official_yes("Well, no, there is none. Yes.")
    assert official_yes("Yes. No, no, no")


def test_strict_counts_neither_apart(data_dir: Path) -> None:
    answers = "Yes|yes!|No\n|perhaps"
    strict = scored(data_dir, answers, split="random", mode="strict")
    official = scored(data_dir, answers, split="random")
    assert (strict.metrics["Accuracy"], strict.metrics["Unparsed"]) == (0.75, 0.25)
    assert (official.metrics["Accuracy"], official.metrics["Yes_ratio"]) == (0.5, 1.0)
    assert official.settings["modes"]["strict"]["Accuracy"] == 0.75


def test_answers_with_ids_of_one_set(data_dir: Path) -> None:
    rows = [
        {"question_id": at, "text": "No", "category": split} for split in ("popular",) for at in (4, 2, 3, 1)
    ]
    path = data_dir / "answers.jsonl"
    path.write_text(
        "\n".join(map(json.dumps, [*rows, *({**row, "category": "adversarial"} for row in rows[1:2])]))
    )
    benchmark = PopeBenchmark(BenchmarkSettings(str(data_dir)))
    assert {p.id for p in benchmark.read_answers(path)} == {
        "popular/4", "popular/2", "popular/3", "popular/1", "adversarial/2",
    }  # fmt: skip


@pytest.mark.parametrize("ids", ["joint", "category", "both"])
def test_answers_in_the_order_of_llavas_joint_file(data_dir: Path, ids: str) -> None:
    """As `model_vqa_loader` writes them; LLaVA's script tells sets by number, not by place."""
    rows = []
    for first, split in enumerate(("adversarial", "random", "popular")):
        for at, label in enumerate(LABELS[split].split(), start=1):
            row = {"question_id": at if ids == "category" else first * 10_000_000 + at, "text": label}
            row["prompt"] = (
                f"Is there a {split} thing {at}?\nAnswer the question using a single word or phrase."
            )
            rows.append(row if ids == "joint" else {**row, "category": split})
    path = data_dir / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    benchmark = PopeBenchmark(BenchmarkSettings(str(data_dir)))
    answers = benchmark.read_answers(path)
    assert len({answer.id for answer in answers}) == 10
    truth = {item.id: item.truth for item in benchmark.load()}
    assert all(answer.answer == truth[answer.id] for answer in answers)

    rows[0]["prompt"] = "Is there a cat?"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match="this answers 'Is there a cat"):
        benchmark.read_answers(path)


def test_answers_of_generate_are_read(data_dir: Path) -> None:
    benchmark = PopeBenchmark(BenchmarkSettings(str(data_dir), num_samples=1))
    items = benchmark.load()
    assert {item.image for item in items} == {"1.jpg"}
    path = data_dir / "answers.jsonl"
    path.write_text("\n".join(json.dumps({"id": item.id, "answer": "Yes"}) for item in reversed(items)))
    assert score.score_answers(benchmark, path).metrics["Yes_ratio"] == 1.0


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"answer": "Yes"}] * 9, "9 answers for 10 questions"),
        ([{"answer": "Yes"}] * 11, "11 answers for 10 questions"),
        ([{"answer": "Yes", "question": "Is there a cat?"}] * 10, "this answers 'Is there a cat"),
        ([{"id": "random/9", "answer": "Yes"}], "no such question: 'random/9'"),
        ([{"question_id": 30_000_001, "text": "Yes"}] * 10, "no such question"),
        ([{"question_id": 10_000_005, "text": "Yes"}], "no such question"),
        ([{"id": "random/1", "answer": "Yes"}] * 2, "answered twice"),
        ([{"id": "random/1", "answer": True}], "must be text"),
        ([{"id": "random/1", "answer": "Yes"}], "9 of 10 items have no answer"),
    ],
)
def test_malformed_answers_are_told(data_dir: Path, rows: list[dict], told: str) -> None:
    path = data_dir / "answers.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=told):
        score.score_answers(PopeBenchmark(BenchmarkSettings(str(data_dir))), path)


def test_both_label_files_of_the_random_set(shared: Path) -> None:
    folder = str(shared / "data" / "official" / "pope")
    sizes = {
        variant: len(PopeBenchmark(BenchmarkSettings(folder, variant=variant)).load())
        for variant in ("aoidragon", "llava15")
    }
    assert sizes == {"aoidragon": 9000, "llava15": 8910}
    one = str(shared / "data" / "official" / "pope" / "llava15_variant_2910random")
    with pytest.raises(UserError, match="has 2910 rows, variant aoidragon has 3000"):
        PopeBenchmark(BenchmarkSettings(one, split="random")).load()


def test_right_answers_to_the_official_questions(shared: Path, tmp_path: Path) -> None:
    benchmark = PopeBenchmark(BenchmarkSettings(str(shared / "data" / "official" / "pope"), split="popular"))
    path = tmp_path / "answers.jsonl"
    path.write_text(
        "\n".join(
            json.dumps({"question": i.question, "answer": i.truth.capitalize()}) for i in benchmark.load()
        )
    )
    metrics = score.score_answers(benchmark, path).metrics
    assert (metrics["Accuracy"], metrics["F1"], metrics["Yes_ratio"]) == (1.0, 1.0, 0.5)


def test_an_unknown_set_is_told() -> None:
    with pytest.raises(UserError, match="did you mean 'popular'"):
        PopeBenchmark(BenchmarkSettings(split="populr")).load()
