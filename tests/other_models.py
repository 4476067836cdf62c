"""Tiny random models with their processors that lay pictures out in other ways than LLaVA-1.5."""

from __future__ import annotations

import torch
from transformers import AutoModelForImageTextToText, LlavaNextProcessor, ProcessorMixin, Qwen2VLProcessor
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from mfpo.models.load import VLM
from mfpo.scenes.llava import CHAT_TEMPLATE, train_tokenizer
from tiny_models import PINPOINTS, tiny_config

TEXTS = ["USER: Describe the image. ASSISTANT: A kitchen with a red mug, a blue plate and a green apple."] * 4


class PatchProcessor(Qwen2VLProcessor):
    """Qwen2-VL's processor without its video processor, which needs torchvision."""

    def __init__(self, image_processor, tokenizer, chat_template=None):
        self.image_token, self.image_token_id = tokenizer.image_token, tokenizer.image_token_id
        ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)


def qwen2_vl() -> VLM:
    tokenizer = train_tokenizer(TEXTS, 320)
    tokenizer.add_tokens(["<|vision_start|>", "<|vision_end|>", "<|video_pad|>"], special_tokens=True)
    processor = PatchProcessor(
        image_processor=Qwen2VLImageProcessorPil(
            patch_size=8, merge_size=2, size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
        ),
        tokenizer=tokenizer,
        chat_template=CHAT_TEMPLATE.replace("<image>", "<|vision_start|><image><|vision_end|>"),
    )
    return _vlm(
        "qwen2_vl",
        processor,
        image_token_id=tokenizer.image_token_id,
        video_token_id=tokenizer.convert_tokens_to_ids("<|video_pad|>"),
        vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
        vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
    )


def llava_next() -> VLM:
    tokenizer = train_tokenizer(TEXTS, 320)
    processor = LlavaNextProcessor(
        image_processor=LlavaNextImageProcessorPil(
            size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}, image_grid_pinpoints=PINPOINTS
        ),
        tokenizer=tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    return _vlm("llava_next", processor, image_token_id=tokenizer.convert_tokens_to_ids("<image>"))


def _vlm(kind: str, processor: ProcessorMixin, **tokens: int) -> VLM:
    config = tiny_config(kind, vocabulary=len(processor.tokenizer), **tokens)
    torch.manual_seed(0)
    return VLM(AutoModelForImageTextToText.from_config(config).eval(), processor, kind.replace("_", "-"))
