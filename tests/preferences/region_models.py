"""Random region models of a few thousand parameters, saved as ordinary checkpoint folders."""

from __future__ import annotations

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    CLIPSegConfig,
    CLIPSegForImageSegmentation,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    Owlv2Config,
    Owlv2ForObjectDetection,
    PreTrainedTokenizerFast,
    Sam2Config,
    Sam2Model,
    Sam3Config,
    Sam3Model,
)
from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
    GroundingDinoImageProcessorPil,
)
from transformers.models.owlv2.image_processing_pil_owlv2 import Owlv2ImageProcessorPil
from transformers.models.vit.image_processing_pil_vit import ViTImageProcessorPil

WORDS = ["a", "photo", "of", "red", "mug", "plate", "dog", "double", "decker", "bus"]
_CLS, _SEP, _DOT, _QUESTION = 101, 102, 1012, 1029


def bert_tokenizer() -> PreTrainedTokenizerFast:
    """Words, with the special tokens at the ids that GroundingDINO expects."""
    vocab = {"[PAD]": 0, "[UNK]": 100, "[CLS]": _CLS, "[SEP]": _SEP, ".": _DOT, "?": _QUESTION}
    vocab |= {word: 200 + index for index, word in enumerate(WORDS)}
    return _tokenizer(vocab, "[UNK]", "[CLS]", "[SEP]", "[PAD]")


def clip_tokenizer() -> PreTrainedTokenizerFast:
    """Words between a beginning and an end, which has the highest id."""
    vocab = {"<pad>": 0, "<unk>": 1, "<s>": 2} | {word: 3 + index for index, word in enumerate(WORDS)}
    vocab["</s>"] = len(vocab)
    return _tokenizer(vocab, "<unk>", "<s>", "</s>", "<pad>")


def _tokenizer(
    vocab: dict[str, int], unknown: str, first: str, last: str, pad: str
) -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel(vocab, unk_token=unknown))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A {last}", special_tokens=[(first, vocab[first]), (last, vocab[last])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token=unknown,
        pad_token=pad,
        bos_token=first,
        eos_token=last,
        cls_token=first,
        sep_token=last,
        padding_side="right",
    )


def _clip_parts(image_size: int) -> dict:
    size = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
    text = {
        "vocab_size": 64,
        "max_position_embeddings": 16,
        "eos_token_id": len(WORDS) + 3,
        "bos_token_id": 2,
    }
    return {
        "text_config": {**size, **text, "pad_token_id": 0},
        "vision_config": {**size, "image_size": image_size, "patch_size": 16},
        "projection_dim": 32,
    }


def save_clipseg(folder: Path) -> Path:
    torch.manual_seed(0)
    config = CLIPSegConfig(
        **_clip_parts(64),
        extract_layers=[0, 1, 2],
        reduce_dim=16,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )
    CLIPSegForImageSegmentation(config).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    return folder


def save_owlv2(folder: Path) -> Path:
    torch.manual_seed(0)
    Owlv2ForObjectDetection(Owlv2Config(**_clip_parts(64))).save_pretrained(folder)
    Owlv2ImageProcessorPil(size={"height": 64, "width": 64}).save_pretrained(folder)
    clip_tokenizer().save_pretrained(folder)
    return folder


def save_grounding_dino(folder: Path) -> Path:
    torch.manual_seed(0)
    backbone = {
        "model_type": "swin",
        "image_size": 64,
        "patch_size": 4,
        "embed_dim": 16,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 2, 2, 2],
        "window_size": 4,
        "out_features": ["stage2", "stage3", "stage4"],
    }
    text = {
        "model_type": "bert",
        "vocab_size": 1100,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
    }
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        d_model=32,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        num_queries=20,
        max_text_len=64,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder)
    GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(folder)
    bert_tokenizer().save_pretrained(folder)
    return folder


def save_sam2(folder: Path) -> Path:
    torch.manual_seed(0)
    backbone = {
        "hidden_size": 8,
        "num_attention_heads": 1,
        "image_size": [128, 128],
        "blocks_per_stage": [1, 2, 2, 1],
        "embed_dim_per_stage": [8, 16, 32, 64],
        "num_attention_heads_per_stage": [1, 2, 4, 8],
        "window_size_per_stage": [4, 4, 4, 4],
        "global_attention_blocks": [4],
        "window_positional_embedding_background_size": [4, 4],
    }
    vision = {
        "backbone_config": {"model_type": "sam2_hiera_det_model", **backbone},
        "backbone_channel_list": [64, 32, 16, 8],
        "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": 32,
    }
    config = Sam2Config(
        vision_config={"model_type": "sam2_vision_model", **vision},
        prompt_encoder_config={"hidden_size": 32, "image_size": 128, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": 32,
            "mlp_dim": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "iou_head_hidden_dim": 32,
        },
    )
    Sam2Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"size": {"height": 128, "width": 128}}')
    return folder


def save_sam3(folder: Path) -> Path:
    torch.manual_seed(0)
    part = {"hidden_size": 32, "num_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = Sam3Config(
        vision_config={
            "model_type": "sam3_vision_model",
            "backbone_config": {
                "model_type": "sam3_vit_model",
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 2,
                "num_attention_heads": 2,
                "image_size": 112,
                "patch_size": 14,
                "pretrain_image_size": 112,
                "window_size": 4,
                "global_attn_indexes": [1],
            },
            "fpn_hidden_size": 32,
            "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        },
        text_config={
            "vocab_size": 64,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "max_position_embeddings": 16,
            "projection_dim": 32,
            "eos_token_id": len(WORDS) + 3,
            "bos_token_id": 2,
            "pad_token_id": 0,
        },
        geometry_encoder_config=part,
        detr_encoder_config=part,
        detr_decoder_config={**part, "num_queries": 12},
        mask_decoder_config={"hidden_size": 32, "num_attention_heads": 4, "num_upsampling_stages": 3},
    )
    Sam3Model(config).save_pretrained(folder)
    (folder / "preprocessor_config.json").write_text('{"size": {"height": 112, "width": 112}}')
    clip_tokenizer().save_pretrained(folder)
    return folder
