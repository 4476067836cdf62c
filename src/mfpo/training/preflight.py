"""What is checked before training starts, so that a mistake costs a minute and not a night."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mfpo.difficulty.config import Precision
from mfpo.difficulty.rank import duration
from mfpo.errors import UserError, counted
from mfpo.models.chat import continues_prompt, render_prompt, render_response
from mfpo.models.mode import evaluating
from mfpo.preferences.encoding import EncodedRows, RowEncoder, light_rows
from mfpo.preferences.lengths import RowLength, measure_rows
from mfpo.records import PreferencePair, text_of
from mfpo.training.arguments import is_all_warmup
from mfpo.training.batching import TrainingBatch
from mfpo.training.objectives import Loss
from mfpo.training.parameters import parameter_counts
from mfpo.training.probe import Probe
from mfpo.training.trainer import PreferenceTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainingArguments

TOLERANCE_FLOAT32, TOLERANCE_BF16 = 1e-4, 2e-2
NEARLY_ALL = 0.9
"""Share of the device's memory above which an estimate is called out."""


@dataclass(frozen=True, slots=True)
class LengthCheck:
    """How long the rows are.

    Attributes:
        how: Which rows were looked at, and how, for people.
        longest: Tokens of the longest sequence, cut to the length limit.
        longest_id: The row that has it.
        by_length: Indices of the rows that fit, the longest first.
        mean: Mean over rows of the tokens of the longer sequence.
        image_tokens: Most tokens that a row's images take.
        cut: Number of responses that are cut to fit.
        too_long: Number of rows whose image and prompt alone fill the length; they are left out.
    """

    how: str
    longest: int
    longest_id: str
    by_length: list[int]
    mean: float
    image_tokens: int
    cut: int
    too_long: int

    def typical(self, count: int) -> list[int]:
        """Rows spread evenly over all lengths, from the longest to the shortest."""
        places = np.linspace(0, len(self.by_length) - 1, min(count, len(self.by_length)))
        return [self.by_length[int(place)] for place in places]


def check_rows(rows: EncodedRows, model: PreTrainedModel) -> LengthCheck:
    """Check that rows fit into the length, that the length fits into the model, and that responses end.

    Args:
        rows: The rows.
        model: The model, for the positions it has.

    Raises:
        UserError: Image and prompt of every row alone fill the length, the length exceeds the model's
            positions, or a whole response does not end with EOS.
    """
    limit = rows.encoder.max_length
    lengths = measure_rows(rows)
    fitting = [row for row in lengths.rows if limit is None or row.prompt < limit]
    if not fitting:
        problem = f"prompt-too-long: image and prompt take {lengths.rows[0].prompt} tokens of {limit}"
        where = "--max_length"
        if not lengths.rows:
            problem, where = str(lengths.errors[0]), "dataset"
        raise UserError(f"no row can be used, the first because of {problem}", where=where)

    def tokens(row: RowLength) -> int:
        return row.longest if limit is None else min(row.longest, limit)

    def cut(row: RowLength) -> int:
        return sum(limit is not None and row.prompt + n > limit for n in (row.chosen, row.rejected))

    by_length = sorted(fitting, key=lambda row: (-tokens(row), row.row))
    longest = by_length[0]
    positions = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if positions is not None and tokens(longest) > positions:
        raise UserError(
            f"row {rows.ids[longest.row]} takes {tokens(longest)} tokens, the model has positions for"
            f" {positions}",
            where="--max_length",
            fix=f"set --max_length {positions}; long responses are then cut",
        )
    for row in fitting:
        if not row.ends:
            raise UserError(
                f"the answers of row {rows.ids[row.row]} do not end with the end-of-sequence token",
                where="chat template",
                fix="the template must end an assistant turn with the tokenizer's eos_token",
            )
    return LengthCheck(
        how=lengths.how,
        longest=tokens(longest),
        longest_id=rows.ids[longest.row],
        by_length=[row.row for row in by_length],
        mean=sum(map(tokens, fitting)) / len(fitting),
        image_tokens=max(row.image for row in fitting),
        cut=sum(map(cut, fitting)),
        too_long=len(lengths.rows) - len(fitting),
    )


def check_template(encoder: RowEncoder, pair: PreferencePair) -> list[str]:
    """What is odd about the chat template, shown on one row.

    Args:
        encoder: The encoder with the processor.
        pair: A row.

    Returns:
        Sentences for people, none if all is well.

    Raises:
        UserError: The template leaves the answer's text out, or writes other image placeholders than the row
            has images.
    """
    processor: Any = encoder.processor
    prompt = render_prompt(processor, pair.prompt)
    answer = text_of(pair.chosen).strip()
    response = render_response(processor, pair.prompt, pair.chosen)
    if answer.split()[:3] != response.split()[:3] and answer not in response:
        raise UserError(
            f"the rendered answer is {response[:80]!r} where the row says {answer[:80]!r}",
            where="chat template",
            fix="the template must write the assistant's text as it is, after the generation prompt",
        )
    ids = encoder.tokens(prompt)
    count = ids.count(encoder.image_token_id)
    if count != len(pair.images):
        raise UserError(
            f"the rendered prompt has {count} image placeholders for {len(pair.images)} images",
            where="chat template",
            fix="the template must write the processor's image token once for each image part",
        )
    notes = []
    bos = processor.tokenizer.bos_token_id
    if bos is not None and ids[:2] == [bos, bos]:
        notes.append("the prompt begins with two BOS tokens: template and tokenizer both write one")
    if not continues_prompt(processor, pair.prompt, pair.chosen):
        notes.append(
            "the template's rendering of a conversation does not continue its rendering of the prompt; the"
            " plain text of answers is used"
        )
    return notes


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
    with evaluating(model):
        output, _ = trainer.evaluate_batch(model, batch.to(trainer.args.device))
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


