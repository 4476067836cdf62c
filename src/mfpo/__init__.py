"""Modality-Fair Preference Optimization for vision-language models.

The folders follow the method: ``data`` reads rows, ``preferences`` builds rejected images (paper 3.1),
``training`` optimizes text and image preference together (3.2), ``difficulty`` orders rows from easy to
hard (3.3), ``evaluation`` measures hallucination (4), ``scenes`` is a world that needs no download.

What the commands do is here under one name each, a function and the dataclass of its settings. They are
imported when they are first used, so that ``import mfpo`` takes no time.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mfpo.version import __version__

if TYPE_CHECKING:
    from mfpo.data.folder import open_dataset
    from mfpo.difficulty.config import RankConfig
    from mfpo.difficulty.rank import run as rank
    from mfpo.errors import UserError
    from mfpo.evaluation.config import EvalConfig
    from mfpo.evaluation.score import evaluate
    from mfpo.models.load import load_vlm
    from mfpo.preferences.build import build_dataset
    from mfpo.preferences.config import BuildConfig
    from mfpo.report.training import train
    from mfpo.training.config import TrainConfig

__all__ = [
    "BuildConfig",
    "EvalConfig",
    "RankConfig",
    "TrainConfig",
    "UserError",
    "__version__",
    "build_dataset",
    "evaluate",
    "load_vlm",
    "open_dataset",
    "rank",
    "train",
]

_WHERE = {
    "BuildConfig": "mfpo.preferences.config:BuildConfig",
    "EvalConfig": "mfpo.evaluation.config:EvalConfig",
    "RankConfig": "mfpo.difficulty.config:RankConfig",
    "TrainConfig": "mfpo.training.config:TrainConfig",
    "UserError": "mfpo.errors:UserError",
    "build_dataset": "mfpo.preferences.build:build_dataset",
    "evaluate": "mfpo.evaluation.score:evaluate",
    "load_vlm": "mfpo.models.load:load_vlm",
    "open_dataset": "mfpo.data.folder:open_dataset",
    "rank": "mfpo.difficulty.rank:run",
    "train": "mfpo.report.training:train",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _WHERE[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
