"""Scores that rest on a judge: through the command line, cut off and continued, and repeated."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

import toy_benchmark
from chat_server import ChatBackend, chat_server
from mfpo.errors import UserError
from mfpo.evaluation.config import EvalConfig, ScoreConfig
from mfpo.evaluation.judged import mean_result
from mfpo.evaluation.results import ScoreResult
from mfpo.evaluation.score import run_eval, run_score

SECRET = "sk-very-secret-0123456789"


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[ChatBackend]:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.setenv("MFPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(toy_benchmark.benchmarks.BENCHMARKS, "toy", "toy_benchmark:ToyBenchmark")
    with chat_server() as backend:
        # Every answer is its item's number: item 07 is rated 0, 08 is rated 1, and so on.
        backend.reply = lambda text: f"rating: {int(text.split()[1][:2]) % 7}"
        yield backend


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    path = tmp_path / "answers.jsonl"
    lines = [json.dumps({"id": f"{n:02d}", "answer": f"answer {n}"}) for n in range(toy_benchmark.NUM_ITEMS)]
    path.write_text("\n".join(lines) + "\n")
    return path


def config_of(backend: ChatBackend, answers: Path, **settings) -> ScoreConfig:
    given = {"judge_model": "judge", "base_url": backend.url, "benchmark": "toy", "predictions": str(answers)}
    return ScoreConfig(**{**given, **settings})


def scores_of(answers: Path) -> ScoreResult:
    return ScoreResult.load(answers.with_name("answers.scores.json"))


def test_a_judge_makes_the_scores_and_stands_beside_them(backend: ChatBackend, answers: Path, capsys) -> None:
    run_score(config_of(backend, answers, judge_price="input=1,output=2"))
    result = scores_of(answers)
    ratings = [n % 7 for n in range(40)]
    assert result.metrics["score"] == pytest.approx(sum(ratings) / 40)
    assert result.metrics["good"] == pytest.approx(100 * sum(r >= 3 for r in ratings) / 40)
    assert [item["judge_replies"] for item in result.items] == [[f"rating: {r}"] for r in ratings]
    judge = result.settings["judge"]
    assert (judge["model"], judge["returned_models"]) == ("judge", ["judge-2024"])
    assert judge["this_run"]["prompt_tokens"] == backend.prompt_tokens
    assert judge["this_run"]["cost"] == pytest.approx(
        (backend.prompt_tokens + 2 * backend.completion_tokens) / 1e6
    )
    assert "40 replies" in capsys.readouterr().out
    assert SECRET not in answers.with_name("answers.scores.json").read_text()


def test_repeats_give_means_and_their_spread(backend: ChatBackend, answers: Path, capsys) -> None:
    # Item 00 is rated 2, then 3, then 4; all others are rated 6.
    turns: Counter[str] = Counter()

    def reply(text: str) -> str:
        turns[text] += 1
        return f"rating: {1 + turns[text]}" if " 00:" in text else "rating: 6"

    backend.reply = reply
    run_score(config_of(backend, answers, judge_repeats=3, concurrency=1, num_samples=2))
    result = scores_of(answers)
    first, second = result.items
    assert (first["rating"], first["good"]) == (3, pytest.approx(2 / 3))
    assert first["judge_sd"] == {"rating": 1.0, "good": pytest.approx(3**-0.5)}
    assert first["judge_replies"] == ["rating: 2", "rating: 3", "rating: 4"]
    assert second["rating"] == 6 and "judge_sd" not in second
    assert result.metrics == {"score": pytest.approx(4.5), "good": pytest.approx(500 / 6)}
    judge = result.settings["judge"]
    assert [metrics["score"] for metrics in judge["repeats"]] == [4.0, 4.5, 5.0]
    assert judge["spread"]["score"] == {"mean": 4.5, "sd": 0.5, "min": 4.0, "max": 5.0}
    assert judge["agreement"] == 0.5
    assert "score 4.500, sd 0.500, 4.000 to 5.000" in capsys.readouterr().out
    assert len(backend.requests) == 6


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"benchmark": "scenes"}, "scenes needs no judge"),
        ({"judge_repeats": 0}, "--judge_repeats 0"),
        ({"concurrency": 0}, "--concurrency 0"),
        ({"judge_price": "1"}, "--judge_price"),
        ({"api_key_env": "NO_SUCH", "base_url": "https://example.invalid/v1"}, "NO_SUCH"),
    ],
)
def test_what_is_wrong_with_a_judge_is_told_before_answers_are_generated(
    backend: ChatBackend, tmp_path: Path, change: dict, told: str
) -> None:
    settings = {"benchmark": "toy", "judge_model": "judge", "base_url": backend.url, **change}
    with pytest.raises(UserError, match=told):
        run_eval(EvalConfig(model_name_or_path="nowhere", output_dir=str(tmp_path), **settings))


def test_a_benchmark_that_needs_a_judge_says_so_first(backend: ChatBackend, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="toy needs a judge, who rates each answer"):
        run_eval(EvalConfig(model_name_or_path="nowhere", output_dir=str(tmp_path), benchmark="toy"))


def test_killed_while_judging_and_continued(backend: ChatBackend, answers: Path, tmp_path: Path) -> None:
    backend.delay = 0.05
    arguments = ["score", "--benchmark", "toy", "--predictions", str(answers), "--judge_model", "judge"]
    arguments += ["--base_url", backend.url, "--concurrency", "2"]
    command = [sys.executable, toy_benchmark.__file__, *arguments]
    process = subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE)
    while len(backend.served) < 12 and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with closing(sqlite3.connect(tmp_path / "cache" / "replies.sqlite")) as cache:
        (kept,) = cache.execute("SELECT COUNT(*) FROM replies").fetchone()
    # What was under way when the process died cannot be kept; all that had come is.
    asked = len(backend.requests)
    assert 10 <= kept <= asked <= kept + 4 < 40
    before = Counter(backend.texts())
    subprocess.run(command, env=os.environ, check=True, capture_output=True)
    again = Counter(backend.texts()) - before
    assert sum(again.values()) == 40 - kept
    assert scores_of(answers).metrics["score"] == pytest.approx(sum(n % 7 for n in range(40)) / 40)
    # Not one that was kept is asked for again.
    assert sum(count - 1 for count in backend.tries.values()) == asked - kept


def test_means_are_those_of_what_is_printed_in_every_mode() -> None:
    definitions = {"score": {"numerator": "n", "denominator": "d", "scale": 1.0, "better": "", "text": ""}}

    def result(n: int, printed: float, strict: float | None) -> ScoreResult:
        modes = {"official": {"score": printed}, "strict": {"score": strict}}
        settings = {"benchmark": "b", "definitions": definitions, "modes": modes}
        return ScoreResult({"score": printed}, [{"id": "1", "n": n, "d": 3}], settings)

    mean = mean_result([result(1, 0.3, 0.5), result(2, 0.7, None)])
    assert mean.metrics == {"score": pytest.approx(0.5)}
    assert mean.settings["modes"] == {"official": {"score": pytest.approx(0.5)}, "strict": {"score": 0.5}}
    assert mean.items[0]["n"] == 1.5
