"""Choosing a learning rate for each arm from a sweep on validation scenes.

The criterion is F1 over objects, which counts what is wrongly mentioned and what is left out alike: CHAIR
alone would reward saying less. Neither test scenes nor probes are looked at, and all arms have one grid.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from mfpo.data.files import write_atomic
from mfpo.experiments.results import Results
from mfpo.experiments.tuned import load_tuned


def choose(results: Results) -> dict[str, float]:
    """Each arm's learning rate with the best criterion in the mean over seeds; of equals the lower one.

    None where nothing could be measured.
    """
    experiment = results.experiment
    columns = [column for column in results.columns if column.name == experiment.criterion]
    if not columns:
        return {}
    (column,) = columns
    sign = -1.0 if column.metric.better == "lower" else 1.0
    best: dict[str, tuple[float, float]] = {}
    for arm in experiment.arms:
        rate = (arm.train or {}).get("learning_rate")
        if not arm.tune or rate not in experiment.sweep:
            continue
        found = results.estimate(arm.name, column)
        if found is None or math.isnan(found.value):
            continue
        score = sign * found.value
        if arm.tune not in best or score > best[arm.tune][0]:
            best[arm.tune] = score, float(rate)
    return {name: rate for name, (_, rate) in best.items()}


def write_choice(chosen: Mapping[str, float], results: Results, made: Mapping[str, Any], path: Path) -> None:
    """Write the rates as ``--tuned`` takes them, with what they come from."""
    head = (
        f"# Chosen by `{made['command']}` ({made['date']}): the best {results.experiment.criterion} on "
        f"{max(results.num_groups.values())} {results.experiment.split} scenes,\n"
        f"# mean over {made['sft_seeds']} SFT seeds x {made['seeds']} training seeds, one grid for all.\n"
    )
    content = {"fallback": load_tuned().fallback, "learning_rates": dict(chosen)}
    write_atomic(path, head + yaml.safe_dump(content, sort_keys=False))
