"""Curves of a training as pictures in its folder, drawn again while it runs."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import TrainerControl, TrainerState, TrainingArguments

from mfpo.data.files import write_atomic
from mfpo.report.figures import style, to_png
from mfpo.report.model_card import write_model_card
from mfpo.report.plots import BALANCE, BALANCE_SHOWN, LOSSES, MARGINS, REWARDS, RunLog, draw_panels
from mfpo.training.trainer import ModelCard

FOLDER = "plots"


def draw_curves(log: RunLog) -> dict[str, bytes]:
    """The curves of a training as PNG, by name: ``margins``, ``rewards``, ``losses``, ``modality_balance``.

    What was not logged is left out.

    Args:
        log: The training.
    """
    kinds: dict[str, tuple[Any, str, dict[str, Any]]] = {
        "margins": (MARGINS, "reward margin", {"level": 0.0}),
        "rewards": (REWARDS, "reward", {"level": 0.0}),
        "losses": (LOSSES, "loss", {}),
        "modality_balance": (BALANCE, "ratio of margins", {"level": 1.0, "shown": BALANCE_SHOWN}),
    }
    drawn = {}
    with style():
        for name, (series, ylabel, options) in kinds.items():
            figure = draw_panels([log], series, ylabel, **options)
            if figure is not None:
                drawn[name] = to_png(figure)
    return drawn


class LiveFolder(ModelCard):
    """Keeps plots and README of a run's folder up to date; what goes wrong here never ends a training.

    Args:
        every: Lines of metrics between two drawings; 0 for none.
        stages: Names of the stages in their order.
    """

    def __init__(self, every: int = 10, stages: Sequence[str] = ()) -> None:
        self.every, self.stages = every, tuple(stages)
        self._lines = 0
        self._warned = False

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw after every so many lines."""
        self._lines += 1
        if self.every > 0 and self._lines % self.every == 0:
            self._draw(args, state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Draw what the training ended with."""
        if self.every > 0:
            self._draw(args, state)

    def write_card(self, folder: Path) -> None:
        """Write ``README.md``."""
        try:
            write_model_card(folder)
        except Exception as error:
            self._warn(f"the model card could not be written: {error}")

    def _draw(self, args: TrainingArguments, state: TrainerState) -> None:
        if not state.is_world_process_zero:
            return
        folder = Path(str(args.output_dir))
        try:
            for name, picture in draw_curves(RunLog(folder.name, state.log_history, self.stages)).items():
                write_atomic(folder / FOLDER / f"{name}.png", picture)
        except Exception as error:
            self._warn(f"the curves could not be drawn: {error}")

    def _warn(self, message: str) -> None:
        if not self._warned:
            warnings.warn(message, stacklevel=2)
        self._warned = True
