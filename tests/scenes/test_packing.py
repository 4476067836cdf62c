from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mfpo.models.chat import render_prompt, render_response
from mfpo.models.load import VLM
from mfpo.records import assistant_message, user_message
from mfpo.scenes.examples import Talk, checklist, description, question
from mfpo.scenes.llava import LlavaSize, create_llava
from mfpo.scenes.packing import Packer
from mfpo.scenes.training import Recipe, loss_weights, telling_tokens, training_texts
from mfpo.scenes.world import World, sample_scene, sample_scenes

SIZE = LlavaSize(image_size=32, vision_width=32, vision_layers=1, text_width=32, text_layers=2)
SCENE = sample_scene("sft", 3)


def talks(seed: int) -> list[Talk]:
    rng, world = np.random.default_rng(seed), World()
    said = description(SCENE, world, rng, absent_rate=0.5, drop_rate=0.1)
    return [said, question(SCENE, world, rng), checklist(SCENE, world, rng)]


@pytest.fixture(scope="module")
def vlm() -> VLM:
    return create_llava(training_texts(sample_scenes("sft", 500), Recipe()), SIZE)


@torch.no_grad()
@torch.no_grad()
def test_conversations_that_share_a_picture_are_as_if_alone(vlm: VLM) -> None:
    # Two pictures with different numbers of conversations, so one row is padded.
    rows = [talks(100), talks(101)[:1]]
    features = torch.randn(2, vlm.model.config.image_seq_length, 32)
    batch = Packer(vlm).pack(rows)
    together = vlm.model(
        input_ids=batch.ids,
        attention_mask=batch.visible,
        position_ids=batch.positions,
        mm_encoder_outputs={"image": BaseModelOutputWithPooling(pooler_output=list(features))},
    ).logits
    assert together.isfinite().all()
    for row, said in enumerate(rows):
        images = {"image": BaseModelOutputWithPooling(pooler_output=[features[row]])}
        alone = [vlm.model(input_ids=plain_ids(vlm, talk), mm_encoder_outputs=images).logits for talk in said]
        picture = int((batch.ids[row] == vlm.model.config.image_token_id).nonzero().max()) + 2
        expected = torch.cat([alone[0][0, :picture], *(one[0, picture:] for one in alone)])
        assert torch.allclose(together[row, : len(expected)], expected, atol=1e-5)
        assert (batch.labels[row, len(expected) :] == -100).all()


def plain_ids(vlm: VLM, talk: Talk) -> torch.Tensor:
    """A conversation as the chat template words it."""
    asked, answer = talk
    prompt, reply = user_message(asked), assistant_message("".join(text for text, _ in answer).strip())
    text = render_prompt(vlm.processor, prompt) + render_response(vlm.processor, prompt, reply)
    text = text.replace("<image>", "<image>" * vlm.model.config.image_seq_length)
    return torch.tensor([vlm.tokenizer(text)["input_ids"]])


def test_only_what_is_to_be_learned_has_labels(vlm: VLM) -> None:
    said: list[Talk] = [("List.", ((" mug", False), (" red left,", True), (" car", False), (" no,", True)))]
    batch = Packer(vlm).pack([said])
    learned = batch.labels[batch.labels != -100]
    assert vlm.tokenizer.decode(learned) == " red left, no,</s>"
    assert torch.equal(batch.ids[batch.labels != -100], learned)


def test_words_that_tell_something_weigh_more(vlm: VLM) -> None:
    telling = telling_tokens(vlm)
    said: list[Talk] = [("List.", ((" A kitchen with a red mug.", True),))]
    labels = Packer(vlm).pack([said]).labels
    weights = loss_weights(labels, telling)
    assert vlm.tokenizer.decode(labels[weights == 1.0]) == " red mug"
    others = (labels != -100) & (weights != 1.0)
    assert weights[others].tolist() == pytest.approx([0.1] * int(others.sum()))
    assert (weights[labels == -100] == 0).all()
