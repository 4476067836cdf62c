"""What ``import mfpo`` gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import mfpo
from mfpo.cli.verbs import VERBS
from mfpo.data.writer import DatasetWriter
from preference_rows import make_pairs


def test_every_public_name_is_there() -> None:
    """Those of commands are what the commands take and run, but for what takes an open model."""
    named = {name: getattr(mfpo, name) for name in mfpo.__all__}
    for command, config in (("build", "BuildConfig"), ("rank", "RankConfig"), ("train", "TrainConfig")):
        assert named[config] is VERBS[command].config_type()
    assert named["EvalConfig"] is VERBS["eval"].config_type()
    assert named["rank"] is VERBS["rank"].function()
    for name in ("build_dataset", "evaluate", "load_vlm", "open_dataset", "train", "UserError"):
        assert named[name].__name__ == name
    assert {*mfpo.__all__} <= {*dir(mfpo)}
    with pytest.raises(AttributeError, match="has no attribute 'trains'"):
        _ = mfpo.trains


def test_importing_it_imports_nothing_heavy() -> None:
    code = "import sys, mfpo; sys.exit(any(name in sys.modules for name in ('torch', 'numpy', 'yaml')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_model_is_trained_in_python_as_by_the_command(tiny_llava: Path, tmp_path: Path) -> None:
    with DatasetWriter(tmp_path / "rows") as writer:
        for pair in make_pairs(4):
            writer.write(pair)
    config = mfpo.TrainConfig(
        output_dir=str(tmp_path / "run"),
        objective="dpo",
        stages="none",
        per_device_train_batch_size=2,
        gradient_accumulation_steps=1,
        logging_steps=1,
        plot_every=1,
    )
    result = mfpo.train(mfpo.load_vlm(tiny_llava), mfpo.open_dataset(tmp_path / "rows"), config)
    assert result is not None and result.steps == 2
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"README.md", "plots", "metrics.jsonl", "config.yaml"} <= written
