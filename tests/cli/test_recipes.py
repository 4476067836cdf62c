"""The recipes in configs/ are settings that `mfpo train` takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfpo.cli.flags import parse_config
from mfpo.cli.verbs import VERBS
from mfpo.training.config import TrainConfig

RECIPES = sorted((Path(__file__).parents[2] / "configs").glob("*.yaml"))
TRAIN = VERBS["train"]


def parsed(recipe: Path, *flags: str) -> TrainConfig:
    config = parse_config(TRAIN, ["--config", str(recipe), "--dataset", "d", "--output_dir", "o", *flags])
    assert isinstance(config, TrainConfig)
    return config


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_the_papers_method_at_32_rows_a_step(recipe: Path) -> None:
    config = parsed(recipe)
    full = recipe.stem.endswith("-full")
    processes = 8 if full else 1
    assert (config.objective, config.stages, config.use_lora) == ("mfpo", "easy_to_hard", not full)
    assert config.per_device_train_batch_size * config.gradient_accumulation_steps * processes == 32
    assert config.learning_rate == (5e-7 if full else 1e-5)


def test_flags_go_before_a_recipe() -> None:
    config = parsed(RECIPES[0], "--objective", "dpo+margin", "--learning_rate", "2e-6")
    assert (config.objective, config.learning_rate) == ("dpo+margin", 2e-6)


def test_there_is_a_recipe_of_both_kinds_for_every_model() -> None:
    names = {path.stem for path in RECIPES}
    models = {"llava-1.5-7b", "llava-1.5-13b", "llava-1.6-7b", "qwen2.5-vl-7b", "qwen3-vl-8b"}
    assert names == models | {f"{name}-full" for name in models}
