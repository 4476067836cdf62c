"""The ``--config`` file: checked like flags, and every mistake told with file and key."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from mfpo.cli.fields import UsageError, settings_of
from mfpo.cli.settings import read_settings


@dataclass
class Sample:
    name: str = ""
    rate: float = 1.0
    steps: int = 1
    limit: int | None = None
    maybe: list[int] | None = None
    flag: bool = False
    kind: Literal["easy", "hard"] = "easy"
    words: list[str] = field(default_factory=list)
    pair: tuple[float, float] = (0.0, 1.0)
    folder: Path = Path()
    free: dict[str, Any] = field(default_factory=dict)


def read(folder: Path, text: str) -> dict[str, Any]:
    path = folder / "f.yaml"
    path.write_text(text, encoding="utf-8")
    return read_settings(path, settings_of(Sample))


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("# only a comment\n", {}),
        ("rate: 1e-4", {"rate": 1e-4}),
        ("rate: 2.5E+3", {"rate": 2500.0}),
        ("rate: .5e1", {"rate": 5.0}),
        ("rate: 3", {"rate": 3.0}),
        ("steps: 12", {"steps": 12}),
        ("limit: null", {"limit": None}),
        ("limit: 4", {"limit": 4}),
        ("maybe: null", {"maybe": None}),
        ("maybe: [3, 4]", {"maybe": [3, 4]}),
        ("flag: true", {"flag": True}),
        ("kind: hard", {"kind": "hard"}),
        ("words: [a, b]", {"words": ["a", "b"]}),
        ("words: []", {"words": []}),
        ("pair: [0.5, 2]", {"pair": (0.5, 2.0)}),
        ("folder: runs/demo", {"folder": Path("runs/demo")}),
        ("name: 1e", {"name": "1e"}),
        ("free:\n  # a: 1\n", {"free": {}}),
        ("free: {a: 1e-8, b: [1, x], c: {d: null}}", {"free": {"a": 1e-8, "b": [1, "x"], "c": {"d": None}}}),
    ],
)
def test_values_take_the_type_of_the_setting(tmp_path: Path, text: str, values: dict[str, Any]) -> None:
    found = read(tmp_path, text)
    assert found == values
    assert [type(value) for value in found.values()] == [type(value) for value in values.values()]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rate: fast", 'f.yaml: rate: expected FLOAT, found "fast"'),
        ("rate: [1.0]", r"f.yaml: rate: expected FLOAT, found \[1.0\]"),
        ("rate: true", "f.yaml: rate: expected FLOAT, found true"),
        ("steps: 1.5", "f.yaml: steps: expected INT, found 1.5"),
        ("steps:", "f.yaml: steps: expected INT, found null"),
        ("name: null", "f.yaml: name: expected STR, found null"),
        ("name: yes", "f.yaml: name: expected STR, found true"),
        ("name: {a: 1}", "f.yaml: name: expected STR, found"),
        ("words: [a, no]", "f.yaml: words: expected .*, found"),
        ("words: [null]", "f.yaml: words: expected .*, found"),
        ("words: [[a]]", "f.yaml: words: expected .*, found"),
        ("flag: 1", "f.yaml: flag: expected {True,False}, found 1"),
        ("kind: esay", "f.yaml: kind: 'esay' is no choice\n  fix: did you mean 'easy'?"),
        ("pair: [1, 2, 3]", "f.yaml: pair: expected FLOAT FLOAT, found"),
        ("free: 3", "f.yaml: free: expected a mapping, found 3"),
        ("rat: 1", "f.yaml: rat: unknown setting\n  fix: did you mean 'rate'?"),
        ("[a]: 1", "f.yaml:1: not valid YAML"),
        ("1: 1", "f.yaml: 1: unknown setting"),
        ("- a", "f.yaml: expected `name: value` lines"),
        ("rate: 1\nsteps: 2\nrate: 3", "f.yaml:3: not valid YAML: 'rate' is given twice"),
        ("rate: 1\nsteps: [1", "f.yaml:2: not valid YAML"),
        ("free: !!python/object:os.system {}", "f.yaml:1: not valid YAML"),
    ],
)
def test_mistakes_name_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("?", r"\?")):
        read(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("steps: two", "give a whole number"),
        ("limit: two", "give a whole number or null"),
        ("rate: fast", "give a number"),
        ("flag: 1", "give true or false"),
        ("name: yes", "give text; true, yes, no and null are text in quotes only"),
        ("name: 2024_12_01", "write it in quotes"),
        ("name: 1234e56", "write it in quotes"),
        ("kind: 3", "give one of easy, hard"),
        ("words: [[a]]", "give a list [...], each of its items text; true, yes"),
        ("maybe: [a]", "give a list [...], each of its items a whole number or null"),
        ("pair: [1, 2, 3]", "give a list [...] of 2: a number, a number"),
        ("folder: [a, b]", "give a path"),
        ("free: 3", "give indented `key: value` lines"),
        ("rate: 1\nsteps: [1", "write `name: value` lines"),
    ],
)
def test_the_cure_is_what_to_write(tmp_path: Path, text: str, cure: str) -> None:
    """It was once the setting's explanation, which says nothing about its type."""
    with pytest.raises(UsageError) as told:
        read(tmp_path, text)
    assert told.value.fix.startswith(cure)


def test_unreadable_files(tmp_path: Path) -> None:
    missing = tmp_path / "none.yaml"
    with pytest.raises(UsageError, match=r"--config .*none.yaml: the file cannot be read: No such f") as told:
        read_settings(missing, {})
    assert told.value.fix == f"check the path; {missing} was looked for"
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match=r"it is not UTF-8 text\n  fix: save it as UTF-8"):
        read_settings(tmp_path / "binary.yaml", {})
