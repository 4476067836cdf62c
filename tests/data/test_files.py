from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

import pytest
import yaml

from mfpo.data.files import append_jsonl, atomic_path, read_jsonl, save_config, write_atomic, write_json
from mfpo.errors import UserError


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "result.json"
    write_json(target, {"a": 1})
    before = target.read_bytes()

    def fail() -> None:
        with atomic_path(target) as path:
            path.write_text("half of")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert target.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_atomic_files_get_the_usual_permissions(tmp_path: Path) -> None:
    write_atomic(tmp_path / "atomic", "x")
    (tmp_path / "plain").write_text("x")
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_append_after_a_crash_drops_the_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    append_jsonl(path, [{"id": "1"}, {"id": "2", "text": "hällo"}])
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"id": "3", "te')
    assert read_jsonl(path) == [{"id": "1"}, {"id": "2", "text": "hällo"}]
    append_jsonl(path, [{"id": "4"}])
    assert [record["id"] for record in read_jsonl(path)] == ["1", "2", "4"]


def test_append_keeps_a_whole_line_that_lacks_its_newline(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": "1"}\n{"id": "2"}')
    append_jsonl(path, [{"id": "3"}])
    assert [record["id"] for record in read_jsonl(path)] == ["1", "2", "3"]


@pytest.mark.parametrize(("line", "what"), [("{broken", "broken JSON"), ("[1]", "JSON object is needed")])
def test_a_bad_line_is_named(tmp_path: Path, line: str, what: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"id": "1"}\n' + line + '\n{"id": "3"}\n')
    with pytest.raises(UserError, match=f"answers.jsonl:2: .*{what}"):
        read_jsonl(path)


def test_a_missing_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_jsonl(tmp_path / "nothing.jsonl")


class Colour(Enum):
    RED = "red"


@dataclass
class Inner:
    rate: float = 1e-4
    names: tuple[str, ...] = ("b", "a")


@dataclass
class Outer:
    folder: Path = Path("runs/demo")
    colour: Colour = Colour.RED
    empty: None = None
    inner: Inner = field(default_factory=Inner)
    trainer: dict[str, int] = field(default_factory=lambda: {"steps": 3})


def test_a_configuration_survives_yaml_in_its_order(tmp_path: Path) -> None:
    save_config(Outer(), tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    assert list(yaml.safe_load(text)) == ["folder", "colour", "empty", "inner", "trainer"]
    assert yaml.safe_load(text) == {
        "folder": "runs/demo",
        "colour": "red",
        "empty": None,
        "inner": {"rate": 1e-4, "names": ["b", "a"]},
        "trainer": {"steps": 3},
    }
