"""Recipes from Python: applied as a whole, or refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mfpo.errors import UserError
from mfpo.training.config import TrainConfig

GROUNDED = TrainConfig.recipes["grounded"]


@pytest.mark.parametrize("name", TrainConfig.recipes)
def test_a_recipe_sets_what_it_says(name: str) -> None:
    config = TrainConfig.from_recipe(name, output_dir="run", beta=0.2)
    assert config == TrainConfig(**TrainConfig.recipes[name], recipe=name, output_dir="run", beta=0.2)


def test_settings_go_before_those_of_a_recipe() -> None:
    config = TrainConfig.from_recipe("grounded", image_weight=0.3, stages="easy_to_hard")
    assert (config.image_weight, config.stages) == (0.3, "easy_to_hard")
    assert (config.noise_scope, config.image_loss) == (GROUNDED["noise_scope"], GROUNDED["image_loss"])


@pytest.mark.parametrize(
    "make",
    [
        lambda: TrainConfig(recipe="grounded"),
        lambda: TrainConfig(recipe="grounded", image_weight=0.3, beta=0.2),
        lambda: replace(TrainConfig(), recipe="grounded"),
    ],
)
def test_a_name_without_its_settings_is_refused(make) -> None:
    with pytest.raises(
        UserError, match=r"recipe grounded: none of its settings is set \(stages='none'"
    ) as error:
        make()
    assert "TrainConfig.from_recipe('grounded', ...)" in error.value.fix


@pytest.mark.parametrize("make", [TrainConfig.from_recipe, lambda name: TrainConfig(recipe=name)])
def test_an_unknown_recipe_is_refused(make) -> None:
    with pytest.raises(UserError, match=r"recipe groundd: there is no such recipe[\s\S]*'grounded'"):
        make("groundd")
