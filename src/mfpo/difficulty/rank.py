"""``mfpo rank``: the reference pass as a step of its own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object

from mfpo.data.folder import open_dataset
from mfpo.difficulty.chunks import discard_chunks
from mfpo.difficulty.config import Precision, RankConfig, require
from mfpo.difficulty.fingerprint import Fingerprint, fingerprint, refused
from mfpo.difficulty.scores import ReferenceScores, autocast_context, compute_scores
from mfpo.difficulty.semantic import SemanticEntropies, SemanticSettings, semantic_entropies
from mfpo.difficulty.store import FOLDER, find_scores, obtain_scores
from mfpo.errors import UserError
from mfpo.models.adapters import merged
from mfpo.models.load import VLM, default_device, default_dtype, load_vlm, process_device
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.encoding import SEQUENCES, EncodedRows, NoiseOverride, RowEncoder, Rows
from mfpo.preferences.layouts import LayoutChoice, choose_layout
from mfpo.preferences.lengths import spread_rows


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


def run(config: RankConfig) -> RankResult | None:
    """Score the dataset with the model and store the scores in its folder; None after a dry run.

    What is done is stored as it goes: run again after a kill, the pass goes on where it was. Started by
    ``torchrun`` or ``accelerate launch``, processes share the rows.

    Raises:
        UserError: The dataset or the model cannot be opened, or no row can be read.
    """
    require(config, "dataset", "model_name_or_path")
    if config.per_device_batch_size < 1:
        raise UserError("must be at least 1", where=f"--per_device_batch_size {config.per_device_batch_size}")
    # A mistake here must not cost the loading of a model.
    NoiseOverride.of(config)
    open_dataset(config.dataset)
    device = process_device()
    precision = choose_precision(config.precision)
    dtype = "bfloat16" if precision == "bfloat16" else "float32"
    vlm = load_vlm(
        config.model_name_or_path,
        dtype=dtype,
        device=device,
        revision=config.revision,
        attn_implementation=config.attn_implementation,
        trust_remote_code=config.trust_remote_code,
        load_in_4bit=config.load_in_4bit,
    )
    return rank(vlm, config, precision)


def rank(vlm: VLM, config: RankConfig, precision: Precision) -> RankResult | None:
    """As [`run`], with a model that is already loaded in the given precision."""
    dataset = open_dataset(config.dataset)
    # As before a training, which looks for the scores of exactly these weights.
    vlm.model = merged(vlm.model)
    noise = NoiseOverride.of(config)
    rows = EncodedRows(
        dataset, RowEncoder(vlm.processor, max_length=config.max_length, noise=noise), cache_bytes=0
    )
    folder = Path(config.dataset) / FOLDER
    autocast = autocast_context(precision, vlm.device)
    choice = choose_layout(vlm.model, rows, SEQUENCES, autocast, config.shared_prefix)
    name = fingerprint(vlm.model, rows.encoder, dataset, precision, choice.layout)
    images = ImageEncoder(vlm.model, cache_bytes=0)
    size = config.per_device_batch_size
    if config.dry_run:
        _dry_run(vlm, rows, images, name, folder, size, precision, choice)
        return None
    if PartialState().is_main_process:
        print(f"layout: {choice.reason}")
    stored = obtain_scores(
        vlm.model,
        rows,
        images,
        SEQUENCES,
        fingerprint=name,
        folders=[folder],
        batch_size=size,
        precision=precision,
        overwrite=config.overwrite,
        layout=choice.layout,
    )
    if not stored.scores.ids:
        first = stored.skips[0]
        raise UserError(
            f"none of the {len(dataset)} rows can be used: {first.reason} {first.detail}".rstrip(),
            where=config.dataset,
        )
    if config.semantic:
        _rank_semantic(vlm, config, dataset, folder, name.digest)
    if PartialState().is_main_process:
        done = "scored before" if stored.reused else "scored"
        print(f"{len(stored.scores.ids)} rows {done}, {len(stored.skips)} skipped: {folder / name.digest}.*")
    return RankResult(name.digest, stored.scores, len(stored.skips), stored.reused)


def _rank_semantic(vlm: VLM, config: RankConfig, rows: Rows, folder: Path, digest: str) -> None:
    """Semantic entropies, unless they are there with these settings."""
    settings = SemanticSettings(
        samples=config.semantic_samples,
        max_new_tokens=config.semantic_max_new_tokens,
        seed=config.seed,
        similarity=config.semantic_similarity,
        entailment_model=config.entailment_model,
    )
    parts = folder / f"{digest}.semantic-{settings.digest}.parts"
    if config.overwrite:
        discard_chunks(parts)
    else:
        stored = SemanticEntropies.load(folder, digest)
        if all(gather_object([stored is not None and stored.settings == settings])):
            return
    found = semantic_entropies(vlm, rows, settings, batch_size=config.per_device_batch_size, folder=parts)
    if not found.ids:
        first = found.skips[0]
        raise UserError(f"no row can be answered: {first.reason} {first.detail}", where=first.where)
    if PartialState().is_local_main_process:
        found.save(folder, digest)
    discard_chunks(parts)


def _dry_run(
    vlm: VLM,
    rows: EncodedRows,
    images: ImageEncoder,
    wanted: Fingerprint,
    folder: Path,
    batch_size: int,
    precision: Precision,
    choice: LayoutChoice,
) -> None:
    """Score one batch twice and say what the whole pass would do and take."""
    found = find_scores([folder], wanted, SEQUENCES)
    lines = [f"{len(rows)} rows, {precision}, {vlm.device}: {folder / wanted.digest}.*"]
    lines.append(f"layout: {choice.reason}")
    lines += [f"stored scores that would not be used: {line}" for line in refused([folder], wanted)]
    if found is not None:
        lines.append(f"{len(found.scores.ids)} rows are scored already: nothing to do")
    else:
        spread = spread_rows(len(rows), batch_size)
        sample = EncodedRows([rows.rows[row] for row in spread], rows.encoder, cache_bytes=0)
        for _ in range(2):  # the first time a machine is slower
            started = time.perf_counter()
            scores, skips = compute_scores(
                vlm.model,
                sample,
                images,
                SEQUENCES,
                batch_size=batch_size,
                precision=precision,
                layout=choice.layout,
                progress=False,
            )
        seconds = (time.perf_counter() - started) * len(rows) / len(sample) / PartialState().num_processes
        lines.append(f"{len(scores.ids)} of {len(sample)} rows tried can be used")
        lines += [f"  {skip.where}: {skip.reason} {skip.detail}" for skip in skips[:5]]
        for number, row in enumerate(scores.ids[:3]):
            entropies = ", ".join(f"{n} {v[number].item():.3f}" for n, v in scores.entropies.items())
            logps = ", ".join(f"{n} {v[number].item():.1f}" for n, v in scores.logps.items())
            lines.append(f"  row {row}: log-probabilities {logps}; entropies {entropies}")
        lines.append(f"the whole pass takes about {duration(seconds)}")
    if PartialState().is_main_process:
        print("\n".join(lines))


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def choose_precision(precision: Precision) -> Precision:
    """``auto`` as what LoRA training chooses here: bfloat16 on a GPU that has it, else float32."""
    if precision != "auto":
        return precision
    return "float32" if str(default_dtype(default_device())) == "torch.float32" else "bfloat16"
