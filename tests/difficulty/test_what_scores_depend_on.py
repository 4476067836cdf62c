"""The source that scores are told to depend on is what they depend on."""

from __future__ import annotations

from pathlib import Path

import grimp
import pytest

import mfpo
from mfpo.difficulty import fingerprint, semantic

ROOT = Path(mfpo.__file__).parent

CHANGES_NO_SCORE = {
    "data/files.py": "writes files whole; what is in them comes from elsewhere",
    "difficulty/config.py": "settings, whose values are parts of the fingerprint, and names",
    "difficulty/stages.py": "cuts entropies into stages, those that are stored at every training anew",
    "errors.py": "messages",
}
CHANGES_NO_ANSWER = CHANGES_NO_SCORE | {
    "data/fingerprint.py": "how digests are made",
    "models/adapters.py": "weights, which are digested",
    "models/hub.py": "whether the Hub can be reached",
    "models/load.py": "weights, configuration and processor, which are digested",
    "models/quantize.py": "weights and configuration, which are digested",
    "preferences/keyword_config.py": "the default of a setting, whose value is stored",
}


def imported(module: str) -> set[str]:
    """Files of a module and of what it imports inside the package, in functions too."""
    graph = grimp.build_graph("mfpo", exclude_type_checking_imports=True, cache_dir=None)
    names = {module, *graph.find_upstream_modules(module)}
    paths = [ROOT.joinpath(*name.split(".")[1:]) for name in names]
    files = [path / "__init__.py" if path.is_dir() else path.with_suffix(".py") for path in paths]
    return {file.relative_to(ROOT).as_posix() for file in files}


@pytest.mark.parametrize(
    ("module", "code", "exempt"),
    [
        ("mfpo.difficulty.scores", fingerprint.CODE, CHANGES_NO_SCORE),
        ("mfpo.difficulty.semantic", fingerprint.CODE + semantic.CODE, CHANGES_NO_ANSWER),
    ],
)
def test_all_that_is_imported_is_digested_or_exempt(
    module: str, code: tuple[str, ...], exempt: dict[str, str]
) -> None:
    """A new import belongs into `CODE`, or, if it cannot change a number, here with the reason."""
    found = imported(module)
    assert found - {*code} - exempt.keys() == set()
    assert not exempt.keys() & {*code} and {*exempt} <= found


def test_what_is_digested_is_there_and_used() -> None:
    assert {*fingerprint.CODE} <= imported("mfpo.difficulty.scores")
    assert {*semantic.CODE} <= imported("mfpo.difficulty.semantic")
    for code in (fingerprint.CODE, semantic.CODE):
        assert sorted({*code}) == [*code] and all((ROOT / path).is_file() for path in code)
