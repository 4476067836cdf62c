"""Everything up to the first step of a training: checks, reference scores, stages, trainer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainingArguments

from mfpo.difficulty.config import BY_DIFFICULTY, Precision
from mfpo.difficulty.fingerprint import fingerprint, weights_digest
from mfpo.difficulty.scores import ReferenceScores, autocast_context
from mfpo.difficulty.semantic import SemanticEntropies
from mfpo.difficulty.stages import plan_stages
from mfpo.difficulty.store import FOLDER, scores_folder
from mfpo.errors import RowError, Skip, UserError
from mfpo.models.adapters import merged
from mfpo.models.load import VLM, default_dtype
from mfpo.models.logprobs import Layout
from mfpo.models.vision import CACHE_BYTES, ImageEncoder, unwrap
from mfpo.preferences.encoding import EncodedRows, NoiseOverride, RowEncoder, Rows, SequenceKind
from mfpo.preferences.layouts import choose_layout
from mfpo.training.arguments import is_sharded, name_layers_to_shard, training_arguments
from mfpo.training.balance import ModalityBalance
from mfpo.training.batching import MAX_UNREADABLE, CurriculumDataset, CurriculumPlan, PreferenceCollator
from mfpo.training.config import SKIPPED_FILE, TrainConfig
from mfpo.training.loss import make_loss, sequences_of
from mfpo.training.objectives import Loss
from mfpo.training.parameters import lora_targets, prepare_model
from mfpo.training.preflight import (
    LengthCheck,
    Preflight,
    check_first_loss,
    check_rows,
    check_template,
    describe,
    regions_missing,
    rows_per_step,
    short_schedule,
)
from mfpo.training.prepass import Known, ReferenceSource
from mfpo.training.probe import batch_of, probe
from mfpo.training.recorded import keeps_checkpoints, recorded_settings, unmerged_weights
from mfpo.training.reference import make_reference
from mfpo.training.rescoring import Rescoring
from mfpo.training.trainer import PreferenceTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Prepared:
    """A training before its first step.

    Attributes:
        trainer: The trainer.
        skips: Rows that could not be read.
        report: What is about to be trained, for people.
        rescoring: What ranks rows again between stages.
    """

    trainer: PreferenceTrainer
    skips: list[Skip]
    report: str
    rescoring: Rescoring


def set_up(
    vlm: VLM,
    rows: Rows,
    config: TrainConfig,
    *,
    stored_scores: Path | None = None,
    at_start: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
) -> Prepared:
    """Check everything and make the trainer.

    Args:
        vlm: The initial model; frozen in part or given an adapter, in place.
        rows: The preference rows.
        config: The settings.
        stored_scores: Folder in which scores of these rows may be; where ``mfpo rank`` stores them when None.
        at_start: Whether training starts with the initial model, so that the step-0 loss can be checked.
        callbacks: What else is told of steps and metrics.

    Raises:
        UserError: A setting is wrong, or a check fails.
    """
    if not len(rows):
        raise UserError("the dataset has no rows", where=config.dataset or "rows")
    _check_kernel(vlm)
    loss, sequences, encoder = make_encoder(vlm, config)
    encoded = EncodedRows(rows, encoder)
    lengths = check_rows(encoded, vlm.model)
    notes = [*regions_missing(encoded), *check_template(encoder, rows[lengths.by_length[0]])]
    keeps = keeps_checkpoints(config, at_start=at_start)
    initial = unmerged_weights(vlm.model) if keeps else ""
    vlm.model = merged(vlm.model)
    precision = precision_of(vlm, config)
    args = training_arguments(config, precision, vlm.device)
    name_layers_to_shard(vlm.model, args)
    _check_sharding(config, args)
    targets = lora_targets(vlm.model, config.lora_target_modules) if config.use_lora else []
    autocast = autocast_context(precision, vlm.device)
    choice = choose_layout(vlm.model, encoded, sequences, autocast, config.shared_prefix)
    # The fingerprint is of the initial weights, so it is taken before an adapter joins them.
    source = _reference_source(vlm, encoded, config, loss, sequences, precision, choice.layout, stored_scores)
    if keeps and not initial:
        initial = source.weights if source is not None else weights_digest(vlm.model).hex()
    model = prepare_model(vlm.model, config, name=vlm.name)
    share = not is_sharded(args)
    images = ImageEncoder(model, cache_bytes=_cache_bytes(model, encoded, autocast, share=share), share=share)
    reference = make_reference(config.reference, vlm.model, model, images, detail=loss.reference_detail)
    known, semantic = Known(), None
    if source is not None:
        size = args.per_device_train_batch_size
        few = [*lengths.by_length[:size], *lengths.typical(size)] if config.dry_run else None
        known = source.known(model, encoded, images, args, sample=few)
        if config.difficulty == "semantic" and config.stages in BY_DIFFICULTY:
            semantic = source.semantic()
    plan = _plan(config, encoded, known.scores, semantic, args)
    stored = known.scores if _uses_stored(config, loss) else None
    trainer = PreferenceTrainer(
        model,
        args,
        dataset=CurriculumDataset(
            encoded, plan.schedule(), stored, sequences, tokens=loss.reference_detail == "tokens"
        ),
        collator=_collator(vlm, config, loss, sequences, encoder, choice.layout),
        loss=loss,
        reference=reference,
        images=images,
        processor=vlm.processor,
        balance=ModalityBalance() if config.balance_modalities else None,
        recorded=recorded_settings(config, precision, initial),
        callbacks=callbacks,
    )
    notes = [f"layout: {choice.reason}", *notes]
    report = _check_trainer(trainer, config, precision, lengths, known, targets, notes, at_start=at_start)
    rescoring = Rescoring(trainer, vlm, plan, config, precision, choice.layout, rows_per_step(args))
    if semantic is not None:
        rescoring = replace(rescoring, semantic=semantic.settings)
    return Prepared(trainer, known.skips, report, rescoring)


def _collator(
    vlm: VLM,
    config: TrainConfig,
    loss: Loss,
    sequences: tuple[SequenceKind, ...],
    encoder: RowEncoder,
    layout: Layout,
) -> PreferenceCollator:
    """What makes batches of the sequences that the loss needs."""
    return PreferenceCollator(
        sequences,
        encoder.pad_token_id,
        layout,
        config.max_tokens,
        eos_token_id=vlm.tokenizer.eos_token_id,
        segments=loss.objective.segments,
    )


def _check_trainer(
    trainer: PreferenceTrainer,
    config: TrainConfig,
    precision: Precision,
    lengths: LengthCheck,
    known: Known,
    targets: list[str],
    notes: list[str],
    *,
    at_start: bool,
) -> str:
    """Run the first and the longest batch; what was found, for people."""
    args, dataset = trainer.args, trainer.train_dataset
    size = args.per_device_train_batch_size
    first = trainer.data_collator([dataset[place] for place in range(min(len(dataset), size))])
    usable = {scheduled.row for scheduled in dataset.schedule}
    longest = [row for row in lengths.by_length if row in usable][:size]
    first_loss = check_first_loss(trainer, first["batch"], precision) if at_start else None
    typical = [row for row in lengths.typical(size) if row in usable]
    runs = not is_sharded(args) and len(longest) > 0
    examples = len(dataset) if known.seconds is None else _num_examples(config, len(lengths.by_length), args)
    notes = [*notes, *short_schedule(examples, len({entry.stage for entry in dataset.schedule}), args)]
    found = Preflight(
        examples=examples,
        lengths=lengths,
        targets=targets,
        notes=notes,
        first_loss=first_loss,
        longest=probe(trainer, batch_of(trainer, longest)) if runs else None,
        typical=probe(trainer, batch_of(trainer, typical or longest)) if runs and config.dry_run else None,
        reference_seconds=known.seconds,
    )
    return describe(trainer, first["batch"], found)


def _cache_bytes(
    model: PreTrainedModel, rows: EncodedRows, autocast: AbstractContextManager[Any], *, share: bool
) -> int:
    """Memory for image features: the whole of it if those of all rows are expected to fit, else none.

    The first row that can be read decides, wherever a training goes on from: kept features are computed one
    by one, others together with those of their batch, which changes their last bits.

    Args:
        model: The model.
        rows: The rows.
        autocast: Context of the precision that the model computes in.
        share: See [`ImageEncoder`].
    """
    images = ImageEncoder(model, cache_bytes=CACHE_BYTES, share=share)
    if not images.shares:
        return 0
    for index in range(min(len(rows), MAX_UNREADABLE)):
        try:
            image = rows[index].image
        except RowError:
            continue
        count = len(rows) * (2 if rows.encoder.rejected_image else 1)
        with autocast:
            return CACHE_BYTES if images.fits(image, count) else 0
    return 0


def _reference_source(
    vlm: VLM,
    rows: EncodedRows,
    config: TrainConfig,
    loss: Loss,
    sequences: tuple[SequenceKind, ...],
    precision: Precision,
    layout: Layout,
    stored_scores: Path | None,
) -> ReferenceSource | None:
    """Where scores come from; None if neither the loss nor the stages need any."""
    stored = _uses_stored(config, loss)
    if not stored and config.stages not in BY_DIFFICULTY:
        return None
    stored_scores = stored_scores or scores_folder(rows.rows)
    folders = [Path(config.output_dir) / FOLDER, *([stored_scores] if stored_scores else [])]
    tokens = stored and loss.reference_detail == "tokens"
    digest = fingerprint(vlm.model, rows.encoder, rows.rows, precision, layout)
    return ReferenceSource(digest, folders, sequences, precision, layout, tokens)


def _check_kernel(vlm: VLM) -> None:
    """Refuse what could be scored, but not trained, before a reference pass is made of it."""
    kernel = unwrap(vlm.model).get_decoder().config._attn_implementation
    if kernel == "flex_attention" and vlm.device.type == "cpu":
        raise UserError(
            "FlexAttention has no backward pass on a CPU",
            where=f"--attn_implementation {kernel}",
            fix="leave it out: sdpa, the usual choice, shares prompts as well",
        )


def _check_sharding(config: TrainConfig, args: TrainingArguments) -> None:
    """What does not go together, told before anything is computed."""
    if config.rescore_between_stages and config.stages not in BY_DIFFICULTY:
        raise UserError(
            f"there is nothing to rank between stages of --stages {config.stages}",
            where="--rescore_between_stages",
            fix="use it with --stages easy_to_hard or hard_to_easy",
        )
    if config.rescore_between_stages and is_sharded(args):
        raise UserError(
            "a model sharded by FSDP or DeepSpeed cannot be ranked with in the middle of a training",
            where="--rescore_between_stages",
            fix="train with DDP, or rank once before the training",
        )
    if config.rescore_between_stages and args.save_only_model:
        raise UserError(
            "after the ranking training goes on from a checkpoint, which would lack optimizer and schedule",
            where="--trainer save_only_model=true",
            fix="leave it out, or rank once before the training",
        )
    if config.max_tokens is not None and is_sharded(args):
        raise UserError(
            "processes that share their parameters must make the same number of forward passes",
            where=f"--max_tokens {config.max_tokens}",
            fix="set --per_device_train_batch_size instead",
        )


def wants_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether to compute in bfloat16: as set, or where the device can."""
    return config.bf16 if config.bf16 is not None else default_dtype(device) == torch.bfloat16


