"""Every benchmark with every kind of broken answer file: line and cure are told, or the loss is counted."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mfpo.errors import UserError
from mfpo.evaluation.benchmarks import BENCHMARKS
from mfpo.evaluation.config import ScoreConfig
from mfpo.evaluation.results import ScoreResult
from mfpo.evaluation.score import run_score
from small_benchmarks import SMALL, Rows, SmallBenchmark

MUTANTS = 200
ODD_VALUES: list[Any] = [
    None, True, 0, -1, 1.5, float("nan"), 10**30, "9" * 5000, "", " ", "1", "\ud83d", "\0", "²", [], {},
    [[1]], {"a": 1}, "x" * 5000, "COCO_val2014_000000000001.jpg", "random/1", "rating: 10", "<b>&",
]  # fmt: skip


@pytest.fixture(params=sorted(BENCHMARKS))
def small(
    request: pytest.FixtureRequest, tmp_path: Path, no_nltk_data: None, monkeypatch: pytest.MonkeyPatch
) -> SmallBenchmark:
    """Each benchmark in turn; an eighth one would have to be added."""
    monkeypatch.chdir(tmp_path)
    return SMALL[request.param](tmp_path)


def score(small: SmallBenchmark, content: bytes, name: str = "answers.jsonl") -> ScoreResult:
    """What `mfpo score` writes about a file."""
    Path(name).write_bytes(content)
    output = Path("scores.json")
    output.unlink(missing_ok=True)
    config = {"data_dir": ".", "output_file": str(output), **small.settings}
    run_score(ScoreConfig(benchmark=small.name, predictions=name, **config))
    return ScoreResult.load(output)


def outcome(small: SmallBenchmark, content: bytes, name: str = "answers.jsonl") -> ScoreResult | UserError:
    """The scores of a file, or the complaint about it; any other error is a defect."""
    try:
        return score(small, content, name)
    except UserError as error:
        return error


def lines(rows: Rows) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def told(small: SmallBenchmark, content: bytes) -> UserError:
    """The complaint about a file, which has a cure."""
    with pytest.raises(UserError) as error:
        score(small, content)
    assert error.value.fix, error.value
    return error.value


def at_line(error: UserError, line: int) -> bool:
    """Whether a complaint names a line, or the answer that is on it."""
    return error.where in (f"answers.jsonl:{line}", f"answers.jsonl, answer {line}")


@pytest.mark.parametrize(
    "spell",
    [
        lambda content: b"\xef\xbb\xbf" + content,
        lambda content: content.replace(b"\n", b"\r\n"),
        lambda content: b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n\r\n"),
        lambda content: content.rstrip(b"\n"),
    ],
    ids=["byte order mark", "Windows newlines", "both and empty lines", "no last newline"],
)
def test_other_spellings_of_a_file_give_the_same_scores(
    small: SmallBenchmark, spell: Callable[[bytes], bytes]
) -> None:
    good = score(small, lines(small.rows))
    other = score(small, spell(lines(small.rows)))
    assert other.items == good.items
    assert str(other.metrics) == str(good.metrics)
    assert other.settings["answers"]["scored"] == len(small.rows)


def test_wrong_ids(small: SmallBenchmark) -> None:
    """The second answer is to a question that does not exist, or whose place is another's."""
    rows = [dict(row) for row in small.rows]
    if small.key is None:
        rows[1]["question"] = "Another question?"
    else:
        rows[1][small.key] = "unknown" if small.name == "scenes" else 977
    if small.name == "scenes":
        # Its ids are ours: one that is not known belongs to other scenes.
        counts = score(small, lines([*small.rows, rows[1]])).settings["answers"]
        assert (counts["scored"], counts["left_out"]) == (len(small.rows), 1)
        return
    assert at_line(told(small, lines(rows)), 2)


def test_duplicates(small: SmallBenchmark) -> None:
    error = told(small, lines([*small.rows, small.rows[0]]))
    if small.key is None:
        # By position the last one is an answer too many.
        assert f"{len(small.rows) + 1} answers for" in error.what or "no question 8" in error.what
    else:
        assert "twice" in error.what and at_line(error, len(small.rows) + 1)


def test_missing_items(small: SmallBenchmark) -> None:
    if small.missing:
        assert small.missing in told(small, lines(small.rows[:-1])).what
        return
    counts = score(small, lines(small.rows[:-1])).settings["answers"]
    assert counts["scored"] == len(small.rows) - 1
    assert counts["unanswered"] == {"amber": 1, "chair": 0, "objhal": 297}[small.name]


def test_not_utf_8(small: SmallBenchmark) -> None:
    first, second, *rest = lines(small.rows).splitlines(keepends=True)
    content = b"".join([first, second.replace(b'"}', b' caf\xe9"}'), *rest])
    assert at_line(told(small, content), 2)
    assert at_line(told(small, lines(small.rows).decode().encode("utf-16")), 1)


def test_nested_lists(small: SmallBenchmark) -> None:
    assert at_line(told(small, json.dumps([small.rows]).encode()), 1)
    rows = [*small.rows[:1], [small.rows[1]]]
    assert at_line(told(small, lines(rows)), 2)  # type: ignore[arg-type]
    assert at_line(told(small, b"[" * 100_000 + b"\n"), 1)


@pytest.mark.parametrize("value", [None, 7, True, ["Yes"], {"text": "Yes"}], ids=str)
def test_answers_that_are_no_text(small: SmallBenchmark, value: object) -> None:
    rows = [dict(row) for row in small.rows]
    rows[1][small.text] = value
    assert at_line(told(small, lines(rows)), 2)
    del rows[1][small.text]
    assert at_line(told(small, lines(rows)), 2)


