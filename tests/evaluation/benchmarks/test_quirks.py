"""Every quirk that a benchmark declares has a test of its name, and stands in the documentation."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from mfpo.evaluation.benchmarks import BENCHMARKS, load_benchmark

DOCUMENTATION = Path(__file__).resolve().parents[3] / "docs" / "evaluation.md"
QUIRKS = [(name, quirk) for name in BENCHMARKS for quirk in load_benchmark(name).quirks]


@pytest.mark.parametrize(("name", "quirk"), QUIRKS)
def test_a_quirk_has_a_test_of_its_name(name: str, quirk: str) -> None:
    tests = importlib.import_module(f"test_{name.replace('-', '_')}")
    wanted = "test_quirk_" + quirk.lower().replace("-", "_").replace(".", "")
    assert callable(getattr(tests, wanted, None)), f"{tests.__name__} has no {wanted}"


@pytest.mark.parametrize(("name", "quirk"), QUIRKS)
def test_a_quirk_is_documented(name: str, quirk: str) -> None:
    rows = [line.split("|") for line in DOCUMENTATION.read_text().splitlines() if line.startswith("|")]
    documented = {(one.strip(), row[2].strip()) for row in rows if len(row) > 4 for one in row[1].split(",")}
    assert (name, quirk) in documented
