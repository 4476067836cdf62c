"""What is checked before training starts, so that a mistake costs a minute and not a night."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mfpo.difficulty.config import Precision
from mfpo.errors import RowError, UserError
from mfpo.preferences.encoding import EncodedRow, EncodedRows
from mfpo.training.batching import TrainingBatch
from mfpo.training.objectives import Loss
from mfpo.training.parameters import parameter_counts
from mfpo.training.trainer import PreferenceTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_CHECKED_ROWS = 256
"""Rows whose length and ending are checked, spread evenly over the dataset."""
TOLERANCE_FLOAT32, TOLERANCE_BF16 = 1e-4, 2e-2


@dataclass(frozen=True, slots=True)
class LengthCheck:
    """How long the rows are.

    Attributes:
        rows: Number of rows that were looked at.
        longest: Tokens of the longest sequence.
        longest_id: The row that has it.
        image_tokens: Most tokens that a row's images take.
        cut: Number of responses that are cut to fit.
    """

    rows: int
    longest: int
    longest_id: str
    image_tokens: int
    cut: int


def check_rows(rows: EncodedRows, model: PreTrainedModel) -> LengthCheck:
    """Check that rows fit into the length, that the length fits into the model, and that responses end.

    Args:
        rows: The rows.
        model: The model, for the positions it has.

    Raises:
        UserError: Image and prompt of every row alone fill the length, the length exceeds the model's
            positions, or a whole response does not end with EOS.
    """
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    encoder = rows.encoder
    eos: int = encoder.processor.tokenizer.eos_token_id
    encoded: list[EncodedRow] = []
    errors: list[RowError] = []
    for index in np.unique(np.linspace(0, len(rows) - 1, min(MAX_CHECKED_ROWS, len(rows))).astype(int)):
        try:
            encoded.append(rows[int(index)])
        except RowError as error:
            errors.append(error)
    if not encoded:
        where = "--max_length" if errors[0].reason == "prompt-too-long" else "dataset"
        raise UserError(f"no row can be used, the first because of {errors[0]}", where=where)
    longest = max(encoded, key=lambda row: row.length)
    if positions is not None and longest.length > positions:
        raise UserError(
            f"row {longest.id} takes {longest.length} tokens, the model has positions for {positions}",
            where="--max_length",
            fix=f"set --max_length {positions}; long responses are then cut",
        )
    for row in encoded:
        if not row.cut and (row.chosen[-1] != eos or row.rejected[-1] != eos):
            raise UserError(
                f"the answers of row {row.id} do not end with the end-of-sequence token",
                where="chat template",
                fix="the template must end an assistant turn with the tokenizer's eos_token",
            )
    token = _image_token_id(encoder.processor)
    return LengthCheck(
        rows=len(encoded),
        longest=longest.length,
        longest_id=longest.id,
        image_tokens=max(int((row.prompt["input_ids"] == token).sum()) for row in encoded),
        cut=sum(row.cut for row in encoded),
    )


@torch.no_grad()
def check_first_loss(trainer: PreferenceTrainer, batch: TrainingBatch, precision: Precision) -> float:
    """Check that the loss before the first step is what it must be while the policy is the reference.

    A wrong value means that policy and reference do not see the same thing: another model, template, image or
    precision, or dropout. Terms whose value depends on the data are checked for being finite.

    Args:
        trainer: The trainer before its first step.
        batch: Rows to check with.
        precision: What the model computes in; 1e-4 is allowed in float32, 2e-2 otherwise.

    Returns:
        The mean loss of the rows.

    Raises:
        UserError: The loss is another.
    """
    model: Any = trainer.model
    training = model.training
    model.eval()
    output, _ = trainer.evaluate_batch(model, batch.to(trainer.args.device))
    model.train(training)
    loss = output.loss.mean().item()
    if not math.isfinite(loss):
        raise UserError(f"before the first step the loss is {loss}", where="step-0 check")
    tolerance = TOLERANCE_FLOAT32 if precision == "float32" else TOLERANCE_BF16
    for term, expected in trainer.loss.terms_at_start.items():
        if expected is None:
            continue
        found = output.terms[term].mean().item()
        if abs(found - expected) <= tolerance * max(1.0, expected):
            continue
        rewards = "unknown"
        if output.rewards is not None:
            means = {
                name: values.mean().item()
                for name, values in vars(output.rewards).items()
                if values is not None
            }
            rewards = ", ".join(f"{name} {mean:+.4f}" for name, mean in means.items())
        raise UserError(
            f"before the first step the {term} term is {found:.5f} and not {expected:.5f} (all rewards must"
            f" be 0: {rewards}); policy and reference are not the same function",
            where="step-0 check",
            fix="remove the stored scores (reference/ in dataset and output_dir); --reference copy does"
            " without them and tells whether they are the cause",
        )
    return loss


def describe(
    trainer: PreferenceTrainer, batch: TrainingBatch, lengths: LengthCheck, targets: list[str]
) -> str:
    """What is about to be trained, for people: lengths, parameters, the first loss and one decoded row."""
    turns = trainer.train_dataset
    model: Any = trainer.model
    lines = [
        f"{len(turns)} turns of {len(turns.rows)} rows; longest of {lengths.rows} rows:"
        f" {lengths.longest} tokens (row {lengths.longest_id}), {lengths.image_tokens} of them for images",
        f"{lengths.cut} responses cut to fit",
        _describe_start(trainer.loss),
    ]
    for part, (trained, total) in parameter_counts(model).items():
        lines.append(f"{part}: {trained:,} of {total:,} parameters trained")
    if targets:
        lines.append(
            f"LoRA on {len(targets)} layers: {', '.join(sorted({t.rpartition('.')[2] for t in targets}))}"
        )
    return "\n".join([*lines, *_describe_row(batch, trainer.processing_class)])


def _describe_start(loss: Loss) -> str:
    if loss.at_start is not None:
        return f"step-0 loss must be {loss.at_start:.5f}"
    known = [f"{term} {value:.5f}" for term, value in loss.terms_at_start.items() if value is not None]
    return f"step-0 loss depends on the data{', and must be of ' + ', '.join(known) if known else ''}"


def _describe_row(batch: TrainingBatch, processor: Any) -> list[str]:
    """The first row of a batch as the model reads it; image tokens are counted, not shown."""
    token = _image_token_id(processor)
    size = len(batch.ids)
    lines = [f"row {batch.ids[0]}, stage {batch.stages[0].item():.0f}:"]
    for number, kind in enumerate(batch.sequences):
        ids, picture = batch.responses.sequence(number * size)
        text = processor.tokenizer.decode([other for other in ids if other != token])
        shape = "x".join(str(side) for side in picture.tensors["pixel_values"].shape)
        lines.append(f"  {kind} ({ids.count(token)} image tokens, pixel_values {shape}): {text!r}")
    return lines


def _image_token_id(processor: Any) -> int:
    token = getattr(processor, "image_token_id", None)
    return token if token is not None else processor.tokenizer.convert_tokens_to_ids("<image>")
