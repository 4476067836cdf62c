"""The verbs: which settings each takes and which function does the work.

Nothing is imported before its verb is chosen, so that ``mfpo --help`` answers at once.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Verb:
    """One verb of the command line.

    Attributes:
        name: What the user types.
        config: Where its settings are, ``module:Class``, a dataclass in a module that is light to import.
        run: Where the work is, ``module:function``; called with the settings. An int that it returns is the
            exit code; any other result is for callers in Python.
        help: One line for ``mfpo --help``.
        group: Heading it is listed under.
    """

    name: str
    config: str
    run: str
    help: str
    group: str

    def config_type(self) -> type[Any]:
        """The dataclass of its settings."""
        config_type: type[Any] = _resolve(self.config)
        return config_type

    def function(self) -> Callable[[Any], object]:
        """The function that does the work; importing it may take seconds."""
        function: Callable[[Any], object] = _resolve(self.run)
        return function


def _resolve(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


_TABLE = (
    Verb(
        "doctor",
        "mfpo.cli.doctor:DoctorConfig",
        "mfpo.cli.doctor:run",
        "check what this machine can run",
        "start here",
    ),
    Verb(
        "demo",
        "mfpo.experiments.config:DemoConfig",
        "mfpo.experiments.demo:run",
        "the whole method on the scene world, ends with a report",
        "start here",
    ),
    Verb(
        "scenes",
        "mfpo.scenes.config:ScenesConfig",
        "mfpo.scenes.command:run",
        "draw scenes with preference rows, or train the small LLaVA",
        "data",
    ),
    Verb(
        "build",
        "mfpo.preferences.config:BuildConfig",
        "mfpo.preferences.build:run",
        "add keywords, regions and noise to text preferences",
        "data",
    ),
    Verb(
        "browse",
        "mfpo.report.config:BrowseConfig",
        "mfpo.report.browse:run",
        "show a dataset's rows in one HTML file",
        "data",
    ),
    Verb(
        "rank",
        "mfpo.difficulty.config:RankConfig",
        "mfpo.difficulty.rank:run",
        "reference pass: log-probabilities, entropy, difficulty",
        "training",
    ),
    Verb(
        "train",
        "mfpo.training.config:TrainConfig",
        "mfpo.report.training:run",
        "optimise text and image preference, from easy to hard",
        "training",
    ),
    Verb(
        "export",
        "mfpo.models.config:ExportConfig",
        "mfpo.models.export:run",
        "merge a LoRA adapter into a plain checkpoint",
        "training",
    ),
    Verb(
        "generate",
        "mfpo.evaluation.config:GenerateConfig",
        "mfpo.evaluation.answers:run_generate",
        "answer a benchmark's questions",
        "evaluation",
    ),
    Verb(
        "score",
        "mfpo.evaluation.config:ScoreConfig",
        "mfpo.evaluation.score:run_score",
        "score saved answers",
        "evaluation",
    ),
    Verb(
        "eval",
        "mfpo.evaluation.config:EvalConfig",
        "mfpo.evaluation.score:run_eval",
        "generate, then score",
        "evaluation",
    ),
    Verb(
        "compare",
        "mfpo.evaluation.config:CompareConfig",
        "mfpo.evaluation.compare:run",
        "paired comparison of runs or score files",
        "evaluation",
    ),
    Verb(
        "probe",
        "mfpo.evaluation.config:ProbeConfig",
        "mfpo.evaluation.probes:run",
        "measure whether a model looks at the picture",
        "evaluation",
    ),
    Verb(
        "report",
        "mfpo.report.config:ReportConfig",
        "mfpo.report.report:run",
        "tables and curves of several runs in one HTML file",
        "results",
    ),
    Verb(
        "experiment",
        "mfpo.experiments.config:ExperimentConfig",
        "mfpo.experiments.run:run",
        "a table or figure of the paper, on scenes or on your checkpoint",
        "results",
    ),
)

VERBS: dict[str, Verb] = {verb.name: verb for verb in _TABLE}
