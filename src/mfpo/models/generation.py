"""Batched answers of a vision-language model: greedy or sampled, the same whatever the batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from mfpo.errors import RowError
from mfpo.models.chat import render_prompt
from mfpo.models.load import VLM
from mfpo.models.mode import evaluating
from mfpo.records import Messages, row_seed

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, slots=True)
class PromptBatch:
    """Prompts that are answered at once.

    Attributes:
        inputs: Output of the processor, left-padded, on the model's device.
        images: The picture of each prompt.
        ids: What a prompt's random choices are derived from.
        config: Length, end and banned tokens of the answers.
        sampler: Makes the answers samples; None for the likeliest tokens.
    """

    inputs: Mapping[str, Any]
    images: Sequence[Image]
    ids: Sequence[str]
    config: GenerationConfig
    sampler: SeededSampler | None = None


Decoder: TypeAlias = Callable[[VLM, PromptBatch], Tensor]
"""From prompts to the tokens ``[B, T]`` of their answers, padded at the end."""


def generate(
    vlm: VLM,
    images: Sequence[Image],
    prompts: Sequence[Messages],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    num_return_sequences: int = 1,
    ids: Sequence[str] | None = None,
) -> list[str]:
    """Answers to prompts about images, in the order of the prompts.

    Args:
        vlm: The model and its processor.
        images: One RGB image a prompt; any sequence, so images may be opened when asked for.
        prompts: Messages that end with a user turn and hold one image part.
        max_new_tokens: Tokens after which an answer is cut.
        batch_size: Answers generated at once.
        temperature: 0 for greedy answers, otherwise the logits are divided by it and the answer is sampled.
        top_p: Sample only from the smallest set of tokens that holds this share of the probability, in (0,
            1].
        seed: Seed of the samples.
        num_return_sequences: Answers for each prompt; more than one needs a temperature above 0.
        ids: What a row's samples are derived from, together with ``seed``; its position when None. With the
            same ids a row gets the same samples whatever else is generated, up to rounding of the logits.

    Returns:
        ``len(prompts) * num_return_sequences`` answers, those of one prompt side by side; special tokens left
        out and white space at the ends stripped.
    """
    answers = [""] * (len(prompts) * num_return_sequences)
    for batch in generate_batches(
        vlm,
        images,
        prompts,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        temperature=temperature,
        top_p=top_p,
        seed=seed,
        num_return_sequences=num_return_sequences,
        ids=ids,
    ):
        for position, answer in batch:
            answers[position] = answer
    return answers


def generate_batches(
    vlm: VLM,
    images: Sequence[Image],
    prompts: Sequence[Messages],
    *,
    max_new_tokens: int,
    batch_size: int = 32,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
    num_return_sequences: int = 1,
    ids: Sequence[str] | None = None,
    decoder: Decoder | None = None,
    on_broken: Callable[[int, RowError], None] | None = None,
) -> Iterator[list[tuple[int, str]]]:
    """As [`generate`], batch by batch as they are done, the longest prompts first.

    Args:
        vlm: The model and its processor.
        images: One RGB image a prompt, opened when its batch is due.
        prompts: See [`generate`].
        max_new_tokens: See [`generate`].
        batch_size: See [`generate`].
        temperature: See [`generate`].
        top_p: See [`generate`].
        seed: See [`generate`].
        num_return_sequences: See [`generate`].
        ids: See [`generate`].
        decoder: How tokens are chosen; [`plain_decoding`] when None.
        on_broken: Called with the number of a prompt whose picture cannot be opened, which is then left out;
            the error is raised when None.

    Yields:
        (position, answer) of each row of a batch; the position is that in the list that [`generate`] returns.
    """
    _check(images, prompts, max_new_tokens, temperature, top_p, num_return_sequences)
    names = ids if ids is not None else [str(row) for row in range(len(prompts))]
    texts = [render_prompt(vlm.processor, prompt) for prompt in prompts]
    rows = sorted(range(len(prompts)), key=lambda row: -len(texts[row]))
    order = [(row, copy) for row in rows for copy in range(num_return_sequences)]
    config = _generation_config(vlm, max_new_tokens)
    for start in range(0, len(order), batch_size):
        opened = _openable(order[start : start + batch_size], images, on_broken)
        batch = [(row, copy) for row, copy in order[start : start + batch_size] if row in opened]
        if not batch:
            continue
        sampler = None
        if temperature > 0:
            seeds = [row_seed(seed, f"{names[row]}:{copy}") for row, copy in batch]
            sampler = SeededSampler(seeds, max_new_tokens, temperature=temperature, top_p=top_p)
        prompt_batch = PromptBatch(
            _inputs(vlm, opened, texts, [row for row, _ in batch]),
            [opened[row] for row, _ in batch],
            [names[row] for row, _ in batch],
            config,
            sampler,
        )
        answers = _answer(vlm, prompt_batch, decoder or plain_decoding)
        yield [
            (row * num_return_sequences + copy, answer)
            for (row, copy), answer in zip(batch, answers, strict=True)
        ]


def plain_decoding(vlm: VLM, batch: PromptBatch, before: Sequence[LogitsProcessor] = ()) -> Tensor:
    """Greedy search, or samples where the batch has a sampler.

    Args:
        vlm: The model and its processor.
        batch: The prompts.
        before: What changes the logits before tokens are chosen by them.
    """
    sampler = [batch.sampler] if batch.sampler else []
    output_BT: Any = vlm.model.generate(
        **batch.inputs,
        generation_config=batch.config,
        logits_processor=LogitsProcessorList([*before, *sampler]),
    )
    return output_BT[:, batch.inputs["input_ids"].shape[1] :]


class SeededSampler(LogitsProcessor):
    """Samples each row from its own random stream, by inverting the cumulative distribution.

    One uniform number a row and step is all the randomness there is, drawn beforehand on the CPU. So a row's
    answer depends neither on its neighbours in the batch nor on the device's generator. The chosen token gets
    score 0 and all others -inf: a greedy search over these scores returns the sample.

    Args:
        seeds: Seed of every row.
        max_new_tokens: Number of steps.
        temperature: The logits are divided by it; above 0.
        top_p: Share of the probability that is sampled from, in (0, 1].
    """

    def __init__(
        self, seeds: Sequence[int], max_new_tokens: int, *, temperature: float, top_p: float
    ) -> None:
        generator = torch.Generator()
        self.uniforms_BT = torch.stack(
            [
                torch.rand(max_new_tokens, generator=generator.manual_seed(seed), dtype=torch.double)
                for seed in seeds
            ]
        )
        self.temperature, self.top_p = temperature, top_p
        self.step = 0

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        """Scores [B, V] that are 0 at the sampled tokens and -inf elsewhere."""
        # Metal has no double precision.
        dtype = torch.float32 if scores.device.type == "mps" else torch.float64
        probabilities_BV = torch.softmax(scores.to(dtype) / self.temperature, dim=-1)
        if self.top_p < 1.0:
            probabilities_BV = keep_top_p(probabilities_BV, self.top_p)
        cumulative_BV = probabilities_BV.cumsum(dim=-1)
        total_B1 = cumulative_BV[:, -1:]
        target_B1 = self.uniforms_BT[:, self.step, None].to(scores.device, dtype) * total_B1
        # The first token whose sum exceeds a target below the total has a probability above 0.
        target_B1 = torch.minimum(target_B1, torch.nextafter(total_B1, torch.zeros_like(total_B1)))
        tokens_B1 = torch.searchsorted(cumulative_BV, target_B1, right=True)
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter(-1, tokens_B1, 0.0)  # type: ignore[return-value]


def keep_top_p(probabilities_BV: torch.Tensor, top_p: float) -> torch.Tensor:
    """Probabilities [B, V], 0 outside the smallest set that reaches ``top_p``; not renormalised."""
    sorted_BV, indices_BV = probabilities_BV.sort(dim=-1, descending=True)
    above_BV = sorted_BV.cumsum(dim=-1) - sorted_BV
    kept_BV = sorted_BV.masked_fill(above_BV >= top_p, 0.0)
    return torch.zeros_like(probabilities_BV).scatter(-1, indices_BV, kept_BV)


def banned_tokens(vlm: VLM) -> list[int]:
    """Tokens that no answer may hold: special ones (image, padding, beginning) but the end of the answer.

    An image token in an answer has no image behind it and breaks every later forward pass over that answer.
    Rows of the output matrix that belong to no token (it is often padded to a round size) are banned too.
    """
    tokenizer = vlm.tokenizer
    special = {index for index, token in tokenizer.added_tokens_decoder.items() if token.special}
    special.update(tokenizer.all_special_ids, image_tokens(vlm))
    vocab_size = vlm.model.get_output_embeddings().weight.shape[0]
    special.update(range(len(tokenizer), vocab_size))
    return sorted(index for index in special - set(end_tokens(vlm)) if index < vocab_size)


def image_tokens(vlm: VLM) -> list[int]:
    """Tokens that stand for parts of a picture or a video in a prompt."""
    names = ("image_token_id", "video_token_id", "image_token_index", "video_token_index")
    found = {getattr(vlm.model.config, name, None) for name in names}
    return sorted(index for index in found if isinstance(index, int) and index >= 0)


def end_tokens(vlm: VLM) -> list[int]:
    """Tokens that end an answer: the tokenizer's EOS and those the checkpoint's generation settings name."""
    ends = vlm.model.generation_config.eos_token_id
    named = [ends] if isinstance(ends, int) else list(ends or [])
    return sorted({vlm.tokenizer.eos_token_id, *named})


def _generation_config(vlm: VLM, max_new_tokens: int) -> GenerationConfig:
    """Greedy search, with all that the checkpoint's own settings would otherwise change about it."""
    tokenizer = vlm.tokenizer
    return GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        temperature=1.0,
        top_p=1.0,
        top_k=50,
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        use_cache=True,
        eos_token_id=end_tokens(vlm),
        pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
        suppress_tokens=banned_tokens(vlm),
    )


