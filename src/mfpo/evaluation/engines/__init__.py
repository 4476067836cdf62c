"""What runs the model that answers: this process, vLLM, or a server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mfpo.evaluation.engines.base import Engine, Outcome, Question, Sampling

if TYPE_CHECKING:
    from mfpo.evaluation.config import AnswerSettings
    from mfpo.models.load import VLM

__all__ = ["Engine", "Outcome", "Question", "Sampling", "load_engine"]


def load_engine(
    config: AnswerSettings, sampling: Sampling, vlm: VLM | None = None, device: str | None = None
) -> Engine:
    """The engine that a configuration names, with its model.

    Args:
        config: The settings.
        sampling: How answers are drawn.
        vlm: The model, if it is loaded already; ``local`` only.
        device: Device of the model; the configuration's when None.

    Raises:
        UserError: The model cannot be loaded, a package is missing, or the server cannot be used.
    """
    if config.engine == "openai":
        from mfpo.evaluation.engines.server import ServerEngine

        return ServerEngine.open(config, sampling)
    if config.engine == "vllm":
        from mfpo.evaluation.engines.vllm import VllmEngine

        return VllmEngine.open(config, sampling)
    from mfpo.evaluation.engines.local import LocalEngine

    return LocalEngine.open(config, sampling, vlm, device)