@pytest.mark.parametrize("content", [b"", b"\n \r\n", b"[]", b"{}", b"null", b"7", b'"text"'], ids=str)
def test_no_answers_at_all(small: SmallBenchmark, content: bytes) -> None:
    told(small, content)


def test_a_file_that_is_not_there(small: SmallBenchmark) -> None:
    for name in ("none.jsonl", "none.json", "none.tsv", "none.xlsx"):
        with pytest.raises(UserError, match="cannot be read"):
            run_score(ScoreConfig(benchmark=small.name, predictions=name, data_dir=".", **small.settings))


def test_a_megabyte_of_an_answer(small: SmallBenchmark) -> None:
    rows = [dict(row) for row in small.rows]
    rows[0][small.text] = "A cat. " + "x" * (1 << 20)
    result = score(small, lines(rows))
    assert max(len(item["answer"]) for item in result.items) > 1 << 20


def test_half_a_surrogate_pair_in_any_field(small: SmallBenchmark) -> None:
    """JSON can hold it, no file can: it is written as a replacement character, or the field is refused."""
    for name in {*small.rows[0], "id", "image", "question"}:
        rows = [dict(row) for row in small.rows]
        rows[0][name] = "\ud83d"
        found = outcome(small, lines(rows))
        if isinstance(found, UserError):
            assert at_line(found, 1) or small.missing
        else:
            assert "\ud83d" not in json.dumps(found.items, ensure_ascii=False)


def test_mutants_are_scored_or_told(small: SmallBenchmark) -> None:
    """Two hundred damaged files: whatever happens to one, nobody sees a traceback."""
    chance = random.Random(small.name)
    names = ("answers.jsonl", "answers.json")
    outcomes = [outcome(small, mutant(small.rows, chance), chance.choice(names)) for _ in range(MUTANTS)]
    complaints = [found for found in outcomes if isinstance(found, UserError)]
    assert all(complaint.where for complaint in complaints)
    assert MUTANTS // 20 < len(complaints) < MUTANTS


@pytest.mark.parametrize("name", ["llava-bench", "mmhal", "objhal"])
def test_mutants_of_saved_replies(
    tmp_path: Path, no_nltk_data: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    small = SMALL[name](tmp_path)
    rows = [{"image_id": row["image_id"], "reply": '["cat"]'} for row in small.rows if name == "objhal"]
    if rows:
        replies, small = tmp_path / "replies.jsonl", replace(small, settings={"judgements": "replies.jsonl"})
    else:
        replies = Path(small.settings["judgements"])
        rows = [json.loads(line) for line in replies.read_text().splitlines()]
    chance = random.Random(name)
    complaints = 0
    for _ in range(MUTANTS):
        replies.write_bytes(mutant(rows, chance))
        complaints += isinstance(outcome(small, lines(small.rows)), UserError)
    assert MUTANTS // 20 < complaints < MUTANTS


@pytest.mark.parametrize("name", ["log.jsonl", "log.tsv"])
def test_mutants_of_other_toolkits_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    small = SMALL["pope"](tmp_path)
    Path("good.jsonl").write_bytes(lines(small.rows))
    run_score(ScoreConfig(benchmark="pope", predictions="good.jsonl", data_dir=".", export_file=name))
    good = Path(name).read_bytes()
    assert score(small, good, name).settings["answers"]["scored"] == len(small.rows)
    chance = random.Random(name)
    for _ in range(MUTANTS):
        content = bytearray(good)
        for _ in range(chance.randint(1, 3)):
            _damage_bytes(content, chance)
        outcome(small, bytes(content), name)


def mutant(rows: Rows, chance: random.Random) -> bytes:
    """A good file after one to three accidents, to its values first and to its bytes then."""
    rows = [dict(row) for row in rows]
    accidents = chance.randint(1, 3)
    for _ in range(accidents):
        if chance.random() < 0.5:
            _damage_row(rows, chance)
    content = bytearray(json.dumps(rows, indent=chance.choice((None, 1))).encode())
    if chance.random() < 0.5:
        content = bytearray(lines(rows))
    for _ in range(accidents):
        if chance.random() < 0.3:
            _damage_bytes(content, chance)
    return bytes(content)


def _damage_row(rows: Rows, chance: random.Random) -> None:
    at = chance.randrange(len(rows))
    name = chance.choice([*rows[at], "id", "image", "question", "category", "doc_id", "filtered_resps"])
    match chance.choice(("value", "drop", "rename", "again", "lose", "shuffle")):
        case "value":
            rows[at][name] = chance.choice(ODD_VALUES)
        case "drop":
            rows[at].pop(name, None)
        case "rename":
            rows[at][name.upper()] = rows[at].pop(name, None)
        case "again":
            rows.insert(chance.randrange(len(rows)), dict(rows[at]))
        case "lose" if len(rows) > 1:
            del rows[at]
        case _:
            chance.shuffle(rows)


def _damage_bytes(content: bytearray, chance: random.Random) -> None:
    at, length = chance.randrange(len(content) + 1), chance.randint(1, 20)
    match chance.choice(("flip", "cut", "insert", "end", "repeat", "mark")):
        case "flip":
            for place in range(at, min(at + length, len(content))):
                content[place] = chance.randrange(256)
        case "cut":
            del content[at : at + length]
        case "insert":
            content[at:at] = chance.choice((b"\0", b"\xff", b"[", b"}", b'"', b"\r\n", b",", b"\xed\xa0\x80"))
        case "end":
            del content[at:]
        case "repeat":
            content += content[at:]
        case "mark":
            content[0:0] = b"\xef\xbb\xbf"
    if not content:
        content += b" "