def _openable(
    batch: Sequence[tuple[int, int]],
    images: Sequence[Image],
    on_broken: Callable[[int, RowError], None] | None,
) -> dict[int, Image]:
    """The pictures of the rows of (row, copy) pairs, each opened once; those that cannot be are left out."""
    opened: dict[int, Image] = {}
    for row in dict.fromkeys(row for row, _ in batch):
        try:
            opened[row] = images[row]
        except RowError as error:
            if on_broken is None:
                raise
            on_broken(row, error)
    return opened


def _inputs(
    vlm: VLM, images: Mapping[int, Image], texts: Sequence[str], rows: Sequence[int]
) -> Mapping[str, Any]:
    """Inputs for some rows, where a row that is there several times goes through the processor once."""
    distinct = list(dict.fromkeys(rows))
    inputs = _processed(vlm, images, texts, distinct)
    if len(distinct) == len(rows):
        return inputs
    places = [distinct.index(row) for row in rows]
    repeated = _repeated(inputs, places, len(distinct))
    return repeated if repeated is not None else _processed(vlm, images, texts, rows)


def _processed(
    vlm: VLM, images: Mapping[int, Image], texts: Sequence[str], rows: Sequence[int]
) -> Mapping[str, Any]:
    bos = vlm.tokenizer.bos_token
    inputs: Any = vlm.processor(
        images=[images[row] for row in rows],
        text=[texts[row] for row in rows],
        padding=True,
        padding_side="left",
        add_special_tokens=not (bos and texts[rows[0]].startswith(bos)),
        return_tensors="pt",
    )
    moved: Mapping[str, Any] = inputs.to(vlm.device, vlm.model.dtype)
    return moved