@dataclass(frozen=True, slots=True)
class Preflight:
    """What was found out before the first step.

    Attributes:
        examples: How often the training takes a row, all passes counted.
        lengths: How long the rows are.
        targets: Layers that get an adapter.
        notes: What a user should know.
        first_loss: Loss before the first step, None where training does not start with the initial model.
        longest: The longest batch, None where the model is sharded later and was not run.
        typical: A batch of rows of all lengths, timed after the longest one; only in a dry run.
        reference_seconds: What a reference pass that is still to come takes.
    """

    examples: int
    lengths: LengthCheck
    targets: list[str]
    notes: list[str]
    first_loss: float | None
    longest: Probe | None
    typical: Probe | None = None
    reference_seconds: float | None = None


def describe(trainer: PreferenceTrainer, batch: TrainingBatch, found: Preflight) -> str:
    """What is about to be trained, for people: lengths, parameters, memory, time and one decoded row."""
    lengths, args = found.lengths, trainer.args
    lines = [
        f"{counted(found.examples, 'example')} from {counted(len(trainer.train_dataset.rows), 'row')},"
        f" {counted(steps_of(found.examples, args), 'step')} of {counted(rows_per_step(args), 'row')}",
        f"lengths of {lengths.how}: at most {lengths.longest} tokens (row {lengths.longest_id}),"
        f" {lengths.image_tokens} of them for images; {lengths.mean:.0f} on average",
        f"{lengths.cut} responses cut to fit; all answers end with the end-of-sequence token",
        _describe_start(trainer.loss, found.first_loss),
    ]
    if lengths.too_long:
        lines.append(f"{lengths.too_long} rows left out: image and prompt alone fill --max_length")
    for part, (trained, total) in parameter_counts(trainer.model).items():
        lines.append(f"{part}: {trained:,} of {total:,} parameters trained")
    if found.targets:
        names = sorted({target.rpartition(".")[2] for target in found.targets})
        lines.append(f"LoRA on {len(found.targets)} layers: {', '.join(names)}")
    lines += [*_describe_memory(found.longest), *found.notes]
    if found.typical is not None:
        lines += _describe_time(found, found.typical, args)
    return "\n".join([*lines, *_describe_row(batch, trainer.processing_class)])


def regions_missing(rows: EncodedRows) -> list[str]:
    """How many rows have noise on the whole picture, because none of their keywords has a region.

    Args:
        rows: The rows; nothing is said of them where the loss takes no rejected image.
    """
    if not rows.encoder.rejected_image:
        return []
    pairs = light_rows(rows.rows, rejected=False)
    scopes = (rows.encoder.noise.apply(pair.noise).scope for pair in pairs if not pair.regions)
    missing = sum(scope in ("region", "erase") for scope in scopes)
    if not missing:
        return []
    return [
        f"{missing} of {counted(len(rows), 'row')} without a region: their whole picture gets noise"
        " (`mfpo build` looks for keywords and their regions)"
    ]


def short_schedule(examples: int, stages: int, args: TrainingArguments) -> list[str]:
    """What is odd about a training of very few steps.

    Args:
        examples: How often the training takes a row.
        stages: Stages that it has.
        args: The arguments.
    """
    steps, notes = steps_of(examples, args), []
    if is_all_warmup(args, steps):
        notes.append(f"no warm-up: of {counted(steps, 'step')} nothing would be left")
    if steps < stages:
        notes.append(
            f"{counted(steps, 'step')} for {stages} stages, which are then no stages: lower"
            " --gradient_accumulation_steps or --per_device_train_batch_size"
        )
    return notes


def rows_per_step(args: TrainingArguments) -> int:
    """Rows of an optimizer step, of all processes."""
    return int(args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size)


def steps_of(examples: int, args: TrainingArguments) -> int:
    """Optimizer steps that so many examples take."""
    return -(-examples // rows_per_step(args))


def _describe_memory(longest: Probe | None) -> list[str]:
    if longest is None:
        return ["memory was not probed: the model is sharded when training starts"]
    line = f"longest batch (rows {', '.join(longest.ids)}; {longest.tokens} tokens) was run"
    if longest.peak is None:
        return [line + "; this system does not tell its memory"]
    need = longest.peak + longest.optimizer + longest.features
    line += f": {_gib(longest.peak)} at its peak, {_gib(need)} with the state of AdamW"
    if longest.features:
        line += " and kept image features"
    if longest.total:
        line += f", of {_gib(longest.total)}"
    if longest.total and need > NEARLY_ALL * longest.total:
        line += "; this may not fit: lower --per_device_train_batch_size or add --gradient_checkpointing"
    return [line]


def _describe_time(found: Preflight, typical: Probe, args: TrainingArguments) -> list[str]:
    batches = found.examples / (args.per_device_train_batch_size * args.world_size)
    seconds = typical.seconds * batches
    lines = [
        f"training takes about {duration(seconds)}: {batches:.0f} batches like one with rows of all lengths"
    ]
    if found.reference_seconds is not None:
        lines.append(f"the reference pass before it takes about {duration(found.reference_seconds)}")
    return lines


def _gib(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"


def _describe_start(loss: Loss, found: float | None) -> str:
    if loss.at_start is not None:
        line = f"step-0 loss must be {loss.at_start:.5f}"
        return line if found is None else f"{line} and is {found:.5f}"
    known = [f"{term} {value:.5f}" for term, value in loss.terms_at_start.items() if value is not None]
    line = "step-0 loss depends on the data" + (f" and is {found:.5f}" if found is not None else "")
    return f"{line}{', and must be of ' + ', '.join(known) if known else ''}"


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
