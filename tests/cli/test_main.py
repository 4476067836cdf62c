"""Dispatch, exit codes and the table of verbs."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mfpo import __version__
from mfpo.cli.fields import settings_of
from mfpo.cli.main import main
from mfpo.cli.verbs import VERBS, Verb
from mfpo.errors import Stopped, UserError


@dataclass
class FailConfig:
    how: str = "user"
    """Which way to end."""


def fail(config: FailConfig) -> object:
    match config.how:
        case "user":
            raise UserError("the row is broken", where="pairs.jsonl:7", fix="mend it")
        case "interrupt":
            raise KeyboardInterrupt
        case "stopped":
            raise Stopped("stopped by SIGTERM after step 3 of 9", 143)
        case "bug":
            raise ZeroDivisionError
        case "pipe":
            raise BrokenPipeError
        case "code":
            return 3
        case "result":
            return Path("answers.jsonl")
        case "disk":
            Path("/proc/version/runs").mkdir()
    return None


@pytest.fixture(autouse=True)
def _fail_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        VERBS, "fail", Verb("fail", f"{__name__}:FailConfig", f"{__name__}:fail", "end badly", "test")
    )


REAL_VERBS = [
    *("doctor", "demo", "scenes", "build", "browse", "rank", "train", "export"),
    *("generate", "score", "eval", "compare", "probe", "report", "experiment"),
]


def test_the_table_has_every_verb() -> None:
    assert sorted(set(VERBS) - {"fail"}) == sorted(REAL_VERBS)


@pytest.mark.parametrize("name", REAL_VERBS)
def test_verb_has_settings_that_are_all_explained(name: str) -> None:
    for setting in settings_of(VERBS[name].config_type()).values():
        assert setting.help, f"{name}: --{setting.name} has no attribute docstring"


@pytest.mark.parametrize("name", REAL_VERBS)
def test_verb_has_a_function(name: str) -> None:
    assert callable(VERBS[name].function())


@pytest.mark.parametrize("name", REAL_VERBS)
def test_verb_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: mfpo {name}")
    assert "--config" in out


def test_no_help_imports_a_heavy_package() -> None:
    code = (
        "import sys\n"
        "from mfpo.cli.main import main\n"
        "from mfpo.cli.verbs import VERBS\n"
        "assert main(['--help']) == 0\n"
        "assert 'tyro' not in sys.modules and 'yaml' not in sys.modules\n"
        "assert all(main([name, '--help']) == 0 for name in VERBS)\n"
        "heavy = {'torch', 'transformers', 'datasets', 'numpy', 'spacy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_overview_lists_every_verb_with_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for verb in VERBS.values():
        assert any(line.split(maxsplit=1) == [verb.name, verb.help] for line in out.splitlines())


def test_no_verb_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert "usage: mfpo" in captured.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mfpo {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "error: mfpo trian: unknown verb\n  fix: did you mean 'train'?\n"),
        (["--quick", "demo"], "error: --quick: expected a verb first\n  fix: see `mfpo --help`\n"),
        (["fail", "--hwo", "x"], "error: --hwo: unknown flag\n  fix: did you mean '--how'?\n"),
        (["fail", "--config"], "error: --config: no value given\n  fix: write --config FILE.yaml\n"),
        (
            ["fail", "--config", "none.yaml"],
            "error: --config none.yaml: the file cannot be read: No such file",
        ),
    ],
)
def test_usage_errors_exit_2(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(message)
    assert not captured.out


def test_unknown_yaml_key_exits_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "f.yaml"
    path.write_text("hwo: user\n")
    assert main(["fail", "--config", str(path)]) == 2
    assert capsys.readouterr().err == f"error: {path}: hwo: unknown setting\n  fix: did you mean 'how'?\n"


def test_user_error_exits_1_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fail"]) == 1
    assert capsys.readouterr().err == "error: pairs.jsonl:7: the row is broken\n  fix: mend it\n"


@pytest.mark.parametrize("arguments", [["fail", "--debug"], ["--debug", "fail"]])
def test_debug_shows_the_traceback(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("error: pairs.jsonl:7: the row is broken\n  fix: mend it\n")


def test_exit_code_of_the_work(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fail", "--how", "nothing"]) == 0
    assert main(["fail", "--how", "code"]) == 3
    assert main(["fail", "--how", "result"]) == 0, "what Python callers get is no exit code"
    assert main(["fail", "--how", "interrupt"]) == 130
    assert capsys.readouterr().err.startswith("interrupted; the same command goes on")
    assert main(["fail", "--how", "stopped"]) == 143
    assert capsys.readouterr().err == "stopped by SIGTERM after step 3 of 9\n"


def test_a_folder_that_cannot_be_written_is_told_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["fail", "--how", "disk"]) == 1
    assert capsys.readouterr().err == "error: /proc/version/runs: Not a directory\n"
    with pytest.raises(NotADirectoryError):
        main(["fail", "--how", "disk", "--debug"])


@pytest.mark.parametrize(("how", "error"), [("bug", ZeroDivisionError), ("pipe", BrokenPipeError)])
def test_a_bug_is_not_hidden(how: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        main(["fail", "--how", how])


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_reader_that_goes_away_is_no_error(unbuffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "mfpo.cli", "--help"]
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, env=environment)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_runs_as_a_module() -> None:
    done = subprocess.run([sys.executable, "-m", "mfpo.cli", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"mfpo {__version__}\n")