def planned_precision(config: TrainConfig, device: torch.device) -> Precision:
    """What a training computes in whose model `mfpo train` loads itself.

    Beside an adapter or 4-bit weights the frozen weights are bfloat16 where the device can; weights that are
    trained are float32.
    """
    if config.use_lora and (config.load_in_4bit or wants_bf16(config, device)):
        return "bfloat16"
    return "mixed" if wants_bf16(config, device) else "float32"


def precision_of(vlm: VLM, config: TrainConfig) -> Precision:
    """What a model with these weights computes in.

    Raises:
        UserError: The settings ask for float32 and the weights are bfloat16.
    """
    if vlm.model.dtype == torch.bfloat16:
        if config.bf16 is False:
            raise UserError(
                "the weights are bfloat16"
                + (", as those beside 4-bit ones are" if config.load_in_4bit else ""),
                where="--bf16 false",
                fix="leave it out, or load the model in float32",
            )
        return "bfloat16"
    return "mixed" if wants_bf16(config, vlm.device) else "float32"


def make_encoder(vlm: VLM, config: TrainConfig) -> tuple[Loss, tuple[SequenceKind, ...], RowEncoder]:
    """The loss, the sequences it needs, and the encoder that makes them."""
    loss = make_loss(config)
    sequences = sequences_of(loss)
    encoder = RowEncoder(
        vlm.processor,
        max_length=config.max_length,
        noise=NoiseOverride.of(config, loss.objective.noise_scope),
        rejected_image="image_rejected" in sequences,
    )
    return loss, sequences, encoder


