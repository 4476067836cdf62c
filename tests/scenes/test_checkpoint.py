from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from mfpo.errors import UserError
from mfpo.models.load import load_vlm
from mfpo.scenes.checkpoint import MODEL_FILES, cached_llava, ensure_llava, recipe_of
from mfpo.scenes.llava import LlavaSize
from mfpo.scenes.training import Recipe
from mfpo.scenes.world import World

SHORT = Recipe(num_scenes=64, tower_steps=2, alignment_steps=2, steps=2, lesson_steps=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return cached_llava(SHORT, tmp_path_factory.mktemp("cache"), num_workers=1)


def test_cached_model_is_an_ordinary_checkpoint(trained: Path) -> None:
    vlm = load_vlm(str(trained), device="cpu")
    assert type(vlm.model).__name__ == "LlavaForConditionalGeneration"
    assert vlm.model.config.image_seq_length == 36
    assert vlm.processor.chat_template


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_training_is_deterministic_on_any_number_of_cores(
    trained: Path, tmp_path: Path, threads: int
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        again = cached_llava(SHORT, tmp_path, num_workers=1)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert (again / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()


def test_second_use_trains_nothing(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "mfpo.scenes.checkpoint.train_llava", lambda *args, **kwargs: pytest.fail("trained again")
    )
    assert cached_llava(SHORT, trained.parent) == trained
    assert ensure_llava(SHORT, trained) is False


def test_every_setting_of_the_recipe_counts() -> None:
    changed = [
        replace(SHORT, **{one.name: getattr(SHORT, one.name) + 1})
        for one in fields(SHORT)
        if one.name not in ("world", "size")
    ]
    changed += [replace(SHORT, world=World(max_objects=4)), replace(SHORT, size=LlavaSize(text_layers=2))]
    assert len({recipe.fingerprint() for recipe in (SHORT, *changed)}) == len(changed) + 1


def test_other_peoples_folders_are_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "thesis.txt"
    precious.write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(UserError, match="something else"):
            ensure_llava(SHORT, tmp_path, overwrite=overwrite)
    assert precious.read_text() == "years of work"


def test_an_older_scene_model_is_replaced_on_request(tmp_path: Path, trained: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "scene_recipe.json").write_text(json.dumps({"fingerprint": "old"}))
    (folder / "special_tokens_map.json").write_text("of an older version")
    (folder / "thesis.txt").write_text("years of work")
    (folder / "pictures").mkdir()
    (folder / "pictures/mine.png").write_bytes(b"mine")
    with pytest.raises(UserError, match="--overwrite"):
        ensure_llava(SHORT, folder)
    assert ensure_llava(SHORT, folder, num_workers=1, overwrite=True) is True
    assert recipe_of(folder) == SHORT.fingerprint()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]
    assert (folder / "thesis.txt").read_text() == "years of work"
    assert (folder / "pictures/mine.png").read_bytes() == b"mine"
    model = {path.name for path in folder.iterdir()} - {"thesis.txt", "pictures"}
    assert model == {path.name for path in trained.iterdir()}
    assert (folder / "model.safetensors").read_bytes() == (trained / "model.safetensors").read_bytes()
    assert model <= {*MODEL_FILES, "scene_recipe.json", "world.json"}
