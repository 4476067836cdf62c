"""Answer files of other programs: what is read, and what is told about what is not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mfpo.errors import UserError
from mfpo.evaluation.answer_files import read_rows, unique

ROWS = [{"id": 1, "response": "A cat."}, {"id": 2, "response": "Ein Hund – größer."}]
LINES = "\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS)


@pytest.mark.parametrize(
    "content",
    [
        LINES,
        LINES + "\n",
        LINES.replace("\n", "\r\n") + "\r\n\r\n",
        "\ufeff" + LINES,
        "\n\n" + LINES + "\n\n",
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\ufeff" + json.dumps(ROWS, indent=2).replace("\n", "\r\n"),
    ],
    ids=[
        "lines",
        "newline",
        "windows",
        "bom",
        "empty lines",
        "list",
        "indented list",
        "windows list with bom",
    ],
)
@pytest.mark.parametrize("name", ["answers.json", "answers.jsonl", "answers.txt"])
def test_lists_and_lines_are_read_whatever_the_name(tmp_path: Path, content: str, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(content.encode())
    assert [row.record for row in read_rows(path)] == ROWS


def test_a_single_object_may_stand_over_several_lines(tmp_path: Path) -> None:
    path = tmp_path / "captions.json"
    path.write_text(json.dumps({"imgToEval": {"1": {"image_id": 1}}}, indent=1))
    assert [row.record for row in read_rows(path)] == [{"imgToEval": {"1": {"image_id": 1}}}]


@pytest.mark.parametrize(
    ("content", "where", "told", "cure"),
    [
        (b"", "", "empty", "one answer a line"),
        (b" \r\n ", "", "empty", "one answer a line"),
        (b"[]", "", "no answers", ""),
        (b'{"id": 1}\n{"id": 2\n{"id": 3}', ":2", "broken JSON", "can be deleted"),
        (b'{"id": 1}\n{"id": 2}\n{"id": 3, "resp', ":3", "broken JSON", "cut off"),
        (b'{"id": 1}\n[{"id": 2}]\n', ":2", "an object is needed|this is a list", "take the inner list out"),
        (b'[[{"id": 1}]]', ":1", "this is a list", "take the inner list out"),
        (b'[{"id": 1},\n 7]', ":2", "this is a number 7", "JSON object"),
        (b'[{"id": 1},\n{"id": 2', ":2", "broken JSON", ""),
        (b'[{"id": 1},\n{"id": 2}', ":2", "does not end", "cut off"),
        (b'[{"id": 1}\n{"id": 2}]', ":2", "comma is missing", "add it"),
        (b'[{"id": 1}]\n[{"id": 2}]', ":2", "follows the end", "in one list"),
        (b'"text"', ":1", "this is text", "JSON object"),
        (
            b'{"id": 1}\n{"id": 2, "response": "caf\xe9"}',
            ":2",
            "not UTF-8: byte 0xe9",
            "iconv -f WINDOWS-1252",
        ),
        ('{"id": 1}'.encode("utf-16"), ":1", "not UTF-8: byte 0xff", "iconv -f UTF-16"),
        (b'{"id": ' + b"[" * 100_000 + b"\n", ":1", "too deeply nested", ""),
        (b"[" * 100_000, ":1", "too deeply nested", ""),
    ],
)
def test_malformed_files_are_told_with_line_and_cure(
    tmp_path: Path, content: bytes, where: str, told: str, cure: str
) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=told) as error:
        read_rows(path)
    assert error.value.where == f"{path}{where}"
    assert cure in error.value.fix


def test_the_line_of_an_element_is_known_in_a_list(tmp_path: Path) -> None:
    path = tmp_path / "answers.json"
    path.write_text('[\n  {"id": 1,\n   "response": "a"},\n\n  {"id": "x"}\n]')
    rows = read_rows(path)
    assert [row.where for row in rows] == [f"{path}:2", f"{path}:5"]
    with pytest.raises(UserError, match="'id' must be a whole number, this is text"):
        rows[1].integer("id")


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"id": 1}, "no text 'response' or 'answer', it has 'id'"),
        ({"response": 3}, "must be text, this is a number"),
        ({"response": None, "id": 1}, "no text"),
        ({"response": ["a"]}, "must be text, this is a list"),
        ({}, "it has no fields"),
    ],
)
def test_wrong_types_are_told(tmp_path: Path, record: dict, told: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps(record))
    with pytest.raises(UserError, match=told) as error:
        read_rows(path)[0].text("response", "answer")
    assert error.value.where == f"{path}:1"


@pytest.mark.parametrize("value", [True, 1.5, "1.5", "", None, "²"])
def test_no_number_is_told(tmp_path: Path, value: object) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"id": value}))
    with pytest.raises(UserError, match="number"):
        read_rows(path)[0].integer("id")


def test_half_a_surrogate_pair_becomes_a_replacement_character(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"answer": "a \\ud83d b \\ud83d\\ude00"}')
    assert read_rows(path)[0].text("answer") == "a \ufffd b 😀"


def test_a_megabyte_answer_is_read(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(json.dumps({"answer": "word " * 200_000}))
    assert len(read_rows(path)[0].text("answer")) == 1_000_000


def test_duplicates_name_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": 1}\n{"id": 2}\n{"id": 1}\n')
    rows = read_rows(path)
    with pytest.raises(UserError, match="question 1 is answered twice, first in line 1") as error:
        unique([str(row.integer("id")) for row in rows], rows, "question")
    assert error.value.where == f"{path}:3"


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_rows(tmp_path / "none.json")
