from __future__ import annotations

from pathlib import Path

import pytest

from mfpo.data import fingerprint
from mfpo.data.fingerprint import code_digest, library_versions


def test_digest_changes_with_the_source_it_covers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mfpo"
    (package / "a").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "a" / "one.py").write_text("x = 1\n")
    (package / "two.py").write_text("y = 1\n")
    monkeypatch.setattr(fingerprint, "_PACKAGE", package)

    def digests() -> tuple[str, str, str]:
        code_digest.cache_clear()
        return code_digest(("a",)), code_digest(("two.py",)), code_digest()

    before = digests()
    assert digests() == before
    (package / "a" / "one.py").write_text("x = 2\n")
    after = digests()
    assert [old == new for old, new in zip(before, after, strict=True)] == [False, True, False]
    (package / "a" / "words.txt").write_text("mug\n")
    (package / "a" / "one.pyc").write_bytes(b"made from one.py")
    words = digests()
    assert words[0] != after[0]
    (package / "a" / "one.pyc").unlink()
    assert digests() == words
    code_digest.cache_clear()


def test_versions_of_what_is_installed_and_what_is_not() -> None:
    found = library_versions(["torch", "no-such-library"])
    assert found["torch"] and found["no-such-library"] == ""