def _repeated(inputs: Mapping[str, Any], places: Sequence[int], count: int) -> dict[str, Tensor] | None:
    """Inputs of ``count`` prompts with one picture each, in another order and number.

    Args:
        inputs: Tensors by name. They have an entry a prompt or, where there is a grid, one a patch.
        places: Of every prompt that is wanted, its place among those that are there.
        count: Prompts that are there.

    Returns:
        None where a tensor has another number of entries, such as one a tile.
    """
    grid = inputs.get("image_grid_thw")
    patches = [] if grid is None else grid.prod(-1).tolist()
    repeated = {}
    for name, tensor in inputs.items():
        sizes = [1] * count if len(tensor) == count else patches
        if not isinstance(tensor, Tensor) or len(tensor) != sum(sizes):
            return None
        parts = tensor.split(sizes)
        repeated[name] = torch.cat([parts[place] for place in places])
    return repeated


@torch.inference_mode()
def _answer(vlm: VLM, batch: PromptBatch, decoder: Decoder) -> list[str]:
    with evaluating(vlm.model):
        tokens_BT = decoder(vlm, batch)
    return [text.strip() for text in vlm.tokenizer.batch_decode(tokens_BT, skip_special_tokens=True)]


def _check(
    images: Sequence[Image],
    prompts: Sequence[Messages],
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    num_return_sequences: int,
) -> None:
    if len(images) != len(prompts):
        raise ValueError(f"{len(images)} images for {len(prompts)} prompts")
    if max_new_tokens < 1 or num_return_sequences < 1:
        raise ValueError("max_new_tokens and num_return_sequences must be at least 1")
    if temperature < 0 or not 0 < top_p <= 1:
        raise ValueError("temperature must be at least 0 and top_p in (0, 1]")
    if num_return_sequences > 1 and temperature == 0:
        raise ValueError("greedy answers to one prompt are all the same: set a temperature")