def _uses_stored(config: TrainConfig, loss: Loss) -> bool:
    """Whether the loss takes stored reference log-probabilities."""
    return config.reference == "precomputed" and loss.reference_detail != "none"


def _plan(
    config: TrainConfig,
    rows: EncodedRows,
    scores: ReferenceScores | None,
    semantic: SemanticEntropies | None,
    args: TrainingArguments,
) -> CurriculumPlan:
    """The order of training, over the rows that have scores or, where none are needed, over all."""
    usable, entropies = list(range(len(rows))), None
    if scores is not None:
        usable = [index for index, identifier in enumerate(rows.ids) if identifier in scores.index]
        if semantic is not None:
            known = dict(zip(semantic.ids, semantic.entropies.tolist(), strict=True))
            entropies = [known.get(rows.ids[index], math.inf) for index in usable]
        elif config.stages in BY_DIFFICULTY:
            positions = [scores.index[rows.ids[index]] for index in usable]
            entropies = scores.entropies[config.difficulty][positions].tolist()
    if not usable:
        raise UserError(
            "none of the rows can be used", where=config.dataset or "rows", fix=f"see {SKIPPED_FILE}"
        )
    stages = tuple(
        replace(stage, rows=tuple(usable[row] for row in stage.rows))
        for stage in plan_stages(config.stages, len(usable), entropies, seed=config.seed)
    )
    num_examples = _num_examples(config, len(usable), args) if config.max_steps > 0 else None
    return CurriculumPlan(stages, config.num_train_epochs, num_examples, config.seed)


def _num_examples(config: TrainConfig, num_rows: int, args: TrainingArguments) -> int:
    """How often a training on so many rows takes a row."""
    if config.max_steps > 0:
        return config.max_steps * rows_per_step(args)
    return num_rows * config.num_train_epochs
