"""``mfpo doctor`` reports what is there and fails when a base requirement is not."""

from __future__ import annotations

import json
import socket
from importlib import metadata
from pathlib import Path

import pytest
import torch

from mfpo.cli import doctor
from mfpo.cli.main import main


def findings(capsys: pytest.CaptureFixture[str]) -> dict[str, dict[str, str]]:
    return {finding["name"]: finding for finding in json.loads(capsys.readouterr().out)["findings"]}


def test_this_environment_is_ready(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("doctor used the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert main(["doctor", "--json"]) == 0
    found = findings(capsys)
    assert found["torch"]["detail"] == torch.__version__
    assert found["English tagger"]["status"] == found["sentence embeddings"]["status"] == "ok"
    assert float(found["memory"]["detail"].split()[0]) > 0
    assert {"device", "disk", "processor"} <= set(found) or "cuda:0" in found


def test_table_names_versions_and_says_ready(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert metadata.version("transformers") in out
    assert "ready: `mfpo demo`" in out


def test_missing_benchmark_tools_are_told_with_the_cure(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import nltk

    monkeypatch.delenv("NLTK_DATA", raising=False)
    monkeypatch.setattr(nltk.data, "path", [])
    assert main(["doctor", "--json"]) == 0
    found = findings(capsys)["NLTK data"]
    assert found["status"] == "info"
    assert "unofficial numbers" in found["detail"]
    assert "python -m nltk.downloader averaged_perceptron_tagger_eng punkt_tab wordnet" in found["detail"]


def test_missing_and_outdated_packages_fail(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    declared = ["no-such-package>=1", "torch>=99", "numpy", "ruff>=99; extra == 'dev'"]
    monkeypatch.setattr(doctor.metadata, "requires", lambda _: declared)
    assert main(["doctor", "--json"]) == 1
    found = findings(capsys)
    assert (found["no-such-package"]["status"], found["no-such-package"]["detail"]) == (
        "problem",
        "not installed",
    )
    assert found["torch"]["detail"] == f"{torch.__version__}, but >=99 is needed"
    assert found["torch"]["fix"]
    assert found["numpy"]["status"] == "ok"
    assert "ruff" not in found

    assert main(["doctor"]) == 1
    assert "2 problems" in capsys.readouterr().out


def test_missing_language_model_fails(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_MODELS", (("English tagger", "no_such_model"), ("code only", "mfpo.cli")))
    assert main(["doctor", "--json"]) == 1
    found = findings(capsys)
    assert found["English tagger"]["status"] == found["code only"]["status"] == "problem"


def test_without_torch_it_says_so_and_goes_on(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise OSError("libtorch_cpu.so: cannot open shared object file")

    monkeypatch.setattr("mfpo.preferences.regions.base.default_checkpoints", missing)
    assert main(["doctor", "--json"]) == 0
    found = findings(capsys)
    assert "torch" in found and "clipseg" not in found


def test_region_backends_say_what_they_need(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub.file_download

    monkeypatch.setattr(huggingface_hub.file_download.constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--CIDAS--clipseg-rd64-refined/snapshots/abc"
    snapshot.mkdir(parents=True)
    (snapshot / "model.safetensors").touch()
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs/main").write_text("abc")
    assert main(["doctor", "--json"]) == 0
    found = findings(capsys)
    assert found["clipseg"] == {**found["clipseg"], "status": "ok", "detail": "ready"}
    assert "facebook/sam2.1-hiera-large" in found["grounded-sam2"]["detail"]
    assert "access: https://huggingface.co/facebook/sam3" in found["sam3"]["detail"]
