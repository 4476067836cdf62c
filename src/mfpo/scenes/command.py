"""``mfpo scenes``: train the small LLaVA, or write preference rows about scenes with exact annotations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from tqdm.auto import tqdm

from mfpo.data.files import save_config, write_jsonl
from mfpo.data.writer import OWN_FILES, SETTINGS, DatasetWriter, check_free
from mfpo.models.load import load_vlm
from mfpo.preferences.regions.masks import box_of, encode_rle
from mfpo.scenes.checkpoint import ensure_llava, quick, recipe_for
from mfpo.scenes.config import ScenesConfig
from mfpo.scenes.difficulty import world_of
from mfpo.scenes.preferences import RowMaker, SceneRow

ANNOTATIONS = "annotations.jsonl"


def run(config: ScenesConfig) -> None:
    """Train the LLaVA, write rows, or both.

    The rejected answers come from the model that is named, else from the LLaVA that was trained, unless that
    was done quickly: then, as without any model, from templates.

    Raises:
        UserError: The model cannot be opened or a folder cannot be written.
    """
    if config.output_dir is not None:
        # Before a training that takes a while.
        check_free(config.output_dir, "", overwrite=config.overwrite, files=(*OWN_FILES, ANNOTATIONS))
    console = Console()
    model = config.model_name_or_path
    if config.train_model is not None:
        recipe = recipe_for(config, config.seed)
        trained = ensure_llava(
            quick(recipe) if config.quick else recipe,
            Path(config.train_model),
            num_workers=config.num_workers,
            overwrite=config.overwrite,
        )
        console.print(f"{'trained' if trained else 'found'} the small LLaVA in {config.train_model}")
        if not config.quick:
            model = model or config.train_model
        elif model is None and config.output_dir is not None:
            console.print("--quick: rejected answers are from templates, since so short a training babbles")
    if config.output_dir is not None:
        vlm = load_vlm(model, device=config.device) if model else None
        maker = RowMaker(
            vlm,
            world=world_of(config),
            seed=config.seed,
            split=config.split,
            store_swapped=config.swap_images,
            temperature=config.temperature,
            faulty_corrections=config.faulty_corrections,
        )
        write_rows(maker, config.num_samples, config.output_dir, overwrite=config.overwrite)
        save_config(config, Path(config.output_dir) / SETTINGS)
        dropped = ", ".join(f"{count} {reason}" for reason, count in maker.dropped.most_common())
        console.print(
            f"{config.num_samples} rows in {config.output_dir}; answers not used: {dropped or 'none'}"
        )


def write_rows(maker: RowMaker, num_rows: int, output_dir: str | Path, *, overwrite: bool = False) -> None:
    """Write preference rows in the dataset contract, and ``annotations.jsonl`` with boxes and masks.

    Args:
        maker: Makes the rows.
        num_rows: How many.
        output_dir: The dataset folder.
        overwrite: Whether a dataset in the folder may be replaced.
    """
    annotations: list[dict[str, Any]] = []
    with DatasetWriter(output_dir, overwrite=overwrite) as writer:
        for row in tqdm(maker.rows(num_rows), total=num_rows, desc="writing rows"):
            writer.write(row.pair)
            annotations.append(annotation(row))
    write_jsonl(Path(output_dir) / ANNOTATIONS, annotations)


def annotation(row: SceneRow) -> dict[str, Any]:
    """A row's exact boxes and masks, in the format of ``--annotations``."""
    masks = {kind: mask for kind, mask in row.drawing.masks.items() if mask.any()}
    some: np.ndarray = next(iter(masks.values()))
    return {
        "image": row.pair.images[0].path,
        "size": list(some.shape),
        "boxes": {kind: [list(box_of(mask))] for kind, mask in masks.items()},
        "masks": {kind: [encode_rle(mask)] for kind, mask in masks.items()},
        "context": row.scene.context,
    }
