"""The official benchmarks with a judge that is asked: it gets their prompts, its replies become scores."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from chat_server import ChatBackend, chat_server
from mfpo.evaluation.config import ScoreConfig
from mfpo.evaluation.results import ScoreResult
from mfpo.evaluation.score import run_score


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ChatBackend]:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    monkeypatch.setenv("MFPO_CACHE", str(tmp_path / "cache"))
    with chat_server() as backend:
        yield backend


def scored(
    backend: ChatBackend, benchmark: str, answers: list[dict], data_dir: Path, tmp_path: Path
) -> ScoreResult:
    path = tmp_path / "answers.jsonl"
    path.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    output = tmp_path / "scores.json"
    run_score(
        ScoreConfig(
            benchmark=benchmark,
            predictions=str(path),
            data_dir=str(data_dir),
            judge_model="judge",
            base_url=backend.url,
            judge_repeats=2,
            output_file=str(output),
        )
    )
    return ScoreResult.load(output)


def test_mmhal(shared: Path, backend: ChatBackend, tmp_path: Path) -> None:
    data_dir = shared / "data" / "official" / "mmhal"
    backend.reply = lambda text: "Good.\nRating: 6" if "answer number 7." in text else "Hm.\nRating: 1"
    answers = [{"id": str(n), "answer": f"answer number {n}."} for n in range(96)]
    result = scored(backend, "mmhal", answers, data_dir, tmp_path)
    assert len(backend.requests) == 192
    assert result.metrics["score"] == pytest.approx((6 + 95) / 96)
    assert result.metrics["hallucination_rate"] == pytest.approx(95 / 96)
    assert result.settings["judge"]["spread"]["score"]["sd"] == 0
    assert result.settings["judge"]["agreement"] == 1
    assert result.items[7]["judge_replies"] == ["Good.\nRating: 6"] * 2
    request = backend.requests[0]
    assert request["temperature"] == 0
    assert request["messages"][-1]["content"].startswith("Please act as an impartial")


def test_llava_bench(shared: Path, backend: ChatBackend, tmp_path: Path) -> None:
    data_dir = shared / "data" / "official" / "llavabench_coco"
    backend.reply = lambda text: "8 6\nThe first is better."
    answers = [{"id": str(n), "answer": "A cat."} for n in range(90)]
    result = scored(backend, "llava-bench", answers, data_dir, tmp_path)
    assert len(backend.served) == 90
    assert result.metrics["all"] == pytest.approx(75.0)
    assert {request["temperature"] for request in backend.requests} == {0.2}


def test_objhal_asks_again_for_a_list(
    shared: Path, nltk_data: Path, backend: ChatBackend, tmp_path: Path
) -> None:
    data_dir = shared / "data" / "official" / "objhalbench"
    backend.reply = lambda text: '["cat"]' if backend.tries[text] % 2 == 0 else "I see a cat."
    golden = shared / "data" / "golden" / "objhal" / "answers.jsonl"
    rows = [json.loads(line) for line in golden.read_text().splitlines()]
    answers = [row for row in rows if len(row["answer"].split()) > 8][:4]
    result = scored(backend, "objhal", answers, data_dir, tmp_path)
    assert len(backend.requests) == 16
    assert {reply for item in result.items for reply in item["judge_replies"]} == {'["cat"]'}
    assert all(item["extract_objs"] == ["cat"] for item in result.items)
