"""Trained scene LLaVAs on disk, cached by the hash of their recipe."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path

from mfpo.models.load import VLM, load_vlm
from mfpo.scenes.llava import save_llava
from mfpo.scenes.training import Recipe, train_llava

RECIPE_FILE = "scene_recipe.json"


def default_cache() -> Path:
    """``$MFPO_CACHE``, else ``mfpo`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MFPO_CACHE") or Path(base) / "mfpo")


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


def ensure_llava(recipe: Recipe, folder: Path, *, num_workers: int = 2) -> bool:
    """Make sure the folder holds the LLaVA of this recipe.

    The checkpoint is written beside the folder and moved into place when complete, so an interrupted run
    leaves none.

    Returns:
        True if it was trained now, False if the folder held it already.
    """
    if recipe_of(folder) == recipe.fingerprint():
        return False
    folder.parent.mkdir(parents=True, exist_ok=True)
    vlm = train_llava(recipe, num_workers=num_workers)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".training-") as scratch:
        save_llava(vlm, scratch)
        (Path(scratch) / RECIPE_FILE).write_text(json.dumps({"fingerprint": recipe.fingerprint()}))
        if folder.exists():
            shutil.rmtree(folder)
        shutil.copytree(scratch, folder.with_name(f"{folder.name}.new"))
        folder.with_name(f"{folder.name}.new").replace(folder)
    return True


def recipe_of(folder: Path) -> str | None:
    """Fingerprint of the recipe that a folder's model was trained by, None if it is no such folder."""
    try:
        return json.loads((folder / RECIPE_FILE).read_text())["fingerprint"]
    except (OSError, ValueError, KeyError):
        return None


def load_scene_llava(recipe: Recipe, cache_dir: str | Path | None = None) -> VLM:
    """Load the LLaVA of a recipe, training it first if needed."""
    return load_vlm(str(cached_llava(recipe, cache_dir)), device="cpu")
