"""Settings of ``mfpo demo`` and ``mfpo experiment``."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from mfpo.errors import UserError
from mfpo.evaluation.config import JudgeSettings


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


_OF_SCENES = ("sft_seeds", "cache_dir")
_OF_LLAVA = (
    "model_name_or_path",
    "dataset",
    "probe_dataset",
    "data_dir",
    "num_samples",
    "batch_size",
    "train",
)
"""Settings of one world only."""


@dataclass(kw_only=True)
class ExperimentConfig(JudgeSettings):
    """Settings of ``mfpo experiment``."""

    name: str | None = field(default=None, metadata={"positional": True})
    """Which experiment, or a file of your own (.yaml); without one, they are listed."""

    list: bool = False
    """List the experiments and stop."""

    world: Literal["scenes", "llava"] = "scenes"
    """Where: `scenes`, where everything is made here, or `llava`, a checkpoint of yours with your data."""

    seeds: int | None = None
    """Trainings of each arm from each model, with seeds of their own; 1 if not given."""

    sft_seeds: int | None = None
    """Independent models to start from, each with its own rows; 6 if not given, 1 with --quick (scenes)."""

    quick: bool = False
    """Small sizes, to see that it runs; the numbers mean nothing."""

    output_dir: str = "runs/experiments"
    """Folder for the experiments; each gets a folder of its name in it, and they share `store`."""

    cache_dir: str | None = None
    """Folder that keeps trained scene models (scenes); `~/.cache/mfpo` if not given."""

    tuned: str | None = None
    """Learning rates, as `mfpo experiment learning_rates` writes them; if not given, the packaged ones on
    scenes, and that of --train or `mfpo train` for all arms on a checkpoint."""

    num_workers: int | None = None
    """Processes at work; one for each GPU or, without any, for each core if not given."""

    dry_run: bool = False
    """Say what would be run, and stop."""

    model_name_or_path: str | None = None
    """Checkpoint that every arm starts from (llava)."""

    dataset: tuple[str, ...] = ()
    """Dataset folder of `mfpo build` (llava); a second one for arms that are trained on other rows."""

    probe_dataset: str | None = None
    """Dataset folder that distortion and attention are probed on (llava); the first --dataset if not given,
    whose rows the arms were trained on."""

    data_dir: str | None = None
    """Folder with the data of each benchmark in a folder of its name: `amber`, `objhal`, ... (llava)."""

    num_samples: int | None = None
    """Use the first N images of each benchmark only (llava)."""

    batch_size: int = 16
    """Sequences that are run at once in evaluation (llava)."""

    train: dict[str, Any] = field(default_factory=dict)
    """Settings of `mfpo train` for every arm, such as use_lora=true (llava); what an arm says comes first."""

    def __post_init__(self) -> None:
        """Check the numbers."""
        for name in ("seeds", "sft_seeds", "num_workers", "num_samples"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError("at least 1 is needed", where=f"--{name} {value}")
        other = _OF_SCENES if self.world == "llava" else _OF_LLAVA
        defaults = {item.name: item for item in fields(self)}
        for name in other:
            item = defaults[name]
            default = item.default if item.default_factory is MISSING else item.default_factory()
            if getattr(self, name) != default:
                raise UserError(
                    f"--world {self.world} has no use for it",
                    where=f"--{name}",
                    fix=f"leave it out, or give --world {'scenes' if self.world == 'llava' else 'llava'}",
                )
