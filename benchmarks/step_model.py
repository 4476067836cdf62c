"""The model and rows on which training is measured, and what a step costs on paper."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import torch
from peft import LoraConfig, get_peft_model
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from mfpo.models.vision import ImageInputs, parameter_parts
from mfpo.preferences.encoding import EncodedRow

Mode = Literal["full", "lora"]
IMAGE_TOKEN = 5


@dataclass(frozen=True, slots=True)
class Shape:
    """Sizes of the model and of its rows; the defaults are a small LLaVA-1.5 with all its image tokens.

    Attributes:
        image_tokens: Tokens of a picture; a square number of patches of 14 pixels, times ``tiles``.
        tiles: Pictures that make up one, as LLaVA-1.6 cuts them.
        prompt: Text tokens of the prompt.
        shortest: Tokens of the shortest response.
        longest: Tokens of the longest response.
        vocabulary: Size of the vocabulary.
        lora_rank: Rank of the adapter on every linear layer of the language model.
    """

    image_tokens: int = 576
    tiles: int = 1
    prompt: int = 40
    shortest: int = 60
    longest: int = 120
    vocabulary: int = 32_000
    hidden: int = 512
    layers: int = 8
    heads: int = 8
    intermediate: int = 1376
    vision_hidden: int = 128
    vision_layers: int = 24
    lora_rank: int = 16


def make_model(shape: Shape, mode: Mode, seed: int = 0) -> Any:
    """A random LLaVA whose language model is trained, in whole or by an adapter."""
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(make_config(shape))
    for _, parameter, part in parameter_parts(model):
        parameter.requires_grad_(part == "language" and mode == "full")
    if mode == "lora":
        targets = r".*language_model\..*(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
        model = get_peft_model(model, LoraConfig(r=shape.lora_rank, target_modules=targets))
    return model.train()


def make_config(shape: Shape, image_token: int = IMAGE_TOKEN) -> LlavaConfig:
    """A LLaVA of these sizes."""
    side = int((shape.image_tokens // shape.tiles) ** 0.5)
    vision = CLIPVisionConfig(
        hidden_size=shape.vision_hidden,
        intermediate_size=4 * shape.vision_hidden,
        num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_hidden // 64,
        image_size=14 * side,
        patch_size=14,
    )
    text = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=8192,
    )
    return LlavaConfig(vision_config=vision, text_config=text, image_token_id=image_token)


def reference_copy(model: Any) -> Any:
    """The frozen initial model."""
    return copy.deepcopy(model).requires_grad_(False).eval()


class RandomRows(list):
    """Encoded rows of random tokens and pixels, usable where rows encoded from a dataset are."""

    encoder = SimpleNamespace(pad_token_id=0)

    def __init__(self, shape: Shape, count: int, seed: int = 0) -> None:
        generator = torch.Generator().manual_seed(seed)
        side = 14 * int((shape.image_tokens // shape.tiles) ** 0.5)

        def words(number: int) -> torch.Tensor:
            return torch.randint(6, shape.vocabulary, (number,), generator=generator)

        def length() -> int:
            return int(torch.randint(shape.shortest, shape.longest + 1, (1,), generator=generator))

        for i in range(count):
            image = torch.full((shape.image_tokens,), IMAGE_TOKEN)
            ids = torch.cat([words(5), image, words(shape.prompt - 5)])
            pixels = torch.randn(shape.tiles, 3, side, side, generator=generator)
            noise = torch.randn(pixels.shape, generator=generator)
            pictures = [ImageInputs((i, n), {"pixel_values": pixels + n * noise}) for n in (0, 1)]
            prompt = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            self.append(EncodedRow(f"row-{i}", prompt, words(length()), words(length()), *pictures))

    @property
    def ids(self) -> list[str]:
        """Ids of the rows."""
        return [row.id for row in self]


@dataclass(frozen=True, slots=True)
class Cost:
    """What a computation takes.

    Attributes:
        flops: Multiplications and additions of matrix products.
        bytes: Float32 activations kept for the backward pass.
    """

    flops: float
    bytes: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, times: float) -> Cost:
        return Cost(self.flops * times, self.bytes * times)


def pass_cost(
    shape: Shape, mode: Mode, *, tokens: float, pairs: float, logits: float, backward: bool
) -> Cost:
    """A pass of the language model.

    A matrix product with a weight costs 2 per weight and token; going back it costs that again for the input
    and, where the weight is trained, once more. Attention costs 4 x hidden per pair of query and visible key,
    twice that going back. What a kernel computes twice to save memory is not counted: this is a bound.

    Args:
        shape: Sizes.
        mode: What is trained.
        tokens: Token positions.
        pairs: Pairs of a query and a key that it sees.
        logits: Positions whose logits are computed.
        backward: Whether the backward pass is included.
    """
    linear = shape.layers * (2 * shape.hidden * 2 * shape.hidden + 3 * shape.hidden * shape.intermediate)
    widths = 4 * 2 * shape.hidden + 3 * (shape.hidden + shape.intermediate)
    adapter = shape.layers * shape.lora_rank * widths
    weights = 3 if mode == "full" else 2
    products = 2 * (tokens * linear + logits * shape.hidden * shape.vocabulary)
    low_rank = 2 * tokens * adapter if mode == "lora" else 0.0
    attention = 4 * shape.layers * shape.hidden * pairs
    if not backward:
        return Cost(products + low_rank + attention, 0.0)
    kept = tokens * shape.layers * (14 * shape.hidden + 5 * shape.intermediate)
    return Cost(products * weights + low_rank * 3 + attention * 3, 4 * kept)


def row_costs(shape: Shape, mode: Mode, kinds: int = 3) -> dict[str, Cost]:
    """Cost of one row in each layout, responses of mean length; see [`pass_cost`].

    ``shared`` and ``plain`` are a training pass, ``shared reference`` and ``plain reference`` one of the
    reference.

    Args:
        shape: Sizes.
        mode: What is trained.
        kinds: Sequences a row; 3, or 2 without the image term.
    """
    prompt, answer = shape.image_tokens + shape.prompt, (shape.shortest + shape.longest) / 2
    alone = prompt + answer
    plain = {"tokens": kinds * alone, "pairs": kinds * alone**2 / 2, "logits": kinds * answer}
    trees = {
        "tokens": (kinds - 1) * prompt + kinds * answer,
        "pairs": (kinds - 1) * alone**2 / 2 + answer * prompt + answer**2 / 2,
        "logits": kinds * answer,
    }
    costs = {}
    for name, sizes in (("shared", trees), ("plain", plain)):
        costs[name] = pass_cost(shape, mode, **sizes, backward=True)
        costs[f"{name} reference"] = pass_cost(shape, mode, **sizes, backward=False)
    return costs


def vision_cost(shape: Shape) -> float:
    """Operations of the vision tower and the projector for one picture."""
    patches = shape.image_tokens // shape.tiles + 1
    layer = 12 * shape.vision_hidden**2 * 2 * patches + 4 * shape.vision_hidden * patches**2
    projector = 2 * (patches - 1) * (shape.vision_hidden * shape.hidden + shape.hidden**2)
    return shape.tiles * (shape.vision_layers * layer + projector)
