from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mfpo.errors import UserError
from mfpo.evaluation.benchmarks.base import BenchmarkSettings
from mfpo.evaluation.benchmarks.scenes import ScenesBenchmark
from mfpo.records import text_of
from mfpo.scenes.captions import parse
from mfpo.scenes.checkpoint import recipe_for
from mfpo.scenes.config import DifficultySettings, ScenesConfig
from mfpo.scenes.difficulty import load_world, mixed_contexts, save_world, share_within, world_of
from mfpo.scenes.preferences import RowMaker
from mfpo.scenes.training import Recipe
from mfpo.scenes.world import CONTEXTS, World, sample_scenes


def test_the_defaults_change_nothing() -> None:
    assert world_of(DifficultySettings()) == World()
    assert recipe_for(DifficultySettings(), 3) == Recipe(seed=3)


def test_co_occurrence_by_hand() -> None:
    """A mug has 0.8 in a kitchen, 0.35 in a bedroom, 0 elsewhere: 0.23 on average."""
    half, none = mixed_contexts(0.5), mixed_contexts(0.0)
    assert half["kitchen"]["mug"] == pytest.approx((0.8 + 0.23) / 2)
    assert half["street"]["mug"] == pytest.approx(0.115)
    assert none["beach"]["mug"] == none["kitchen"]["mug"] == pytest.approx(0.23)
    number = sum(sum(table.values()) for table in CONTEXTS.values())
    assert sum(sum(table.values()) for table in none.values()) == pytest.approx(number, abs=1e-3)
    assert max(max(table.values()) for table in mixed_contexts(1.5).values()) == 0.95
    assert all(p > 0 for table in mixed_contexts(1.5).values() for p in table.values())


def test_without_co_occurrence_every_place_holds_every_kind() -> None:
    world = world_of(DifficultySettings(co_occurrence=0.0, min_objects=4, max_objects=5))
    scenes = sample_scenes("train", 300, world=world)
    assert all(4 <= len(scene.objects) <= 5 for scene in scenes)
    assert {"boat", "bus"} <= {kind for scene in scenes if scene.context == "kitchen" for kind in scene.kinds}


def test_the_share_of_draws_by_hand() -> None:
    """Of two kinds of 0.5 and 0.2 none comes in 0.4 of the draws, one in 0.5, both in 0.1."""
    shares = [share_within([0.5, 0.2], *bounds) for bounds in ((0, 0), (1, 1), (2, 2), (1, 24), (3, 24))]
    assert shares == pytest.approx([0.4, 0.5, 0.1, 0.6, 0.0])


@pytest.mark.parametrize(
    ("setting", "fix"),
    [
        ({"min_objects": 8, "max_objects": 24}, "--min_objects 6"),
        ({"min_objects": 24, "max_objects": 24}, "--min_objects 6"),
        ({"min_objects": 1, "max_objects": 1, "co_occurrence": 1.5}, "--max_objects 2"),
    ],
)
def test_worlds_whose_scenes_are_hardly_ever_drawn(setting: dict[str, Any], fix: str) -> None:
    """`--min_objects 9` was accepted and ran forever."""
    with pytest.raises(UserError, match=r"of the scenes drawn for the|hardly ever find room") as caught:
        world_of(DifficultySettings(**setting))
    assert caught.value.fix == fix
    assert f"--min_objects {setting['min_objects']}" in caught.value.where


def test_worlds_of_few_or_many_objects_are_worlds() -> None:
    for least, most in ((1, 1), (6, 24), (6, 6)):
        assert world_of(DifficultySettings(min_objects=least, max_objects=most)).min_objects == least


def test_faulty_corrections_name_an_absent_object_in_that_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mfpo.scenes.preferences.CHUNK", 100)
    maker, exact = RowMaker(faulty_corrections=0.5, seed=2), RowMaker(seed=2)
    faulty = 0
    for row in maker.rows(80):
        absent = [m for m in parse(text_of(row.pair.chosen)) if m.kind not in row.scene.kinds]
        assert len(absent) <= 1
        faulty += len(absent)
        assert row.pair.chosen != row.pair.rejected
    assert 25 <= faulty <= 55
    for row in exact.rows(20):
        assert all(m.kind in row.scene.kinds for m in parse(text_of(row.pair.chosen)))


def test_a_tower_of_finer_patches() -> None:
    recipe = recipe_for(DifficultySettings(patch_size=12, tower_noise_rate=0.0))
    assert (recipe.size.patch_size, recipe.size.image_size, recipe.tower_noise_rate) == (12, 96, 0.0)


def test_the_benchmark_takes_the_world_of_a_models_folder(tmp_path: Path) -> None:
    world = world_of(DifficultySettings(co_occurrence=0.2, min_objects=5, image_size=128))
    save_world(world, tmp_path)
    assert load_world(tmp_path) == world
    benchmark = ScenesBenchmark(BenchmarkSettings(str(tmp_path), num_samples=5))
    items = benchmark.load()
    assert all(len(item.truth.objects) >= 5 for item in items if item.kind == "describe")
    assert benchmark.open_image(items[0]).size == (128, 128)
    with pytest.raises(UserError, match="no description of a world"):
        ScenesBenchmark(BenchmarkSettings(str(tmp_path / "none")))


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ({"co_occurrence": 2.0}, "must be from 0 to 1.5"),
        ({"min_objects": 7}, "max_objects 6"),
        ({"patch_size": 10}, "do not tile"),
        ({"faulty_corrections": -0.1}, "faulty_corrections -0.1"),
        ({"seed": -1}, "--seed -1: must be from 0"),
    ],
)
def test_settings_out_of_range(setting: dict[str, float], says: str) -> None:
    with pytest.raises(UserError, match=says):
        ScenesConfig(output_dir="x", **setting)  # type: ignore[arg-type]
