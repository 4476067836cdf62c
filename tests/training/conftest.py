from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mfpo.models.load import VLM, load_vlm
from mfpo.training.config import TrainConfig
from mfpo.training.train import TrainResult, train
from preference_rows import make_pairs


@pytest.fixture
def vlm(tiny_llava: Path) -> VLM:
    """A fresh copy of the tiny LLaVA."""
    return load_vlm(str(tiny_llava), device="cpu", dtype="float32")


@pytest.fixture
def config_in(tmp_path: Path) -> Callable[..., TrainConfig]:
    """Settings of a short training, with the given ones in their place."""

    def make(**changes: Any) -> TrainConfig:
        settings: dict[str, Any] = {
            "output_dir": str(tmp_path / "run"),
            "learning_rate": 1e-3,
            "warmup_ratio": 0.0,
            "per_device_train_batch_size": 2,
            "gradient_accumulation_steps": 1,
            "logging_steps": 1,
            **changes,
        }
        settings["trainer"] = {"disable_tqdm": True, **settings.get("trainer", {})}
        return TrainConfig(**settings)

    return make


@pytest.fixture
def run(vlm: VLM, config_in: Callable[..., TrainConfig]) -> Callable[..., TrainResult]:
    """Train the tiny LLaVA on a few rows."""

    def go(rows: Any = None, **changes: Any) -> TrainResult:
        result = train(vlm, make_pairs(6) if rows is None else rows, config_in(**changes))
        assert result is not None
        return result

    return go
