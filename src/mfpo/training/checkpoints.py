"""Checkpoints that are whole or not there, and that know the order of rows they belong to."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from transformers import Trainer
from transformers.trainer_utils import rotate_checkpoints

from mfpo.data.files import publish_folder, write_json
from mfpo.errors import UserError
from mfpo.training.batching import ScheduledRow

ORDER_FILE = "order.json"


class AtomicCheckpoints(Trainer):
    """Writes each checkpoint to a hidden folder beside its place, and renames it when it is on the disk.

    A process that is killed while it writes leaves the checkpoints of earlier steps, and nothing that looks
    like another one.
    """

    _staging: Path | None = None

    def save_extras(self, folder: Path) -> None:
        """Write what a subclass wants to find in a checkpoint; every process calls it."""

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._staging) if self._staging is not None else super()._get_output_dir(trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """As the parent does, elsewhere; then the rename, the upload and the removal of old checkpoints."""
        output_dir = Path(str(self.args.output_dir))
        name = f"checkpoint-{self.state.global_step}"
        final, staging = output_dir / name, output_dir / f".{name}.tmp"
        push, limit = self.args.push_to_hub, self.args.save_total_limit
        if self.is_local_process_zero():
            shutil.rmtree(staging, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        try:
            self._staging, self.args.push_to_hub, self.args.save_total_limit = staging, False, None
            super()._save_checkpoint(model, trial)
        finally:
            self._staging, self.args.push_to_hub, self.args.save_total_limit = None, push, limit
        self.save_extras(staging / name)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            publish_folder(staging / name, final)
        self.accelerator.wait_for_everyone()
        # On a machine with a disk of its own the folder is still to be renamed.
        if self.is_local_process_zero() and (staging / name).is_dir():
            publish_folder(staging / name, final)
        if self.is_local_process_zero():
            shutil.rmtree(staging, ignore_errors=True)
        if push:
            self._push_from_checkpoint(str(final))
        if self.args.should_save:
            rotate_checkpoints(output_dir=str(output_dir), save_total_limit=limit, use_mtime=True)


@dataclass(frozen=True, slots=True)
class SavedOrder:
    """What a checkpoint was trained on and by: order of rows, noise, loss, batches, processes, initial model.

    Attributes:
        planned: SHA-256 of the order that was planned before the first step.
        schedule: Id and stage of every row in the order of training, where it was changed since; else None.
            The file calls it ``turns``.
        settings: Settings of noise, loss, batches, adapter and schedule, the number of processes and a digest
            of the initial weights, by name; JSON values. Checkpoints of earlier versions lack some.
    """

    planned: str
    schedule: list[tuple[str, int]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write ``order.json``."""
        entry = {"planned": self.planned, "turns": self.schedule, "settings": dict(self.settings)}
        write_json(folder / ORDER_FILE, entry)

    @classmethod
    def load(cls, folder: str | Path) -> SavedOrder | None:
        """The order in a checkpoint folder; None if it has none."""
        path = Path(folder) / ORDER_FILE
        if not path.is_file():
            return None
        entry = json.loads(path.read_text())
        saved = entry["turns"]
        schedule = None if saved is None else [(row, stage) for row, stage in saved]
        return cls(entry["planned"], schedule, entry.get("settings", {}))

    def check(self, now: SavedOrder, folder: str | Path) -> None:
        """Refuse to go on with other rows or settings.

        Args:
            now: What the settings of today mean.
            folder: The checkpoint.

        Raises:
            UserError: The rows, their difficulty or a setting that orders them has changed, or a setting of
                noise, loss, batches, adapter or schedule has, or the number of processes, or the initial
                model.
        """
        changed = [
            f"{name} was {before}, is {now.settings[name]}"
            for name, before in self.settings.items()
            if name in now.settings and now.settings[name] != before
        ]
        if changed:
            raise UserError(
                f"the checkpoint was trained otherwise: {'; '.join(changed)}",
                where=f"--resume_from_checkpoint {folder}",
                fix="repeat these settings; or start anew with --model_name_or_path set to the checkpoint",
            )
        if now.planned != self.planned:
            raise UserError(
                "the checkpoint belongs to a training with another order of rows",
                where=f"--resume_from_checkpoint {folder}",
                fix="repeat dataset, seed, stages, difficulty, num_train_epochs, max_steps and batch size;"
                " or start anew with --model_name_or_path set to the checkpoint",
            )


def order_digest(schedule: Sequence[ScheduledRow], ids: Sequence[str]) -> str:
    """SHA-256 over the id and the stage of every row in the order of training."""
    digest = hashlib.sha256()
    for scheduled in schedule:
        digest.update(f"{ids[scheduled.row]}:{scheduled.stage}\n".encode())
    return digest.hexdigest()


def can_go_on(checkpoint: str | Path) -> bool:
    """Whether a checkpoint holds optimizer and schedule; with ``save_only_model`` it has weights alone.

    The parent passes over what it does not find. FSDP and DeepSpeed store optimizers under other names, and
    DeepSpeed its schedule with them.
    """
    folder = Path(checkpoint)
    if any(folder.glob("global_step*")):
        return True
    return any(folder.glob("*optimizer*")) and (folder / "scheduler.pt").is_file()


def step_of(checkpoint: str | Path) -> int:
    """After how many steps a checkpoint was written, whatever its folder is called.

    Raises:
        OSError: It has no state of the trainer, which the parent writes last.
        ValueError: The state is broken.
        KeyError: It has no step.
    """
    return int(json.loads((Path(checkpoint) / "trainer_state.json").read_text())["global_step"])


def last_whole_checkpoint(output_dir: str | Path) -> str | None:
    """The checkpoint of the highest step that was written to its end, None if there is none.

    The trainer's state is what the parent writes last; a checkpoint of another tool that lacks it is passed
    over.
    """
    whole = []
    for folder in Path(output_dir).glob("checkpoint-*"):
        try:
            whole.append((step_of(folder), folder))
        except (OSError, ValueError, KeyError):
            continue
    return str(max(whole)[1]) if whole else None
