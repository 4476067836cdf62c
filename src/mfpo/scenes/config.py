"""Settings of ``mfpo scenes``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mfpo.errors import UserError


@dataclass(slots=True)
class ScenesConfig:
    """Settings of ``mfpo scenes``."""

    num_samples: int = 1000
    """Number of preference rows, one scene each."""

    output_dir: str | None = None
    """Dataset folder to write."""

    model_name_or_path: str | None = None
    """Vision-language model whose sampled answers become the rejected ones; templates if not given."""

    train_model: str | None = None
    """Train the small LLaVA and save it in this folder; with --output_dir, rows are then sampled from it."""

    quick: bool = False
    """Train it for seconds only, to see that everything runs; what it then says means nothing."""

    split: Literal["train", "validation", "test"] = "train"
    """Part of the world to draw from; no scene is in two of them."""

    temperature: float = 1.0
    """Sampling temperature of the rejected answers."""

    swap_images: bool = False
    """Store with each row its picture with one object swapped, for `--noise_scope swap`."""

    overwrite: bool = False
    """Replace the dataset, or the scene model of other settings, that is in the folder already."""

    seed: int = 0
    """Seed within the split; the same settings give the same scenes."""

    num_workers: int = 2
    """Processes that draw scenes for --train_model."""

    device: str | None = None
    """Device of the model, for example ``cuda:0``; the best one there is if not given."""

    def __post_init__(self) -> None:
        """Check that there is something to do."""
        if self.output_dir is None and self.train_model is None:
            raise UserError(
                "nothing to write",
                fix="give --output_dir DIR for rows, or --train_model DIR for the small LLaVA",
            )
        if self.num_samples < 1:
            raise UserError("at least one row is needed", where=f"--num_samples {self.num_samples}")
