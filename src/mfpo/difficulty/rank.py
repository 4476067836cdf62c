"""``mfpo rank``: the reference pass as a step of its own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mfpo.data.files import write_jsonl
from mfpo.data.folder import open_dataset
from mfpo.difficulty.config import Precision, RankConfig
from mfpo.difficulty.scores import ReferenceScores, autocast_context, compute_scores, fingerprint
from mfpo.errors import UserError
from mfpo.models.load import VLM, default_device, default_dtype, load_vlm
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.encoding import SEQUENCES, EncodedRows, NoiseOverride, RowEncoder
from mfpo.preferences.layouts import choose_layout

FOLDER = "reference"
"""Folder of a dataset, or of a training run, that holds scores."""


@dataclass(frozen=True, slots=True)
class RankResult:
    """What ``mfpo rank`` did.

    Attributes:
        fingerprint: Name of the two files.
        scores: The scores.
        skipped: Number of rows that could not be read; listed in ``<fingerprint>.skipped.jsonl``.
        reused: Whether the scores were there already.
    """

    fingerprint: str
    scores: ReferenceScores
    skipped: int
    reused: bool


def run(config: RankConfig) -> RankResult:
    """Score the dataset with the model and store the scores in its folder.

    Raises:
        UserError: The dataset or the model cannot be opened, or no row can be read.
    """
    for name in ("dataset", "model_name_or_path"):
        if not getattr(config, name):
            raise UserError("a required setting is missing", where=f"--{name}")
    if config.per_device_batch_size < 1:
        raise UserError("must be at least 1", where=f"--per_device_batch_size {config.per_device_batch_size}")
    open_dataset(config.dataset)  # a mistake here must not cost the loading of a model
    device = default_device()
    precision = choose_precision(config.precision)
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    vlm = load_vlm(
        config.model_name_or_path,
        dtype=dtype,
        device=device,
        revision=config.revision,
        attn_implementation=config.attn_implementation,
        trust_remote_code=config.trust_remote_code,
    )
    return rank(vlm, config, precision)


def rank(vlm: VLM, config: RankConfig, precision: Precision) -> RankResult:
    """As [`run`], with a model that is already loaded in the given precision."""
    dataset = open_dataset(config.dataset)
    noise = NoiseOverride(config.noise_scope, config.noise_step, config.noise_schedule)
    rows = EncodedRows(
        dataset, RowEncoder(vlm.processor, max_length=config.max_length, noise=noise), cache_bytes=0
    )
    folder = Path(config.dataset) / FOLDER
    autocast = autocast_context(precision, vlm.device)
    choice = choose_layout(vlm.model, rows, SEQUENCES, autocast, config.shared_prefix)
    name = fingerprint(vlm.model, rows.encoder, dataset, precision, choice.layout)
    if not config.overwrite and (stored := ReferenceScores.load(folder, name)) is not None:
        return RankResult(name, stored, len(dataset) - len(stored.ids), reused=True)
    scores, skips = compute_scores(
        vlm.model,
        rows,
        ImageEncoder(vlm.model, cache_bytes=0),
        SEQUENCES,
        batch_size=config.per_device_batch_size,
        precision=precision,
        layout=choice.layout,
    )
    if not scores.ids:
        raise UserError(
            f"none of the {len(dataset)} rows can be used: {skips[0].reason} {skips[0].detail}".rstrip(),
            where=config.dataset,
        )
    scores.save(folder, name)
    if skips:
        write_jsonl(folder / f"{name}.skipped.jsonl", (skip.to_dict() for skip in skips))
    return RankResult(name, scores, len(skips), reused=False)


def choose_precision(precision: Precision) -> Precision:
    """``auto`` as what LoRA training chooses here: bfloat16 on a GPU that has it, else float32."""
    if precision != "auto":
        return precision
    return "float32" if str(default_dtype(default_device())) == "torch.float32" else "bfloat16"
