"""The engine ``ray`` makes the same rows, bit for bit, as one process."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mfpo.data.folder import shard_files
from mfpo.errors import UserError
from mfpo.preferences.build import build_dataset
from mfpo.preferences.config import BuildConfig

ray = pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = pytest.mark.slow


@pytest.fixture
def config(tmp_path: Path) -> BuildConfig:
    lines, annotations = [], []
    (tmp_path / "images").mkdir()
    for number in range(30):
        values = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        data = io.BytesIO()
        Image.fromarray(values).save(data, "PNG")
        cut = 200 if number == 7 else None
        (tmp_path / f"images/{number}.png").write_bytes(data.getvalue()[:cut])
        row = {"question": "What?", "chosen": "A red mug by a plate.", "rejected": "A blue mug by a fork."}
        lines.append(json.dumps({"image": f"images/{number}.png", **row}))
        annotations.append(json.dumps({"image": f"{number}.png", "boxes": {"mug": [[4, 4, 20, 20]]}}))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    (tmp_path / "annotations.jsonl").write_text("\n".join(annotations))
    return BuildConfig(dataset=str(tmp_path / "pairs.jsonl"), annotations=str(tmp_path / "annotations.jsonl"))


@pytest.mark.filterwarnings("ignore")
def test_ray_makes_the_same_rows(config: BuildConfig, tmp_path: Path) -> None:
    from dataclasses import replace

    build_dataset(replace(config, output_dir=str(tmp_path / "one")))
    build_dataset(replace(config, output_dir=str(tmp_path / "ray"), engine="ray", num_workers=2))
    for name in ("one", "ray"):
        assert len((tmp_path / name / "skipped.jsonl").read_text().splitlines()) == 1
    assert [path.read_bytes() for path in shard_files(tmp_path / "one")] == [
        path.read_bytes() for path in shard_files(tmp_path / "ray")
    ]
    missing = replace(
        config, output_dir=str(tmp_path / "none"), engine="ray", annotations=str(tmp_path / "gone.jsonl")
    )
    with pytest.raises(UserError, match="cannot be read"):
        build_dataset(missing)


@pytest.mark.filterwarnings("ignore")
def test_a_picture_that_takes_its_actor_down_each_time_costs_its_row(
    config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dataclasses import replace

    (tmp_path / "deadly.py").write_text(
        "import os\n"
        "class Deadly:\n"
        "    def segment(self, image, keywords, *, name=None):\n"
        "        if name.endswith('/3.png'):\n"
        "            os._exit(9)\n"
        "        return []\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    build_dataset(
        replace(
            config,
            annotations=None,
            regions="deadly:Deadly",
            output_dir=str(tmp_path / "out"),
            engine="ray",
            num_workers=1,
            max_workers=2,
        )
    )
    skips = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert sorted(skip["reason"] for skip in skips) == ["truncated-image", "worker-died"]
    assert next(skip["where"] for skip in skips if skip["reason"] == "worker-died") == "pairs.jsonl:4"
