"""The distortion probe (figure 1b of the paper): does the model's preference go with the image?

How often the model still prefers the chosen answer y_w to the rejected one y_l when the image is distorted. A
model that grounds its preference in the image loses it; one that has memorised the text keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from mfpo.data.images import open_image
from mfpo.errors import RowError, Skip, UserError
from mfpo.evaluation.pair_scores import score_pairs
from mfpo.evaluation.results import ScoreResult, score_result
from mfpo.evaluation.statistics import Metric
from mfpo.models.load import VLM
from mfpo.models.vision import ImageInputs
from mfpo.preferences.encoding import EncodedRow, RowEncoder
from mfpo.preferences.noise import NOISY_SCOPES
from mfpo.preferences.rejected import rejected_inputs
from mfpo.records import Noise, PreferencePair, Schedule, Scope

if TYPE_CHECKING:
    from PIL.Image import Image

    from mfpo.data.folder import PreferenceDataset


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
    records: list[dict[str, Any]] = []
    skips: list[Skip] = []

    def rows() -> Iterator[tuple[tuple[dict[str, Any], str], EncodedRow]]:
        for pair in tqdm(pairs, desc="distortion probe", unit="row", disable=not progress):
            try:
                row = encoder.encode(pair)
                distorted = [row, *_distorted(vlm, pair, row, conditions)]
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
                yield (record, condition.name), encoded

    for (record, name), logps in score_pairs(vlm, encoder, rows(), batch_size=batch_size):
        record |= {f"{name} chosen": logps.chosen, f"{name} rejected": logps.rejected}
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


def _distorted(
    vlm: VLM, pair: PreferencePair, row: EncodedRow, conditions: Sequence[Distortion]
) -> list[EncodedRow]:
    """The row with its image distorted in each of these ways.

    Raises:
        RowError: The row has several images, or one cannot be read.
    """
    if not conditions:
        return []
    if len(pair.images) != 1:
        raise RowError("image-count", f"distortions need one image, the row has {len(pair.images)}")
    image = open_image(pair.images[0])
    return [_distort(vlm, pair, row, image, condition) for condition in conditions]


def _distort(
    vlm: VLM, pair: PreferencePair, row: EncodedRow, image: Image, condition: Distortion
) -> EncodedRow:
    assert condition.scope is not None
    step = pair.noise.step if condition.step is None else condition.step
    noise: Noise = replace(pair.noise, scope=condition.scope, step=step, schedule=condition.schedule)
    swapped = condition.scope == "swap" and pair.rejected_images
    stored = open_image(pair.rejected_images[0]) if swapped else None
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
