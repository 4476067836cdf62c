"""A small but real ``LlavaForConditionalGeneration``, untrained, with tokenizer and processor."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from mfpo.models.load import VLM

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}USER: {% elif message['role'] == 'assistant' %} ASSISTANT:{% endif %}"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n{% endif %}{% endfor %}"
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}"
    "{% if message['role'] == 'assistant' %} {% endif %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


@dataclass(frozen=True, slots=True)
class LlavaSize:
    """Shape of the small LLaVA.

    Attributes:
        image_size: Side of the vision tower's input in pixels.
        patch_size: Side of a patch in pixels; ``(image_size / patch_size)**2`` image tokens.
        vision_width: Hidden size of the vision tower.
        vision_layers: Layers of the vision tower.
        text_width: Hidden size of the language model.
        text_layers: Layers of the language model.
        vocab_size: Upper bound of the vocabulary, bytes included.
    """

    image_size: int = 96
    patch_size: int = 16
    vision_width: int = 128
    vision_layers: int = 4
    text_width: int = 128
    text_layers: int = 3
    vocab_size: int = 640


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: scene words become single tokens, any other text is still representable."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<image>"]
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    bpe.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", bpe.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        padding_side="left",
        clean_up_tokenization_spaces=False,
    )


def create_llava(
    texts: Iterable[str], size: LlavaSize | None = None, *, seed: int = 0, name: str = "scenes"
) -> VLM:
    """An untrained LLaVA with its processor.

    Args:
        texts: Text the tokenizer is made from.
        size: Shape of the model; the scene world's when None.
        seed: Seed of the weights.
        name: Name of the model in reports.
    """
    size = size or LlavaSize()
    tokenizer = train_tokenizer(texts, size.vocab_size)
    side = {"height": size.image_size, "width": size.image_size}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(size={"shortest_edge": size.image_size}, crop_size=side),
        tokenizer=tokenizer,
        patch_size=size.patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=size.vision_width,
            intermediate_size=4 * size.vision_width,
            num_hidden_layers=size.vision_layers,
            num_attention_heads=4,
            image_size=size.image_size,
            patch_size=size.patch_size,
            projection_dim=size.vision_width,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.text_width,
            intermediate_size=3 * size.text_width,
            num_hidden_layers=size.text_layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            max_position_embeddings=1024,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            tie_word_embeddings=False,
        ),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(size.image_size // size.patch_size) ** 2,
        tie_word_embeddings=False,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
        _start_by_similarity(model)
    model.generation_config.bos_token_id = tokenizer.bos_token_id
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    return VLM(model=model.eval(), processor=processor, name=name)


@torch.no_grad()
def _start_by_similarity(model: LlavaForConditionalGeneration) -> None:
    """Let tokens attend to similar tokens from the start: query and key projections begin as the same matrix.

    Mimetic initialisation (Trockman and Kolter, 2023): attention need not first learn what alike means.
    """
    for layer in model.model.language_model.layers:
        query, key = layer.self_attn.q_proj.weight, layer.self_attn.k_proj.weight
        torch.nn.init.orthogonal_(query, gain=0.7)
        key.copy_(query)


def save_llava(vlm: VLM, folder: str) -> None:
    """Write an ordinary checkpoint folder that ``from_pretrained`` opens."""
    vlm.model.save_pretrained(folder, safe_serialization=True)
    vlm.processor.save_pretrained(folder)
