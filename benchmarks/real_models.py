"""What a preference training of real models takes, on paper: memory of one GPU, and GPU hours.

    python benchmarks/real_models.py                  # the recipes in configs/, RLHF-V
    python benchmarks/real_models.py --rows 83132     # RLAIF-V

Every model is built from its configuration without memory for its weights ("meta"), so that the parameters
are counted and not quoted. Nothing is measured: operations are those of the shared layout (`2P + 3R` tokens
a row, one pass of the reference), divided by what a GPU reaches (`--utilization` of its peak); memory is that
of weights, gradients, AdamW's moments and what is kept for the backward pass. `mfpo train --dry_run` measures
both on the machine at hand. The last line is one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from transformers import (
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaNextConfig,
    Qwen2_5_VLConfig,
    Qwen3VLConfig,
)

from mfpo.models.vision import parameter_parts

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
PEAK_TFLOPS = {"A100": 312, "H100": 989}
"""Dense bfloat16, NVIDIA's data sheets."""
PROMPT, ANSWER = 40, 100
"""Text tokens of a prompt and of an answer; RLHF-V's answers are about that long."""


@dataclass(frozen=True, slots=True)
class Model:
    """A model as its publisher configured it.

    Attributes:
        config: Its configuration.
        image_tokens: Tokens of a photograph of 640 x 480 pixels.
        patches: Patches of it that the vision tower sees.
    """

    config: Any
    image_tokens: int
    patches: int


def vicuna(hidden: int, layers: int, intermediate: int) -> LlamaConfig:
    """The language model of LLaVA-1.5 and 1.6."""
    heads = hidden // 128
    return LlamaConfig(
        vocab_size=32064,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
    )


def models() -> dict[str, Model]:
    """The models of the recipes, by the names of their files."""
    clip = CLIPVisionConfig(
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=24,
        num_attention_heads=16,
        image_size=336,
        patch_size=14,
        projection_dim=768,
    )
    seven, thirteen = vicuna(4096, 32, 11008), vicuna(5120, 40, 13824)
    qwen25 = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": 152064,
            "hidden_size": 3584,
            "intermediate_size": 18944,
            "num_hidden_layers": 28,
            "num_attention_heads": 28,
            "num_key_value_heads": 4,
        },
        vision_config={"depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "out_hidden_size": 3584},
    )
    qwen3 = Qwen3VLConfig(
        text_config={
            "vocab_size": 151936,
            "hidden_size": 4096,
            "intermediate_size": 12288,
            "num_hidden_layers": 36,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 128,
        },
        vision_config={
            "depth": 27,
            "hidden_size": 1152,
            "intermediate_size": 4304,
            "out_hidden_size": 4096,
            "deepstack_visual_indexes": [8, 16, 24],
        },
    )
    return {
        "llava-1.5-7b": Model(LlavaConfig(vision_config=clip, text_config=seven), 576, 576),
        "llava-1.5-13b": Model(LlavaConfig(vision_config=clip, text_config=thirteen), 576, 576),
        # Tiles of 2 x 2 and the whole: four by 576 less the padding of a 4:3 picture, line ends, and 576.
        "llava-1.6-7b": Model(LlavaNextConfig(vision_config=clip, text_config=seven), 2340, 5 * 576),
        "qwen2.5-vl-7b": Model(qwen25, 23 * 17, 4 * 23 * 17),
        "qwen3-vl-8b": Model(qwen3, 20 * 15, 4 * 20 * 15),
    }


@dataclass(frozen=True, slots=True)
class Size:
    """Parameters of a model.

    Attributes:
        total: All of them.
        matrices: Those of the language model's layers that every token is multiplied with.
        output: Those of the output layer.
        vision: Those of the vision tower and the projector.
    """

    total: int
    matrices: int
    output: int
    vision: int


def count(config: Any) -> Size:
    """Build the model without weights and count."""
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    parts: dict[str, int] = {}
    for _, parameter, part in parameter_parts(model):
        parts[part] = parts.get(part, 0) + parameter.numel()
    text = config.get_text_config()
    table = text.vocab_size * text.hidden_size
    return Size(
        total=sum(parts.values()),
        matrices=parts["language"] - 2 * table,
        output=table,
        vision=sum(value for part, value in parts.items() if part != "language"),
    )


