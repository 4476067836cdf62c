"""Keep the model as it is at the end of each stage of a training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from mfpo.data.files import write_json
from mfpo.experiments.steps import NUM_STAGES, STAGE_FILE, stage_folder


class StageModels(TrainerCallback):
    """Saves the model after each third of the steps but the last; stages have equally many rows.

    Args:
        folder: The training's folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Save where a stage ends."""
        for stage in range(1, NUM_STAGES):
            if state.is_world_process_zero and state.global_step == round(
                stage * state.max_steps / NUM_STAGES
            ):
                target = stage_folder(self.folder, stage)
                kwargs["processing_class"].save_pretrained(target)
                kwargs["model"].save_pretrained(target)
                write_json(target / STAGE_FILE, {"stage": stage, "step": state.global_step})
