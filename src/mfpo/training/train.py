"""``mfpo train``: from preference rows and a checkpoint to a trained checkpoint."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from transformers import TrainerCallback, TrainingArguments, set_seed

from mfpo.data.files import save_config, write_jsonl
from mfpo.data.folder import check_writable, open_dataset
from mfpo.difficulty.config import Precision
from mfpo.difficulty.fingerprint import fingerprint
from mfpo.difficulty.scores import ReferenceScores, autocast_context
from mfpo.difficulty.stages import plan_stages
from mfpo.difficulty.store import FOLDER
from mfpo.errors import Skip, UserError
from mfpo.models.load import VLM, default_dtype, load_vlm, process_device
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.encoding import EncodedRows, NoiseOverride, RowEncoder, Rows, SequenceKind
from mfpo.preferences.layouts import choose_layout
from mfpo.training.arguments import (
    checkpoint_to_resume,
    is_sharded,
    name_layers_to_shard,
    reporters,
    training_arguments,
)
from mfpo.training.balance import ModalityBalance
from mfpo.training.batching import PreferenceCollator, Turn, TurnDataset, plan_turns
from mfpo.training.config import SKIPPED_FILE, TrainConfig
from mfpo.training.loss import make_loss, sequences_of
from mfpo.training.objectives import Loss
from mfpo.training.parameters import lora_targets, prepare_model
from mfpo.training.preflight import (
    Preflight,
    check_first_loss,
    check_rows,
    check_template,
    describe,
    rows_per_step,
)
from mfpo.training.prepass import ReferenceSource
from mfpo.training.probe import longest_batch, probe
from mfpo.training.reference import make_reference
from mfpo.training.trainer import PreferenceTrainer


@dataclass(frozen=True, slots=True)
class TrainResult:
    """What a training did.

    Attributes:
        output_dir: Folder of the checkpoint, with ``config.yaml``, ``metrics.jsonl`` and ``skipped.jsonl``.
        vlm: The trained model with its processor, in evaluation mode.
        history: The lines of ``metrics.jsonl``.
        steps: Optimizer steps.
        rows: Rows that could be trained on.
        skipped: Rows that could not be read.
        seconds: Time that the steps took, checks and reference pass not included.
    """

    output_dir: Path
    vlm: VLM
    history: list[dict[str, float]]
    steps: int
    rows: int
    skipped: list[Skip]
    seconds: float


def run(config: TrainConfig, callbacks: Sequence[TrainerCallback] = ()) -> TrainResult | None:
    """Train as the configuration says; None after a dry run.

    Args:
        config: The settings.
        callbacks: What else is told of steps and metrics.

    Raises:
        UserError: A setting, the dataset or the model is wrong, or a check before training fails.
    """
    for name in ("dataset", "model_name_or_path", "output_dir"):
        if not getattr(config, name):
            raise UserError("a required setting is missing", where=f"--{name}")
    _check_ranges(config)
    make_loss(config)
    reporters(config.report_to)
    check_writable(config.output_dir)
    rows = open_dataset(config.dataset)
    device = process_device()
    half = config.use_lora and (config.load_in_4bit or wants_bf16(config, device))
    vlm = load_vlm(
        config.model_name_or_path,
        dtype=torch.bfloat16 if half else torch.float32,
        device=device,
        revision=config.revision,
        attn_implementation=config.attn_implementation,
        trust_remote_code=config.trust_remote_code,
        load_in_4bit=config.load_in_4bit,
    )
    return train(vlm, rows, config, stored_scores=Path(config.dataset) / FOLDER, callbacks=callbacks)


def train(
    vlm: VLM,
    rows: Rows,
    config: TrainConfig,
    *,
    stored_scores: Path | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> TrainResult | None:
    """Train a model that is already loaded; None after a dry run.

    Args:
        vlm: The initial model, which is the reference as well; its weights are changed in place.
        rows: The preference rows.
        config: The settings; ``dataset`` and ``model_name_or_path`` are only recorded.
        stored_scores: Folder in which ``mfpo rank`` may have stored the scores of these rows.
        callbacks: What else is told of steps and metrics.

    Raises:
        UserError: A setting is wrong, or a check before training fails.
    """
    set_seed(config.seed)
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoint_to_resume(config)
    trainer, skips, report = set_up(
        vlm, rows, config, stored_scores=stored_scores, at_start=checkpoint is None, callbacks=callbacks
    )
    writes = trainer.args.should_save
    if writes:
        print(report)
    if config.dry_run:
        return None

    if writes:
        save_config(config, output_dir / "config.yaml")
    started = time.perf_counter()
    if checkpoint is not None:
        trainer.restore_extras(checkpoint)
    with trainer.watch.signals():
        trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.perf_counter() - started
    trainer.watch.raise_if_stopped(trainer.args, trainer.state.global_step, trainer.state.max_steps)
    trainer.save_model(config.output_dir)
    trainer.write_card()
    num_rows = len(rows) - len(skips)
    skips += trainer.skips
    if writes:
        write_jsonl(output_dir / SKIPPED_FILE, (skip.to_dict() for skip in skips))
    trained = replace(vlm, model=trainer.model.eval(), name=config.output_dir)
    history, steps = trainer.state.log_history, trainer.state.global_step
    return TrainResult(output_dir, trained, history, steps, num_rows, skips, seconds)


def set_up(
    vlm: VLM,
    rows: Rows,
    config: TrainConfig,
    *,
    stored_scores: Path | None = None,
    at_start: bool = True,
    callbacks: Sequence[TrainerCallback] = (),
) -> tuple[PreferenceTrainer, list[Skip], str]:
    """Everything up to the first step: checks, reference scores, stages, trainer.

    Args:
        vlm: The initial model; frozen in part or given an adapter, in place.
        rows: The preference rows.
        config: The settings.
        stored_scores: See [`train`].
        at_start: Whether training starts with the initial model, so that the step-0 loss can be checked.
        callbacks: See [`train`].

    Returns:
        The trainer, the rows that could not be read, and a description of what is about to be trained.

    Raises:
        UserError: See [`train`].
    """
    if not len(rows):
        raise UserError("the dataset has no rows", where=config.dataset or "rows")
    loss, sequences, encoder = _objective(vlm, config)
    encoded = EncodedRows(rows, encoder)
    lengths = check_rows(encoded, vlm.model)
    notes = check_template(encoder, rows[lengths.by_length[0]])
    if hasattr(vlm.model, "merge_and_unload"):
        vlm.model = vlm.model.merge_and_unload()
    precision = precision_of(vlm, config)
    name_layers_to_shard(vlm.model)
    args = training_arguments(config, precision, vlm.device)
    targets = lora_targets(vlm.model, config.lora_target_modules) if config.use_lora else []
    autocast = autocast_context(precision, vlm.device)
    choice = choose_layout(vlm.model, encoded, sequences, autocast, config.shared_prefix)
    layout = choice.layout
    # Names the initial weights, so it is taken before an adapter joins them.
    uses_stored, tokens = _uses_stored(config, loss), loss.reference_detail == "tokens"
    needs_scores = uses_stored or config.stages in ("easy_to_hard", "hard_to_easy")
    digest = fingerprint(vlm.model, encoder, rows, precision, layout) if needs_scores else None
    model = prepare_model(vlm.model, config, name=vlm.name)
    images = ImageEncoder(model, share=not is_sharded(args))
    reference = make_reference(config.reference, vlm.model, model, images, detail=loss.reference_detail)

    stored, reference_seconds = None, None
    if digest is not None:
        folders = [Path(config.output_dir) / FOLDER, *([stored_scores] if stored_scores else [])]
        source = ReferenceSource(digest, folders, sequences, precision, layout, tokens=uses_stored and tokens)
        if config.dry_run:
            stored, reference_seconds = source.sample(model, encoded, images, lengths.by_length, args)
        else:
            stored = source.obtain(model, encoded, images, args)
    scores = stored.scores if stored is not None else None
    turns = TurnDataset(
        encoded,
        _turns(config, encoded, scores, args),
        scores if uses_stored else None,
        sequences,
        tokens=tokens,
    )
    collator = PreferenceCollator(
        sequences,
        encoder.pad_token_id,
        layout,
        config.max_tokens,
        eos_token_id=vlm.tokenizer.eos_token_id,
        segments=loss.objective.segments,
    )
    trainer = PreferenceTrainer(
        model,
        args,
        turns=turns,
        collator=collator,
        loss=loss,
        reference=reference,
        images=images,
        processor=vlm.processor,
        balance=ModalityBalance() if config.balance_modalities else None,
        callbacks=callbacks,
    )
    size = args.per_device_train_batch_size
    first = collator([turns[t] for t in range(min(len(turns), size))])["batch"]
    usable = {turn.row for turn in turns.turns}
    longest = [row for row in lengths.by_length if row in usable][:size]
    first_loss = check_first_loss(trainer, first, precision) if at_start else None
    runs = not is_sharded(args) and len(longest) > 0
    found = Preflight(
        turns=len(turns) if reference_seconds is None else _num_turns(config, len(lengths.by_length), args),
        lengths=lengths,
        targets=targets,
        notes=notes,
        first_loss=first_loss,
        longest=probe(trainer, longest_batch(trainer, longest)) if runs else None,
        first=probe(trainer, first) if runs and config.dry_run else None,
        reference_seconds=reference_seconds,
    )
    report = f"{describe(trainer, first, found)}\nlayout: {choice.reason}"
    return trainer, (stored.skips if stored is not None else []), report


def _check_ranges(config: TrainConfig) -> None:
    """What is wrong with the numbers, told before anything is loaded."""
    for name in ("num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "lora_r"):
        if getattr(config, name) < 1:
            raise UserError(f"must be at least 1, not {getattr(config, name)}", where=f"--{name}")
    for name in ("use_dora", "use_rslora", "load_in_4bit"):
        if getattr(config, name) and not config.use_lora:
            raise UserError("it is a setting of the adapter", where=f"--{name}", fix="add --use_lora")
    if config.max_tokens is not None and config.max_tokens < 1:
        raise UserError(f"must be at least 1, not {config.max_tokens}", where="--max_tokens")
    if config.max_tokens is not None and any(config.trainer.get(name) for name in ("fsdp", "deepspeed")):
        raise UserError(
            "processes that share their parameters must make the same number of forward passes",
            where=f"--max_tokens {config.max_tokens}",
            fix="set --per_device_train_batch_size instead",
        )
    if config.max_steps == 0:
        raise UserError(
            "there is nothing to train", where="--max_steps 0", fix="give a number above 0, or -1 for epochs"
        )


def wants_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Whether to compute in bfloat16: as set, or where the device can."""
    return config.bf16 if config.bf16 is not None else default_dtype(device) == torch.bfloat16


