"""Tiny random models of every kind we claim to train, and rows for them made without a processor."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForImageTextToText,
    CLIPVisionConfig,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    SiglipVisionConfig,
)

from mfpo.models.vision import ImageInputs
from mfpo.preferences.encoding import EncodedRow

IMAGE, VISION_START, VISION_END, VIDEO, VOCABULARY = 90, 91, 92, 93, 96
TEXT = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
}
CLIP = CLIPVisionConfig(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=32,
    patch_size=8,
    projection_dim=32,
)
SIGLIP = SiglipVisionConfig(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    image_size=32,
    patch_size=8,
    vision_use_head=False,
)
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
Pictures = Callable[[int], tuple[int, dict[str, Tensor]]]
"""From the number of a row: how many image tokens its picture takes, and the processor's tensors."""


def _square(tokens: int) -> Pictures:
    return lambda i: (tokens, {"pixel_values": torch.randn(1, 3, 32, 32)})


def _llava() -> tuple[dict, Pictures]:
    config = {"vision_config": CLIP.to_dict(), "text_config": LlamaConfig(**TEXT).to_dict()}
    return {**config, "model_type": "llava", "image_seq_length": 16}, _square(16)


PINPOINTS = [[32, 64], [64, 32], [64, 64]]


def _llava_next() -> tuple[dict, Pictures]:
    config = {"vision_config": CLIP.to_dict(), "text_config": LlamaConfig(**TEXT).to_dict()}
    config |= {"model_type": "llava_next", "image_grid_pinpoints": PINPOINTS, "vision_feature_layer": -1}

    def pictures(i: int) -> tuple[int, dict[str, Tensor]]:
        # A base picture of 4 x 4 patches, and two tiles side by side with a newline after each line.
        size, tokens = [((32, 64), 16 + 4 * 9), ((64, 32), 16 + 8 * 5)][i % 2]
        return tokens, {"pixel_values": torch.randn(1, 3, 3, 32, 32), "image_sizes": torch.tensor([size])}

    return config, pictures


def _llava_onevision() -> tuple[dict, Pictures]:
    config, pictures = _llava_next()
    text = Qwen2Config(**TEXT).to_dict()
    config |= {"model_type": "llava_onevision", "vision_config": SIGLIP.to_dict(), "text_config": text}
    return {**config, "vision_feature_select_strategy": "full"}, pictures


def _grid(patch: int) -> Pictures:
    def pictures(i: int) -> tuple[int, dict[str, Tensor]]:
        height, width = [(4, 6), (6, 2), (4, 4)][i % 3]
        pixels = torch.randn(height * width, 3 * 2 * patch * patch)
        return height * width // 4, {
            "pixel_values": pixels,
            "image_grid_thw": torch.tensor([[1, height, width]]),
        }

    return pictures


def _qwen(kind: str) -> tuple[dict, Pictures]:
    vision = {"depth": 2, "hidden_size": 32, "num_heads": 2, "patch_size": 8, "temporal_patch_size": 2}
    if kind == "qwen2_vl":
        vision |= {"embed_dim": 32, "mlp_ratio": 2}
    else:
        vision |= {"out_hidden_size": 32, "intermediate_size": 64}
    if kind == "qwen2_5_vl":
        vision |= {"fullatt_block_indexes": [1], "window_size": 32}
    if kind == "qwen3_vl":
        vision |= {"deepstack_visual_indexes": [0, 1], "num_position_embeddings": 16}
    text = {**TEXT, "rope_parameters": MROPE}
    if kind == "qwen3_vl":
        text |= {"head_dim": 8}
    config = {
        "model_type": kind,
        "text_config": text,
        "vision_config": vision,
        "image_token_id": IMAGE,
        "video_token_id": VIDEO,
        "vision_start_token_id": VISION_START,
        "vision_end_token_id": VISION_END,
    }
    return config, _grid(8)


