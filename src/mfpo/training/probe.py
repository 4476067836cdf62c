"""The longest batch, really run: what a training takes at most, known before it starts."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mfpo.errors import UserError
from mfpo.models.vision import CACHE_BYTES, ImageEncoder
from mfpo.training.batching import CurriculumDataset, ScheduledRow, TrainingBatch

if TYPE_CHECKING:
    from mfpo.training.trainer import PreferenceTrainer

ADAM_BYTES = 8
"""Two float32 moments a trained parameter."""


@dataclass(frozen=True, slots=True)
class Probe:
    """A forward and backward pass over some rows.

    Attributes:
        ids: The rows.
        tokens: Tokens of a forward pass, padding included.
        seconds: Time it took.
        peak: Memory at its peak in bytes: allocated on the GPU, or resident on the CPU; None where the system
            does not tell. Where gradients are accumulated, those of an earlier pass are part of it.
        optimizer: Bytes that AdamW's moments of the trained parameters will take.
        features: Bytes that kept features of all pictures will take; 0 where none are kept.
        total: Memory of the device in bytes.
    """

    ids: list[str]
    tokens: int
    seconds: float
    peak: int | None
    optimizer: int
    features: int
    total: int


def batch_of(trainer: PreferenceTrainer, chosen: Sequence[int]) -> list[TrainingBatch]:
    """Given rows as training would batch them: one batch, or several within a limit of tokens.

    Args:
        trainer: The trainer.
        chosen: Indices of the rows.
    """
    dataset: CurriculumDataset = copy.copy(trainer.train_dataset)
    dataset.schedule = [ScheduledRow(row, 1) for row in chosen]
    made = trainer.data_collator([dataset[place] for place in range(len(dataset))])
    return [made["batch"], *made.get("more", ())]


def probe(trainer: PreferenceTrainer, batches: Sequence[TrainingBatch]) -> Probe:
    """Run batches forward and backward, and leave no trace: no gradient, no random number, nothing cached.

    Where training accumulates gradients they are run twice, so that the second run meets the gradients of the
    first.

    Args:
        trainer: The trainer before its first step.
        batches: The rows that one forward pass takes, or the parts of it within a limit of tokens.

    Raises:
        UserError: The GPU's memory does not hold it.
    """
    model: Any = trainer.model
    device = trainer.args.device
    ids = [row for batch in batches for row in batch.ids]
    tokens = max(batch.responses.tokens for batch in batches)
    enable_checkpointing(trainer)
    with _traceless(trainer):
        _reset_peak(device)
        try:
            for _ in range(min(2, trainer.args.gradient_accumulation_steps)):
                seconds = _run(trainer, batches)
        except torch.OutOfMemoryError:
            raise UserError(
                f"the longest batch does not fit into the GPU's {_total(device) / 2**30:.0f} GiB: rows"
                f" {', '.join(ids)}, {tokens} tokens",
                where=f"--per_device_train_batch_size {len(ids)}",
                fix="lower it and raise --gradient_accumulation_steps, add --gradient_checkpointing or"
                " --use_lora, or cut long answers by --max_length",
            ) from None
        peak = _peak(device)
        features = trainer.images.kept_bytes / len(ids) * len(trainer.train_dataset.rows)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    kept = int(min(features, CACHE_BYTES))
    return Probe(ids, tokens, seconds, peak, ADAM_BYTES * trained, kept, _total(device))


def _run(trainer: PreferenceTrainer, batches: Sequence[TrainingBatch]) -> float:
    """A forward and a backward pass over each batch; the seconds it takes."""
    device = trainer.args.device
    started = time.perf_counter()
    for batch in batches:
        output, _ = trainer.evaluate_batch(trainer.model, batch.to(device))
        output.loss.mean().backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def enable_checkpointing(trainer: PreferenceTrainer) -> None:
    """Switch recomputation on if training will, as the parent does when it starts."""
    args, model = trainer.args, trainer.model
    for name in ("activation", "gradient"):
        enable = getattr(model, f"{name}_checkpointing_enable", None)
        if getattr(args, f"{name}_checkpointing", False) and enable is not None:
            kwargs = getattr(args, f"{name}_checkpointing_kwargs", None)
            enable(**{f"{name}_checkpointing_kwargs": dict(kwargs or {}) or None})
            return


@contextmanager
def _traceless(trainer: PreferenceTrainer) -> Iterator[None]:
    """Random states, gradients, mode and the cache of image features as they were before the block."""
    model: Any = trainer.model
    training, images = model.training, trainer.images
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002
    devices = [trainer.args.device] if trainer.args.device.type == "cuda" else []
    trainer.images = ImageEncoder(model, cache_bytes=images.cache_bytes, share=images.shares)
    model.train()
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
        model.train(training)
        model.zero_grad(set_to_none=True)
        trainer.images = images
        if devices:
            torch.cuda.empty_cache()


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    lines = (line.split() for line in status.splitlines() if line.startswith("VmHWM:"))
    return next((int(words[1]) * 1024 for words in lines), None)


def _total(device: torch.device) -> int:
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[1])
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemTotal:")), 0)
