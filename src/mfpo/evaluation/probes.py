"""Probes of whether a model looks at the picture: they compare log-probabilities and generate nothing.

``distortion`` (figure 1b of the paper): how often the model still prefers the chosen answer y_w to the
rejected one y_l when the image is distorted. A model that grounds its preference in the image loses it; one
that has memorised the text keeps it.

``grounding``: pairs of clean drawings that differ in one object, each with its own caption. No noise is
involved, so a model that has learned to detect noise gains nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mfpo.data.images import open_image
from mfpo.errors import RowError, Skip, UserError
from mfpo.evaluation.attention import attention
from mfpo.evaluation.grounding import grounding
from mfpo.evaluation.pair_scores import PairScorer
from mfpo.evaluation.results import ScoreResult, score_result
from mfpo.evaluation.statistics import Metric
from mfpo.models.load import VLM, load_vlm
from mfpo.models.vision import ImageInputs
from mfpo.preferences.encoding import EncodedRow, RowEncoder
from mfpo.preferences.noise import NOISY_SCOPES
from mfpo.preferences.rejected import rejected_inputs
from mfpo.records import Noise, PreferencePair, Schedule, Scope

if TYPE_CHECKING:
    from mfpo.data.folder import PreferenceDataset
    from mfpo.evaluation.config import ProbeConfig


@dataclass(frozen=True, slots=True)
class Distortion:
    """One way to distort the image.

    Attributes:
        scope: What is distorted; None leaves the image as it is.
        step: Diffusion step of the noise, None for scopes that add none.
        schedule: Diffusion schedule that turns the step into a noise level.
    """

    scope: Scope | None = None
    step: int | None = None
    schedule: Schedule = "vcd"

    @property
    def name(self) -> str:
        """Name in the results, such as ``region@500``, or ``region/ddpm-linear@500`` by another schedule."""
        if self.scope is None:
            return "clean"
        if self.step is None:
            return self.scope
        schedule = "" if self.schedule == "vcd" else f"/{self.schedule}"
        return f"{self.scope}{schedule}@{self.step}"


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


def distortions(
    scopes: Sequence[Scope], steps: Sequence[int], schedules: Sequence[Schedule] = ("vcd",)
) -> list[Distortion]:
    """Every scope at every step of every schedule, those that add no noise once."""
    found = []
    for scope in scopes:
        if scope in NOISY_SCOPES:
            found += [Distortion(scope, step, schedule) for schedule in schedules for step in steps]
        else:
            found.append(Distortion(scope))
    return found


def distortion(
    vlm: VLM,
    pairs: PreferenceDataset | Sequence[PreferencePair],
    conditions: Sequence[Distortion],
    *,
    batch_size: int = 32,
    progress: bool = True,
) -> ScoreResult:
    """How often log pi(y_w | m', x) > log pi(y_l | m', x), for the clean image and for each distortion m'.

    Args:
        vlm: The model.
        pairs: The preference rows; one that cannot be read is left out and listed in ``settings["skipped"]``.
        conditions: Distortions to try, beside the clean image. The noise has the row's own seed.
        batch_size: Sequences scored at once.
        progress: Whether to show a bar.

    Returns:
        For each condition the share of rows, in percent, in which y_w is preferred, and ``drop <condition>``,
        by how many points that is below the clean image. The item records hold the gaps log pi(y_w) - log
        pi(y_l) and the lengths: y_l may lose for being long, so the clean image is the measure of comparison.

    Raises:
        UserError: No row can be read, or a distortion does not fit the rows.
    """
    tried = [Distortion(), *conditions]
    encoder = RowEncoder(vlm.processor, rejected_image=False)
    scorer = PairScorer(vlm, encoder, max(1, batch_size // 2))
    records: list[dict[str, Any]] = []
    skips: list[Skip] = []
    for pair in tqdm(pairs, desc="distortion probe", unit="row", disable=not progress):
        try:
            row = encoder.encode(pair)
            distorted = [_distort(vlm, pair, row, condition) for condition in tried]
        except RowError as error:
            skips.append(Skip(f"row {pair.id}", error.reason, error.detail))
            continue
        record: dict[str, Any] = {
            "id": pair.id,
            "rows": 1,
            "without_region": int(not pair.regions),
            "tokens_chosen": len(row.chosen),
            "tokens_rejected": len(row.rejected),
        }
        records.append(record)
        for condition, encoded in zip(tried, distorted, strict=True):
            scorer.add(encoded, record, condition.name)
    scorer.flush()
    if not records:
        raise UserError(
            f"none of the {len(pairs)} rows can be used" + (f": {skips[0].detail}" if skips else "")
        )
    for record in records:
        for condition in tried:
            gap = record[f"{condition.name} chosen"] - record[f"{condition.name} rejected"]
            record |= {f"{condition.name} gap": gap, f"{condition.name} preferred": int(gap > 0)}
    settings = {
        "schedules": sorted({condition.schedule for condition in tried if condition.step is not None}),
        "skipped": [skip.to_dict() for skip in skips],
        # Noise on their "region" is noise on the whole picture.
        "rows_without_region": sum(record.pop("without_region") for record in records),
    }
    return score_result("distortion", records, distortion_metrics(conditions), settings)


def _distort(vlm: VLM, pair: PreferencePair, row: EncodedRow, condition: Distortion) -> EncodedRow:
    """The row with a distorted image in the place of its own; of several images the first is distorted.

    Raises:
        RowError: The row has several images, or one cannot be read.
    """
    if condition.scope is None:
        return row
    if len(pair.images) != 1:
        raise RowError("image-count", f"distortions need one image, the row has {len(pair.images)}")
    step = pair.noise.step if condition.step is None else condition.step
    noise: Noise = replace(pair.noise, scope=condition.scope, step=step, schedule=condition.schedule)
    swapped = condition.scope == "swap" and pair.rejected_images
    stored = open_image(pair.rejected_images[0]) if swapped else None
    image = open_image(pair.images[0])
    distorted = rejected_inputs(
        vlm.image_processor, image, pair.regions, noise, stored, clean=row.image.tensors
    )
    return replace(row, image=ImageInputs((pair.id, noise), distorted.inputs))


def distortion_metrics(conditions: Sequence[Distortion]) -> dict[str, Metric]:
    """Metrics of the distortion probe.

    Args:
        conditions: Distortions that are tried beside the clean image.
    """
    clean, *others = (condition.name for condition in (Distortion(), *conditions))
    metrics = {
        name: Metric(
            f"{name} preferred", "rows", text=f"rows whose chosen answer is preferred, image: {name}"
        )
        for name in (clean, *others)
    }
    for name in others:
        metrics[f"drop {name}"] = Metric(
            {f"{clean} preferred": 1, f"{name} preferred": -1},
            "rows",
            better="higher",
            text=f"points that the preference loses, image: {name}",
        )
    return metrics


def _dataset(config: ProbeConfig) -> PreferenceDataset | Sequence[PreferencePair]:
    from mfpo.data.folder import open_dataset

    if config.dataset is None:
        raise UserError(
            f"the {config.probe} probe needs preference rows", where="--dataset", fix="name a dataset folder"
        )
    pairs = open_dataset(config.dataset)
    return pairs if config.num_samples is None else list(islice(pairs, config.num_samples))
