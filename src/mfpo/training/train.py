"""``mfpo train``: from preference rows and a checkpoint to a trained checkpoint."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainingArguments, set_seed

from mfpo.data.files import save_config, write_jsonl
from mfpo.data.folder import open_dataset
from mfpo.data.writer import check_writable
from mfpo.difficulty.config import require
from mfpo.errors import Skip, UserError
from mfpo.models.adapters import as_loaded
from mfpo.models.load import VLM, load_vlm, process_device
from mfpo.models.logprobs import Layout
from mfpo.preferences.encoding import NoiseOverride, Rows
from mfpo.training.arguments import checkpoint_to_resume, reporters, save_whole_models
from mfpo.training.config import SKIPPED_FILE, TrainConfig
from mfpo.training.loss import make_loss
from mfpo.training.setup import planned_precision, set_up


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
        layout: How sequences were laid out.
    """

    output_dir: Path
    vlm: VLM
    history: list[dict[str, float]]
    steps: int
    rows: int
    skipped: list[Skip]
    seconds: float
    layout: Layout


def run(config: TrainConfig, callbacks: Sequence[TrainerCallback] = ()) -> TrainResult | None:
    """Train as the configuration says; None after a dry run.

    Args:
        config: The settings.
        callbacks: What else is told of steps and metrics.

    Raises:
        UserError: A setting, the dataset or the model is wrong, or a check before training fails.
    """
    require(config, "dataset", "model_name_or_path", "output_dir")
    _check_ranges(config)
    make_loss(config)
    reporters(config.report_to)
    check_writable(config.output_dir, keep=False)
    rows = open_dataset(config.dataset)
    save_whole_models()
    device = process_device(_timeout(config))
    half = planned_precision(config, device) == "bfloat16"
    vlm = load_vlm(
        config.model_name_or_path,
        dtype=torch.bfloat16 if half else torch.float32,
        device=device,
        revision=config.revision,
        attn_implementation=config.attn_implementation,
        trust_remote_code=config.trust_remote_code,
        load_in_4bit=config.load_in_4bit,
    )
    return train(vlm, rows, config, callbacks=callbacks)


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
        stored_scores: Folder in which scores of these rows may be; where ``mfpo rank`` stores them when None.
        callbacks: What else is told of steps and metrics.

    Raises:
        UserError: A setting is wrong, or a check before training fails.
    """
    set_seed(config.seed)
    output_dir = Path(config.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    checkpoint = checkpoint_to_resume(config)
    prepared = set_up(
        vlm, rows, config, stored_scores=stored_scores, at_start=checkpoint is None, callbacks=callbacks
    )
    trainer, skips = prepared.trainer, prepared.skips
    writes = trainer.args.should_save
    if writes:
        print(prepared.report)
    if config.dry_run:
        return None

    if writes:
        save_config(config, output_dir / "config.yaml")
    started = time.perf_counter()
    if checkpoint is not None:
        trainer.restore_extras(checkpoint)
    with trainer.watch.signals():
        if config.rescore_between_stages:
            prepared.rescoring.train(checkpoint)
        else:
            trainer.train(resume_from_checkpoint=checkpoint)
    seconds = time.perf_counter() - started
    trainer.watch.raise_if_stopped(trainer.args, trainer.state.global_step, trainer.state.max_steps)
    trainer.save_model(config.output_dir)
    trainer.write_card()
    num_rows = len(rows) - len(skips)
    skips += gather_object(trainer.skips)
    if writes:
        write_jsonl(output_dir / SKIPPED_FILE, (skip.to_dict() for skip in skips))
        print(f"written to {output_dir}")
    trained = replace(vlm, model=as_loaded(trainer.model.eval()), name=config.output_dir)
    history, steps = trainer.state.log_history, trainer.state.global_step
    layout = trainer.data_collator.layout
    return TrainResult(output_dir, trained, history, steps, num_rows, skips, seconds, layout)


def _timeout(config: TrainConfig) -> timedelta:
    """How long processes wait for each other; the parent would set it when they are long connected."""
    seconds = config.trainer.get("ddp_timeout", TrainingArguments.ddp_timeout)
    if not isinstance(seconds, int | float) or seconds <= 0:
        raise UserError(f"must be a number of seconds, not {seconds!r}", where="trainer: ddp_timeout")
    return timedelta(seconds=seconds)


def _check_ranges(config: TrainConfig) -> None:
    """What is wrong with the numbers, told before anything is loaded."""
    for name in ("num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps", "lora_r"):
        if getattr(config, name) < 1:
            raise UserError(f"must be at least 1, not {getattr(config, name)}", where=f"--{name}")
    NoiseOverride.of(config)
    for name in ("use_dora", "use_rslora", "load_in_4bit"):
        if getattr(config, name) and not config.use_lora:
            raise UserError("it is a setting of the adapter", where=f"--{name}", fix="add --use_lora")
    if config.max_tokens is not None and config.max_tokens < 1:
        raise UserError(f"must be at least 1, not {config.max_tokens}", where="--max_tokens")
    if config.max_steps == 0:
        raise UserError(
            "there is nothing to train", where="--max_steps 0", fix="give a number above 0, or -1 for epochs"
        )
