"""Settings of ``mfpo scenes``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from mfpo.errors import UserError


@dataclass(frozen=True)
class DifficultySettings:
    """How hard the world is for the model that looks and for the person who corrects.

    The defaults are the default world and change nothing; docs/scenes.md argues for them.
    """

    co_occurrence: float = 1.0
    """How strongly the place says what is in it: 0 not at all, 1 as in the default world, at most 1.5."""
    min_objects: int = 2
    """Fewest objects in a scene."""
    max_objects: int = 6
    """Most objects in a scene."""
    image_size: int = 192
    """Side of the pictures in pixels."""
    input_size: int = 96
    """Side of the vision tower's input in pixels; the picture is reduced to it."""
    patch_size: int = 16
    """Side of the tower's patches in pixels; smaller ones see finer and cost more."""
    tower_noise_rate: float = 0.4
    """Share of pictures with diffusion noise while the tower trains; 0 for a tower that never saw any."""
    faulty_corrections: float = 0.0
    """Share of chosen answers in which the correction puts one absent object in place of a present one."""

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name, low, high in (
            ("co_occurrence", 0.0, 1.5),
            ("tower_noise_rate", 0.0, 1.0),
            ("faulty_corrections", 0.0, 1.0),
            ("min_objects", 1, 24),
            ("max_objects", self.min_objects, 24),
            ("image_size", 64, 1024),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise UserError(f"must be from {low:g} to {high:g}", where=f"--{name} {value:g}")
        if self.patch_size < 4 or self.input_size % self.patch_size:
            raise UserError(
                f"patches of {self.patch_size} pixels do not tile an input of {self.input_size}",
                where=f"--patch_size {self.patch_size}",
                fix="choose a divisor of --input_size, at least 4",
            )


@dataclass(frozen=True)
class ScenesConfig(DifficultySettings):
    """Settings of ``mfpo scenes``."""

    num_samples: int = 1000
    """Number of preference rows, one scene each."""

    output_dir: str | None = None
    """Dataset folder to write."""

    model_name_or_path: str | None = None
    """Vision-language model whose sampled answers become the rejected ones; templates if not given."""

    train_model: str | None = None
    """Train the small LLaVA and save it in this folder; with --output_dir, rows are then sampled from it
    (with --quick, made from templates)."""

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
        """Check that there is something to do, and the ranges."""
        super().__post_init__()
        if self.output_dir is None and self.train_model is None:
            raise UserError(
                "nothing to write",
                fix="give --output_dir DIR for rows, or --train_model DIR for the small LLaVA",
            )
        if not 0 <= self.seed < 2**32:
            raise UserError("must be from 0 to 4294967295", where=f"--seed {self.seed}")
        if self.num_samples < 1:
            raise UserError("at least one row is needed", where=f"--num_samples {self.num_samples}")