def layer_widths(text: Any) -> tuple[int, int]:
    """Inputs and outputs of a layer's seven matrices, added up; and floats kept of a token going forward."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    queries, keys = text.num_attention_heads * head, text.num_key_value_heads * head
    inputs = 3 * text.hidden_size + queries + 2 * text.hidden_size + text.intermediate_size
    outputs = queries + 2 * keys + 2 * text.hidden_size + 2 * text.intermediate_size
    kept = 8 * text.hidden_size + 2 * queries + 4 * keys + 5 * text.intermediate_size
    return inputs + outputs, kept


def estimate(
    model: Model, size: Size, recipe: dict[str, Any], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Memory in GiB and hours of a training."""
    text = model.config.get_text_config()
    widths, kept = layer_widths(text)
    lora = bool(recipe.get("use_lora"))
    rank = recipe.get("lora_r", 128)
    adapter = rank * widths * text.num_hidden_layers
    trained = adapter if lora else size.matrices + 2 * size.output
    prompt = model.image_tokens + PROMPT
    tokens = 2 * prompt + 3 * ANSWER
    epochs, rows = recipe["num_train_epochs"], arguments.rows

    product = 2 * (tokens * size.matrices + 3 * ANSWER * size.output)
    low_rank = 2 * tokens * adapter if lora else 0
    pairs = (prompt + ANSWER) ** 2 + ANSWER * prompt + ANSWER**2 / 2
    attention = 4 * text.num_hidden_layers * text.hidden_size * pairs
    forward = product + low_rank + attention
    backward = (1 if lora else 2) * product + 2 * low_rank + 2 * attention
    checkpointed = forward if recipe.get("gradient_checkpointing") else 0
    vision = 2 * 2 * size.vision * model.patches
    step = forward + backward + checkpointed + vision
    flops = rows * (epochs * step + forward + vision)

    batch = recipe["per_device_train_batch_size"]
    layer = 2 * kept * tokens * batch
    saved = 2 * text.hidden_size * text.num_hidden_layers * tokens * batch
    activations = saved + layer if recipe.get("gradient_checkpointing") else layer * text.num_hidden_layers
    weights = 2 * size.total if lora else 4 * size.total
    states = (4 + 4 + 8) * trained if lora else (4 + 8) * trained
    hours = {name: flops / (peak * 1e12 * arguments.utilization) / 3600 for name, peak in PEAK_TFLOPS.items()}
    return {
        "parameters": size.total,
        "trained": trained,
        "tokens_a_row": tokens,
        "weights_gib": round(weights / 2**30, 1),
        "states_gib": round(states / 2**30, 1),
        "activations_gib": round(activations / 2**30, 1),
        "gpu_hours": {name: round(value, 1) for name, value in hours.items()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=5733, help="RLHF-V has 5,733, RLAIF-V 83,132")
    parser.add_argument(
        "--utilization", type=float, default=0.4, help="share of the GPU's peak, an assumption"
    )
    arguments = parser.parse_args()
    results = {}
    print(
        f"{'recipe':<22}{'params':>8}{'trained':>9}{'tokens':>8}{'weights':>9}{'states':>8}{'activ.':>8}"
        f"{'A100 h':>8}{'H100 h':>8}"
    )
    for name, model in models().items():
        size = count(model.config)
        for file in (f"{name}.yaml", f"{name}-full.yaml"):
            recipe = yaml.safe_load((CONFIGS / file).read_text())
            found = results[file] = estimate(model, size, recipe, arguments)
            hours = found["gpu_hours"]
            print(
                f"{file:<22}{found['parameters'] / 1e9:>7.2f}B{found['trained'] / 1e9:>8.2f}B"
                f"{found['tokens_a_row']:>8}{found['weights_gib']:>9}{found['states_gib']:>8}"
                f"{found['activations_gib']:>8}{hours['A100']:>8}{hours['H100']:>8}"
            )
    print(json.dumps({"rows": arguments.rows, "utilization": arguments.utilization, "recipes": results}))


if __name__ == "__main__":
    main()
