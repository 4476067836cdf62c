"""Probes of whether a model looks at the picture: they generate nothing.

``distortion`` (figure 1b of the paper), ``attention`` (figure 1c) and ``grounding``, each in the module of
its name.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING

from mfpo.errors import UserError
from mfpo.evaluation.attention import attention
from mfpo.evaluation.distortion import distortion, distortions
from mfpo.evaluation.grounding import grounding
from mfpo.models.load import load_vlm
from mfpo.records import PreferencePair

if TYPE_CHECKING:
    from mfpo.data.folder import PreferenceDataset
    from mfpo.evaluation.config import ProbeConfig


def run(config: ProbeConfig) -> None:
    """Run a probe, write ``scores/<probe>.json`` into the run folder and show the metrics.

    Raises:
        UserError: The model or the dataset cannot be opened, or the settings don't fit.
    """
    from mfpo.evaluation.compare import show
    from mfpo.evaluation.score import output_folder

    if config.num_samples is not None and config.num_samples < 1:
        raise UserError("out of range", where=f"--num_samples {config.num_samples}", fix="at least 1")
    folder = output_folder(config.model_name_or_path, config.output_dir)
    rows = None if config.probe == "grounding" else _dataset(config)
    vlm = load_vlm(
        config.model_name_or_path,
        dtype=config.dtype,
        device=config.device,
        revision=config.revision,
        attn_implementation=config.attn_implementation or ("eager" if config.probe == "attention" else None),
        trust_remote_code=config.trust_remote_code,
    )
    if rows is not None and config.probe == "attention":
        pictures = folder / "attention"
        result = attention(vlm, rows, pictures=pictures, num_pictures=config.num_pictures)
        result.settings["dataset"] = config.dataset
    elif rows is not None:
        result = distortion(
            vlm,
            rows,
            distortions(config.noise_scopes, config.noise_steps, config.noise_schedules),
            batch_size=config.batch_size,
        )
        result.settings["dataset"] = config.dataset
    else:
        from mfpo.evaluation.benchmarks.scenes import NUM_SCENES, edited_scenes

        total = config.num_samples or NUM_SCENES
        items = edited_scenes(total, config.split, config.seed)
        result = grounding(vlm, items, batch_size=config.batch_size, total=total)
        result.settings |= {"split": config.split, "seed": config.seed}
    path = folder / "scores" / f"{config.probe}.json"
    result.save(path)
    show([(folder.name, result)])
    print(f"written to {path}")


def _dataset(config: ProbeConfig) -> PreferenceDataset | Sequence[PreferencePair]:
    from mfpo.data.folder import open_dataset

    if config.dataset is None:
        raise UserError(
            f"the {config.probe} probe needs preference rows", where="--dataset", fix="name a dataset folder"
        )
    pairs = open_dataset(config.dataset)
    return pairs if config.num_samples is None else list(islice(pairs, config.num_samples))
