"""``examples/evaluate.sh``, the very file, from nothing to a report."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from page_checks import assert_self_contained

from chromium import Browser
from mfpo.evaluation.results import ScoreResult

SCRIPT = Path(__file__).resolve().parents[2] / "examples" / "evaluate.sh"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the script leaves in a folder; ``mfpo`` is that of this interpreter."""
    folder = tmp_path_factory.mktemp("evaluate")
    program = folder / "bin" / "mfpo"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mfpo.cli "$@"\n')
    program.chmod(0o755)
    path = os.pathsep.join([str(program.parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "HF_HUB_OFFLINE": "1", "SCENES": "8"}
    done = subprocess.run(
        ["bash", str(SCRIPT), "", str(folder / "out")], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder / "out"


@pytest.mark.slow
def test_the_example_goes_from_nothing_to_a_report(folder: Path, tab: Browser) -> None:
    for run in ("base", "tuned"):
        results = [ScoreResult.load(file) for file in sorted((folder / run / "scores").glob("*.json"))]
        assert [result.name for result in results] == ["attention", "distortion", "grounding", "scenes"]
        assert len((folder / run / "answers" / "scenes.jsonl").read_text().splitlines()) == 8 * 3
    assert (folder / "tuned" / "adapter_config.json").is_file()
    table = (folder / "comparison.md").read_text()
    assert all(f"### {name}" in table for name in ("scenes", "attention", "distortion", "grounding"))
    page = assert_self_contained(folder / "report.html")
    sections = {a["id"] for a in page.named("section")}
    assert sections >= {
        "results",
        "distortion",
        "attention",
        "rewards",
        "losses",
        "items",
        "rows",
        "settings",
    }
    tab.open(folder / "report.html")
    tab.wait("document.querySelector('#item-list .answer img').naturalWidth > 0")
    assert tab.run("document.querySelectorAll('.overlays img').length") > 0
    assert (tab.console, tab.dialogs) == ([], [])
