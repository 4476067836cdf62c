"""Settings of ``mfpo demo`` and ``mfpo experiment``."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class DemoConfig:
    """Settings of ``mfpo demo``."""

    output_dir: str = "runs/demo"
    """Folder for the data, the runs and ``report.html``."""

    seed: int = 0
    """Seed of everything that is drawn; with several seeds, the first of them."""

    seeds: int = 1
    """Times that every training is repeated, each with its own seed."""

    cache_dir: str | None = None
    """Folder that keeps the trained scene model for the next run; ``~/.cache/mfpo`` if not given."""

    quick: bool = False
    """Few rows and scenes, to see that it runs; the numbers mean nothing."""


@dataclass(slots=True)
class ExperimentConfig:
    """Settings of ``mfpo experiment``."""

    name: str = field(metadata={"positional": True})
    """Which experiment: balance, learning_rates, noise_step."""

    quick: bool = False
    """Small sizes, to see that it runs; the numbers mean nothing."""

    cache_dir: str | None = None
    """Folder that keeps the trained scene model; ``~/.cache/mfpo`` if not given."""

    output_dir: str = "runs/experiments"
    """Folder for the experiments; each gets a folder of its name in it."""
