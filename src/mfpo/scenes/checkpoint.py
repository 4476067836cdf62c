"""Trained scene LLaVAs on disk, cached by the hash of their recipe."""

from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from mfpo.data.cache import default_cache
from mfpo.data.files import write_json
from mfpo.data.writer import check_writable
from mfpo.errors import UserError
from mfpo.scenes.config import DifficultySettings
from mfpo.scenes.difficulty import save_world, world_of
from mfpo.scenes.llava import LlavaSize, save_llava
from mfpo.scenes.training import Recipe, train_llava

RECIPE_FILE = "scene_recipe.json"
MODEL_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "processor_config.json",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
)
"""Files that ``transformers`` of any version writes for a scene model; a stale one could be read."""


def recipe_for(difficulty: DifficultySettings, seed: int = 0) -> Recipe:
    """The recipe of the LLaVA of a world."""
    return Recipe(
        seed=seed,
        world=world_of(difficulty),
        size=LlavaSize(image_size=difficulty.input_size, patch_size=difficulty.patch_size),
        tower_noise_rate=difficulty.tower_noise_rate,
    )


def cached_llava(recipe: Recipe, cache_dir: str | Path | None = None, *, num_workers: int = 2) -> Path:
    """Folder of the LLaVA that a recipe gives, trained now if it is not in the cache.

    Args:
        recipe: What to train.
        cache_dir: Where trained models are kept; [`default_cache`] when None.
        num_workers: Processes that draw scenes.
    """
    folder = Path(cache_dir or default_cache()) / f"scene-llava-{recipe.fingerprint()}"
    ensure_llava(recipe, folder, num_workers=num_workers)
    return folder


def ensure_llava(recipe: Recipe, folder: Path, *, num_workers: int = 2, overwrite: bool = False) -> bool:
    """Make sure the folder holds the LLaVA of this recipe.

    The checkpoint is written beside the folder and moved into place when complete, so an interrupted run
    leaves none.

    Args:
        recipe: What to train.
        folder: The checkpoint folder.
        num_workers: Processes that draw scenes.
        overwrite: Whether a scene model of another recipe in the folder may be replaced; other files in it
            stay.

    Returns:
        True if it was trained now, False if the folder held it already.

    Raises:
        UserError: The folder holds something else, or cannot be written.
    """
    if recipe_of(folder) == recipe.fingerprint():
        return False
    if folder.exists() and any(folder.iterdir()) and not (overwrite and recipe_of(folder) is not None):
        raise UserError(
            "the folder holds something else than the scene model of these settings",
            where=str(folder),
            fix="choose another folder; --overwrite replaces an older scene model, and nothing else",
        )
    check_writable(folder.parent)
    vlm = train_llava(recipe, num_workers=num_workers)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=".training-"))
    try:
        save_llava(vlm, str(scratch))
        save_world(recipe.world, scratch)
        write_json(scratch / RECIPE_FILE, {"fingerprint": recipe.fingerprint()})
        scratch.chmod(0o755)
        if recipe_of(folder) is not None:
            _replace_model(scratch, folder)
        else:
            if folder.exists():
                folder.rmdir()
            scratch.replace(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return True


def _replace_model(new: Path, folder: Path) -> None:
    """Move the files of a scene model into the place of another's; the recipe says last what it is."""
    write_json(folder / RECIPE_FILE, {"fingerprint": ""})
    names = {path.name for path in new.iterdir()} - {RECIPE_FILE}
    for name in {*MODEL_FILES} - names:
        (folder / name).unlink(missing_ok=True)
    for name in [*sorted(names), RECIPE_FILE]:
        (new / name).replace(folder / name)


def recipe_of(folder: Path) -> str | None:
    """Fingerprint of the recipe that a folder's model was trained by, None if it is no such folder."""
    try:
        return json.loads((folder / RECIPE_FILE).read_text())["fingerprint"]
    except (OSError, ValueError, KeyError):
        return None


def quick(recipe: Recipe) -> Recipe:
    """The same in seconds, to see that everything runs: the weights hardly leave their random start."""
    return replace(recipe, num_scenes=256, tower_steps=4, alignment_steps=4, steps=4, lesson_steps=2)