def precision_of(vlm: VLM, config: TrainConfig) -> Precision:
    """What a model with these weights computes in."""
    if vlm.model.dtype == torch.bfloat16:
        return "bfloat16"
    return "mixed" if wants_bf16(config, vlm.device) else "float32"


def _objective(vlm: VLM, config: TrainConfig) -> tuple[Loss, tuple[SequenceKind, ...], RowEncoder]:
    """The loss, the sequences it needs, and the encoder that makes them."""
    loss = make_loss(config)
    scope = config.noise_scope if config.noise_scope is not None else loss.objective.noise_scope
    sequences = sequences_of(loss)
    encoder = RowEncoder(
        vlm.processor,
        max_length=config.max_length,
        noise=NoiseOverride(scope, config.noise_step, config.noise_schedule),
        rejected_image="image_rejected" in sequences,
    )
    return loss, sequences, encoder


def _uses_stored(config: TrainConfig, loss: Loss) -> bool:
    """Whether the loss takes stored reference log-probabilities."""
    return config.reference == "precomputed" and loss.reference_detail != "none"


def _turns(
    config: TrainConfig, rows: EncodedRows, scores: ReferenceScores | None, args: TrainingArguments
) -> list[Turn]:
    """The order of training, over the rows that have scores or, where none are needed, over all."""
    usable, entropies = list(range(len(rows))), None
    if scores is not None:
        usable = [index for index, identifier in enumerate(rows.ids) if identifier in scores.index]
        positions = [scores.index[rows.ids[index]] for index in usable]
        entropies = scores.entropies[config.difficulty][positions].tolist()
    if not usable:
        raise UserError(
            "none of the rows can be used", where=config.dataset or "rows", fix=f"see {SKIPPED_FILE}"
        )
    stages = [
        replace(stage, rows=tuple(usable[row] for row in stage.rows))
        for stage in plan_stages(config.stages, len(usable), entropies, seed=config.seed)
    ]
    num_turns = _num_turns(config, len(usable), args) if config.max_steps > 0 else None
    return plan_turns(stages, num_passes=config.num_train_epochs, num_turns=num_turns, seed=config.seed)


def _num_turns(config: TrainConfig, num_rows: int, args: TrainingArguments) -> int:
    """Turns of a training on so many rows."""
    if config.max_steps > 0:
        return config.max_steps * rows_per_step(args)
    return num_rows * config.num_train_epochs
