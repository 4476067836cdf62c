"""The verb ``mfpo train``: a training whose folder shows how it goes."""

from __future__ import annotations

from mfpo.report.live import LiveFolder
from mfpo.report.runs import STAGE_NAMES
from mfpo.training.config import TrainConfig
from mfpo.training.train import TrainResult
from mfpo.training.train import run as train


def run(config: TrainConfig) -> TrainResult | None:
    """Train as the configuration says, with curves and a model card in the output folder.

    Raises:
        UserError: See [`mfpo.training.train.run`].
    """
    return train(config, callbacks=[LiveFolder(config.plot_every, STAGE_NAMES.get(config.stages, ()))])
