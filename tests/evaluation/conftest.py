"""NLTK's data, unpacked once."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def nltk_folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the official scripts read through NLTK."""
    folder = tmp_path_factory.mktemp("nltk_data")
    with tarfile.open(shared / "data" / "nltk_data.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder


@pytest.fixture
def nltk_data(nltk_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The official tools are at hand."""
    from mfpo.evaluation.mentions.words import missing_nltk_data

    monkeypatch.setenv("NLTK_DATA", str(nltk_folder))
    assert missing_nltk_data() is None
    yield nltk_folder
    _forget(nltk_folder)


@pytest.fixture
def no_nltk_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """NLTK is installed and its data is not."""
    import nltk

    monkeypatch.delenv("NLTK_DATA", raising=False)
    monkeypatch.setattr(nltk.data, "path", [])


def _forget(folder: Path) -> None:
    import nltk

    if str(folder) in nltk.data.path:
        nltk.data.path.remove(str(folder))
