"""What lmms-eval finds under its entry point ``lmms_eval.models``: a name and where the class is."""

from __future__ import annotations

from typing import Any


def manifest() -> Any:
    """The entry of lmms-eval's table of models; imports nothing but that table."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        model_id="mfpo", simple_class_path="mfpo.evaluation.interop.lmms_eval_model.MfpoModel"
    )
