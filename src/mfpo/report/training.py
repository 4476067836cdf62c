"""A training whose folder shows how it goes: what ``mfpo train`` and ``mfpo.train`` run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from transformers import TrainerCallback

from mfpo.preferences.encoding import Rows
from mfpo.report.live import LiveFolder
from mfpo.report.runs import STAGE_NAMES
from mfpo.training import train as training
from mfpo.training.config import TrainConfig

if TYPE_CHECKING:
    from mfpo.models.load import VLM


def run(config: TrainConfig) -> training.TrainResult | None:
    """Train as the configuration says, with curves and a model card in the output folder.

    Raises:
        UserError: See [`mfpo.training.train.run`].
    """
    return training.run(config, callbacks=[_live_folder(config)])


def train(
    vlm: VLM, rows: Rows, config: TrainConfig, *, callbacks: Sequence[TrainerCallback] = ()
) -> training.TrainResult | None:
    """[`mfpo.training.train.train`] with the same curves and model card."""
    return training.train(vlm, rows, config, callbacks=[_live_folder(config), *callbacks])


def _live_folder(config: TrainConfig) -> LiveFolder:
    return LiveFolder(config.plot_every, STAGE_NAMES.get(config.stages, ()))
