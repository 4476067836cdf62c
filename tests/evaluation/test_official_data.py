"""Where a benchmark's files are found, and how they are fetched."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from mfpo.errors import UserError
from mfpo.evaluation.official_data import DataFile, locate

CONTENT = b'{"a": 1}'


@pytest.fixture
def server() -> Iterator[str]:
    """A server with one file."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/a.json" else 404)
            self.end_headers()
            self.wfile.write(CONTENT)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MFPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    return tmp_path / "cache"


def file(url: str, content: bytes = CONTENT) -> DataFile:
    return DataFile(("a.json", "sub/a.json"), "MIT", url, hashlib.sha256(content).hexdigest())


def test_a_file_is_fetched_once(server: str, cache: Path) -> None:
    path = locate(file(f"{server}/a.json"), None)
    assert path.read_bytes() == CONTENT
    assert cache in path.parents
    again = file("http://127.0.0.1:1/a.json")
    assert locate(again, None) == path


def test_a_folder_that_is_not_there_is_told_with_the_cure() -> None:
    with pytest.raises(UserError, match="--data_dir nowhere: the folder does not exist") as told:
        locate(file("http://127.0.0.1:1/a.json"), "nowhere")
    assert told.value.fix == (
        "check the path, or get http://127.0.0.1:1/a.json (licence: MIT) and name its folder with --data_dir"
    )


def test_another_content_is_refused(server: str, cache: Path) -> None:
    with pytest.raises(UserError, match="is not what it was"):
        locate(file(f"{server}/a.json", b"other"), None)
    assert not list(cache.rglob("*.json"))


def test_what_cannot_be_fetched_is_told_with_its_place(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for url in (f"{server}/none.json", "http://127.0.0.1:1/a.json"):
        with pytest.raises(UserError, match=r"a\.json cannot be fetched") as error:
            locate(file(url), None)
        assert url in error.value.fix
        assert "MIT" in error.value.fix
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        locate(file(f"{server}/a.json"), None)
    with pytest.raises(UserError, match="is needed") as error:
        locate(DataFile(("a.json",), "MIT", how="get it by hand"), None)
    assert "get it by hand" in error.value.fix


def test_a_folder_of_the_user_is_searched_and_nothing_else(tmp_path: Path, server: str) -> None:
    folder = tmp_path / "data"
    (folder / "sub").mkdir(parents=True)
    with pytest.raises(UserError, match="is not there"):
        locate(file(f"{server}/a.json"), str(folder))
    (folder / "sub" / "a.json").write_text("{}")
    assert locate(file(""), str(folder)) == folder / "sub" / "a.json"
    beside = tmp_path / "beside"
    beside.mkdir()
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.json").write_text("{}")
    assert locate(file(""), str(beside)) == tmp_path / "sub" / "a.json"
