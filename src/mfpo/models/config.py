"""Settings of ``mfpo export``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(slots=True)
class ExportConfig:
    """Merge a LoRA adapter into the model it was trained on: a plain checkpoint that needs no PEFT."""

    model_name_or_path: str
    """Adapter folder that `mfpo train --use_lora` wrote."""

    output_dir: str
    """Folder for the checkpoint: weights, configuration and processor."""

    dtype: Literal["checkpoint", "float32", "bfloat16", "float16"] = "checkpoint"
    """Precision of the merged weights; that of the base checkpoint by default."""

    trust_remote_code: bool = False
    """Run code that comes with the base checkpoint."""

    overwrite: bool = False
    """Replace what is in output_dir."""
