"""Probes of whether a model looks at the picture: they compare log-probabilities and generate nothing.

``distortion`` (figure 1b of the paper): how often the model still prefers the chosen answer y_w to the
rejected one y_l when the image is distorted. A model that grounds its preference in the image loses it; one
that has memorised the text keeps it.

``grounding``: pairs of clean drawings that differ in one object, each with its own caption. No noise is
involved, so a model that has learned to detect noise gains nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import torch
from tqdm import tqdm

from mfpo.data.images import open_image
from mfpo.errors import RowError, Skip, UserError
from mfpo.evaluation.results import ScoreResult, score_result
from mfpo.evaluation.statistics import Metric
from mfpo.models.load import VLM, load_vlm
from mfpo.models.logprobs import score_responses
from mfpo.models.vision import ImageEncoder, ImageInputs
from mfpo.preferences.encoding import EncodedRow, RowEncoder, collate
from mfpo.preferences.rejected import rejected_inputs
from mfpo.records import ImageSource, Messages, Noise, PreferencePair, Schedule, Scope, assistant_message

if TYPE_CHECKING:
    from PIL.Image import Image

    from mfpo.data.folder import PreferenceDataset
    from mfpo.evaluation.config import ProbeConfig

NOISY_SCOPES = ("region", "global", "random")
"""Distortions whose strength depends on the diffusion step."""


class EditedImage(Protocol):
    """A picture, two edits of it, and captions: an item of the grounding probe."""

    @property
    def id(self) -> str:
        """Unique name."""

    @property
    def prompt(self) -> Messages:
        """A request for a description."""

    @property
    def image(self) -> Image:
        """The picture."""

    @property
    def swapped_image(self) -> Image:
        """The picture with one object replaced by another."""

    @property
    def removed_image(self) -> Image:
        """The picture without that object."""

    @property
    def caption(self) -> str:
        """True of ``image``."""

    @property
    def swapped_caption(self) -> str:
        """True of ``swapped_image``."""


@dataclass(frozen=True, slots=True)
class Distortion:
    """One way to distort the image.

    Attributes:
        scope: What is distorted; None leaves the image as it is.
        step: Diffusion step of the noise, None for scopes that add none.
    """

    scope: Scope | None = None
    step: int | None = None

    @property
    def name(self) -> str:
        """Name in the results, such as ``region@500``."""
        if self.scope is None:
            return "clean"
        return self.scope if self.step is None else f"{self.scope}@{self.step}"


GROUNDING_METRICS = {
    "swap_accuracy": Metric(
        "swap_right", "items", better="higher", text="swapped picture: its own caption is the likelier one"
    ),
    "clean_accuracy": Metric(
        "clean_right", "items", better="higher", text="original picture: its own caption is the likelier one"
    ),
    "pair_accuracy": Metric("pair_right", "items", better="higher", text="both of them"),
    "removal_accuracy": Metric(
        "removal_right",
        "items",
        better="higher",
        text="the caption is likelier with the picture than without the object",
    ),
    "swap_gap": Metric(
        "swap_gap", "items", scale=1, better="higher", text="log-probability, own caption minus other"
    ),
    "clean_gap": Metric(
        "clean_gap", "items", scale=1, better="higher", text="the same for the original picture"
    ),
    "removal_gap": Metric(
        "removal_gap", "items", scale=1, better="higher", text="log-probability lost by removal"
    ),
    "caption_logp": Metric(
        "caption_logp", "items", scale=1, better="higher", text="log-probability of the caption"
    ),
}


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
    rows = _dataset(config) if config.probe == "distortion" else None
    vlm = load_vlm(
        config.model_name_or_path,
        dtype=config.dtype,
        device=config.device,
        revision=config.revision,
        attn_implementation=config.attn_implementation,
        trust_remote_code=config.trust_remote_code,
    )
    if rows is not None:
        result = distortion(
            vlm,
            rows,
            distortions(config.noise_scopes, config.noise_steps),
            schedule=config.noise_schedule,
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


def distortions(scopes: Sequence[Scope], steps: Sequence[int]) -> list[Distortion]:
    """Every scope at every step, those that add no noise once."""
    found = []
    for scope in scopes:
        found += [Distortion(scope, step) for step in steps] if scope in NOISY_SCOPES else [Distortion(scope)]
    return found


def distortion(
    vlm: VLM,
    pairs: PreferenceDataset | Sequence[PreferencePair],
    conditions: Sequence[Distortion],
    *,
    schedule: Schedule = "vcd",
    batch_size: int = 32,
    progress: bool = True,
) -> ScoreResult:
    """How often log pi(y_w | m', x) > log pi(y_l | m', x), for the clean image and for each distortion m'.

    Args:
        vlm: The model.
        pairs: The preference rows; one that cannot be read is left out and listed in ``settings["skipped"]``.
        conditions: Distortions to try, beside the clean image. The noise has the row's own seed.
        schedule: Diffusion schedule.
        batch_size: Sequences scored at once.
        progress: Whether to show a bar.

    Returns:
        For each condition the share of rows, in percent, in which y_w is preferred, and ``drop <condition>``,
        by how many points that is below the clean image. The item records hold the gaps log pi(y_w) - log
        pi(y_l) and the
        lengths: y_l may lose for being long, so the clean image is the measure of comparison.

    Raises:
        UserError: No row can be read, or a distortion does not fit the rows.
    """
    conditions = [Distortion(), *conditions]
    encoder = RowEncoder(vlm.processor, rejected_image=False)
    scorer = _Scorer(vlm, encoder, max(1, batch_size // 2))
    records: list[dict[str, Any]] = []
    skips: list[Skip] = []
    for pair in tqdm(pairs, desc="distortion probe", unit="row", disable=not progress):
        try:
            row = encoder.encode(pair)
            distorted = [_distort(vlm, pair, row, condition, schedule) for condition in conditions]
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
        for condition, encoded in zip(conditions, distorted, strict=True):
            scorer.add(encoded, record, condition.name)
    scorer.flush()
    if not records:
        raise UserError(
            f"none of the {len(pairs)} rows can be used" + (f": {skips[0].detail}" if skips else "")
        )
    for record in records:
        for condition in conditions:
            gap = record[f"{condition.name} chosen"] - record[f"{condition.name} rejected"]
            record |= {f"{condition.name} gap": gap, f"{condition.name} preferred": int(gap > 0)}
    settings = {
        "schedule": schedule,
        "skipped": [skip.to_dict() for skip in skips],
        # Noise on their "region" is noise on the whole picture.
        "rows_without_region": sum(record.pop("without_region") for record in records),
    }
    return score_result("distortion", records, _distortion_metrics(conditions), settings)


def grounding(
    vlm: VLM,
    items: Iterable[EditedImage],
    *,
    batch_size: int = 32,
    total: int | None = None,
    progress: bool = True,
) -> ScoreResult:
    """Whether the right caption is preferred on each of two drawings that differ in one object.

    Args:
        vlm: The model.
        items: The drawings with their captions, opened one at a time.
        batch_size: Sequences scored at once.
        total: Number of items, if known, for the time left.
        progress: Whether to show a bar.

    Returns:
        ``swap_accuracy``: on the swapped drawing the swapped caption is likelier than the original one; a
        model that names what usually stands there fails. ``clean_accuracy``: on the original drawing, the
        original caption. ``pair_accuracy``: both. ``removal_accuracy``: the caption is likelier on its
        drawing than on the one from which a mentioned object is removed. Gaps in nats.

    Raises:
        UserError: There are no items.
    """
    encoder = RowEncoder(vlm.processor, rejected_image=False)
    scorer = _Scorer(vlm, encoder, max(1, batch_size // 2))
    records: list[dict[str, Any]] = []
    for item in tqdm(items, desc="grounding probe", total=total, unit="item", disable=not progress):
        record: dict[str, Any] = {
            "id": item.id,
            "items": 1,
            "caption": item.caption,
            "swapped_caption": item.swapped_caption,
        }
        records.append(record)
        for name, row in _grounding_rows(vlm, encoder, item):
            scorer.add(row, record, name)
    scorer.flush()
    if not records:
        raise UserError("no item to probe")
    for record in records:
        clean = record["clean chosen"] - record["clean rejected"]
        swap = record["swapped rejected"] - record["swapped chosen"]
        removal = record["clean chosen"] - record["removed chosen"]
        record |= {
            "caption_logp": record["clean chosen"],
            "clean_gap": clean,
            "swap_gap": swap,
            "removal_gap": removal,
            "clean_right": int(clean > 0),
            "swap_right": int(swap > 0),
            "pair_right": int(clean > 0 and swap > 0),
            "removal_right": int(removal > 0),
        }
    return score_result("grounding", records, GROUNDING_METRICS, {})


class _Scorer:
    """Scores both answers of encoded rows in batches; the sums go into the rows' records.

    A record gets ``"<name> chosen"`` and ``"<name> rejected"``: log pi(y_w | m, x) and log pi(y_l | m, x) in
    nats.
    """

    def __init__(self, vlm: VLM, encoder: RowEncoder, rows_at_once: int) -> None:
        self.model, self.device = vlm.model, vlm.device
        self.images = ImageEncoder(vlm.model, cache_bytes=0)
        self.pad_token_id, self.rows_at_once = encoder.pad_token_id, rows_at_once
        self.waiting: list[tuple[EncodedRow, dict[str, Any], str]] = []

    def add(self, row: EncodedRow, record: dict[str, Any], name: str) -> None:
        """Let a row wait for its batch."""
        self.waiting.append((row, record, name))
        if len(self.waiting) == self.rows_at_once:
            self.flush()

    @torch.inference_mode()
    def flush(self) -> None:
        """Score what waits."""
        if not self.waiting:
            return
        rows = [row for row, _, _ in self.waiting]
        batch = collate(rows, ("chosen", "rejected"), self.pad_token_id).to(self.device)
        training = self.model.training
        self.model.eval()
        logps = score_responses(self.model, batch, self.images).logps.tolist()
        self.model.train(training)
        for position, (_, record, name) in enumerate(self.waiting):
            record[f"{name} chosen"] = logps[position]
            record[f"{name} rejected"] = logps[len(rows) + position]
        self.waiting.clear()


def _distort(
    vlm: VLM, pair: PreferencePair, row: EncodedRow, condition: Distortion, schedule: Schedule
) -> EncodedRow:
    """The row with a distorted image in the place of its own; of several images the first is distorted.

    Raises:
        RowError: The row has several images, or one cannot be read.
    """
    if condition.scope is None:
        return row
    if len(pair.images) != 1:
        raise RowError("image-count", f"distortions need one image, the row has {len(pair.images)}")
    step = pair.noise.step if condition.step is None else condition.step
    noise: Noise = replace(pair.noise, scope=condition.scope, step=step, schedule=schedule)
    swapped = condition.scope == "swap" and pair.rejected_images
    stored = open_image(pair.rejected_images[0]) if swapped else None
    image = open_image(pair.images[0])
    distorted = rejected_inputs(
        vlm.image_processor, image, pair.regions, noise, stored, clean=row.image.tensors
    )
    return replace(row, image=ImageInputs((pair.id, noise), distorted.inputs))


def _grounding_rows(vlm: VLM, encoder: RowEncoder, item: EditedImage) -> Iterator[tuple[str, EncodedRow]]:
    """The item as rows (y_w is the original caption, y_l the swapped one), one per drawing."""
    png = BytesIO()
    item.image.save(png, format="PNG", compress_level=1)
    row = encoder.encode(
        PreferencePair(
            id=item.id,
            images=(ImageSource(path=item.id, data=png.getvalue()),),
            prompt=item.prompt,
            chosen=assistant_message(item.caption),
            rejected=assistant_message(item.swapped_caption),
        )
    )
    yield "clean", row
    for name, image in (("swapped", item.swapped_image), ("removed", item.removed_image)):
        tensors = dict(vlm.image_processor(images=[image], return_tensors="pt"))
        yield name, replace(row, image=ImageInputs((item.id, name), tensors))


def _distortion_metrics(conditions: Sequence[Distortion]) -> dict[str, Metric]:
    clean, *others = (condition.name for condition in conditions)
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
            "the distortion probe needs preference rows", where="--dataset", fix="name a dataset folder"
        )
    pairs = open_dataset(config.dataset)
    return pairs if config.num_samples is None else list(islice(pairs, config.num_samples))