def _idefics3(kind: str = "idefics3") -> tuple[dict, Pictures]:
    vision = {key: SIGLIP.to_dict()[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers")}
    vision |= {"num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    config = {"model_type": kind, "vision_config": vision, "text_config": LlamaConfig(**TEXT).to_dict()}

    def pictures(i: int) -> tuple[int, dict[str, Tensor]]:
        tiles = 1 + i % 2
        pixels = {"pixel_values": torch.randn(1, tiles, 3, 32, 32)}
        return 4 * tiles, {**pixels, "pixel_attention_mask": torch.ones(1, tiles, 32, 32, dtype=torch.bool)}

    return {**config, "scale_factor": 2, "image_token_id": IMAGE, "pad_token_id": 0}, pictures


def _internvl() -> tuple[dict, Pictures]:
    vision = {
        "model_type": "internvl_vision",
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": [32, 32],
        "patch_size": [8, 8],
    }
    config = {"model_type": "internvl", "vision_config": vision, "text_config": Qwen2Config(**TEXT).to_dict()}

    def pictures(i: int) -> tuple[int, dict[str, Tensor]]:
        tiles = 1 + i % 3
        return 4 * tiles, {"pixel_values": torch.randn(tiles, 3, 32, 32)}

    return {**config, "image_token_id": IMAGE, "downsample_ratio": 0.5}, pictures


def _gemma(kind: str) -> tuple[dict, Pictures]:
    text = {**TEXT, "head_dim": 8, "model_type": "gemma" if kind == "paligemma" else "gemma3_text"}
    if kind == "gemma3":
        text |= {"sliding_window": 16, "layer_types": ["sliding_attention", "full_attention"]}
    config = {"model_type": kind, "vision_config": SIGLIP.to_dict(), "text_config": text}
    config |= {"image_token_id": IMAGE, "image_token_index": IMAGE, "projection_dim": 32}
    config |= {"mm_tokens_per_image": 4, "boi_token_index": VISION_START, "eoi_token_index": VISION_END}
    return config, _square(16 if kind == "paligemma" else 4)


KINDS: dict[str, Callable[[], tuple[dict, Pictures]]] = {
    "llava": _llava,
    "llava_next": _llava_next,
    "llava_onevision": _llava_onevision,
    "qwen2_vl": lambda: _qwen("qwen2_vl"),
    "qwen2_5_vl": lambda: _qwen("qwen2_5_vl"),
    "qwen3_vl": lambda: _qwen("qwen3_vl"),
    "idefics3": _idefics3,
    "smolvlm": lambda: _idefics3("smolvlm"),
    "internvl": _internvl,
    "paligemma": lambda: _gemma("paligemma"),
    "gemma3": lambda: _gemma("gemma3"),
}
"""Every kind by its ``model_type``."""


def tiny_config(kind: str, *, vocabulary: int = VOCABULARY, **tokens: int) -> PreTrainedConfig:
    """Configuration of a model of that kind with two layers of width 32.

    Args:
        kind: A key of ``KINDS``.
        vocabulary: Size of the vocabulary.
        tokens: Ids of special tokens, such as ``image_token_id``.
    """
    settings, _ = KINDS[kind]()
    settings["text_config"]["vocab_size"] = vocabulary
    return AutoConfig.for_model(**{"image_token_id": IMAGE, **settings, **tokens})


def tiny_model(kind: str, **kwargs: object) -> PreTrainedModel:
    """A random model of that kind, in evaluation mode."""
    config = tiny_config(kind)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, **kwargs).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        # Weights of the usual initialisation are so small that no token would care for another.
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(
                    torch.randn(parameter.shape, generator=generator) * parameter[0].numel() ** -0.5
                )
    return model


def tiny_rows(kind: str, count: int = 3) -> list[EncodedRow]:
    """Rows of different lengths whose pictures differ in size where the kind allows it."""
    _, pictures = KINDS[kind]()
    torch.manual_seed(2)
    rows = []
    for i in range(count):
        tokens, image = pictures(i)
        rejected = {
            name: tensor + 0.5 * torch.randn_like(tensor) if name == "pixel_values" else tensor
            for name, tensor in image.items()
        }
        text = torch.randint(1, IMAGE, (3 + 2 * i,))
        ids = torch.cat([text[:2], torch.tensor([VISION_START]), torch.full((tokens,), IMAGE), text[2:]])
        prompt = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if kind.startswith("qwen"):
            prompt["mm_token_type_ids"] = (ids == IMAGE).long()
        if kind in ("paligemma", "gemma3"):
            prompt["token_type_ids"] = (ids == IMAGE).long() * (kind == "gemma3")
        answers = [torch.randint(1, IMAGE, (length,)) for length in (4 + i, 9 - 2 * (i % 4))]
        pair = (ImageInputs((i, name), tensors) for name, tensors in (("m", image), ("m'", rejected)))
        rows.append(EncodedRow(str(i), prompt, *answers, *pair))
    return rows
