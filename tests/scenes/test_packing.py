from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutputWithPooling

from mfpo.models.chat import render_prompt, render_response
from mfpo.models.load import VLM
from mfpo.records import assistant_message, user_message
from mfpo.scenes.examples import Talk, checklist, description, question
from mfpo.scenes.llava import LlavaSize, create_llava
from mfpo.scenes.optimizer import Optimizer
from mfpo.scenes.packing import Packer
from mfpo.scenes.world import World, sample_scene

SIZE = LlavaSize(image_size=32, vision_width=32, vision_layers=1, text_width=32, text_layers=2)
SCENE = sample_scene("sft", 3)


def talks(seed: int) -> list[Talk]:
    rng, world = np.random.default_rng(seed), World()
    said = description(SCENE, world, rng, absent_rate=0.5, drop_rate=0.1)
    return [said, question(SCENE, world, rng), checklist(SCENE, world, rng)]


@pytest.fixture(scope="module")
def vlm() -> VLM:
    texts = [f"USER: {q} ASSISTANT:{''.join(t for t, _ in a)}" for seed in range(40) for q, a in talks(seed)]
    return create_llava(texts, SIZE)


@torch.no_grad()
def test_conversations_that_share_a_picture_are_as_if_alone(vlm: VLM) -> None:
    said = talks(100)
    features = torch.randn(1, vlm.model.config.image_seq_length, 32)
    images = {"image": BaseModelOutputWithPooling(pooler_output=list(features))}
    batch = Packer(vlm).pack([said])
    together = vlm.model(
        input_ids=batch.ids,
        attention_mask=batch.visible,
        position_ids=batch.positions,
        mm_encoder_outputs=images,
    ).logits
    alone = []
    for asked, answer in said:
        prompt = user_message(asked)
        reply = assistant_message("".join(text for text, _ in answer).strip())
        text = render_prompt(vlm.processor, prompt) + render_response(vlm.processor, prompt, reply)
        text = text.replace("<image>", "<image>" * vlm.model.config.image_seq_length)
        ids = torch.tensor([vlm.tokenizer(text)["input_ids"]])
        alone.append(vlm.model(input_ids=ids, mm_encoder_outputs=images).logits)
    prefix = together.shape[1] - sum(one.shape[1] for one in alone)
    prefix = -prefix // (len(said) - 1)
    assert torch.allclose(together[:, :prefix], alone[0][:, :prefix], atol=1e-5)
    tails = torch.cat([one[:, prefix:] for one in alone], dim=1)
    assert torch.allclose(together[:, prefix:], tails, atol=1e-5)


def test_only_what_is_to_be_learned_has_labels(vlm: VLM) -> None:
    said: list[Talk] = [("List.", ((" mug", False), (" red left,", True), (" car", False), (" no,", True)))]
    batch = Packer(vlm).pack([said])
    learned = batch.labels[batch.labels != -100]
    assert vlm.tokenizer.decode(learned) == " red left, no,</s>"
    assert torch.equal(batch.ids[batch.labels != -100], learned)


def test_a_checklist_holds_what_is_there_and_something_that_is_not() -> None:
    rng = np.random.default_rng(0)
    _, answer = checklist(SCENE, World(), rng)
    listed = {kind.strip(): words for (kind, _), (words, _) in zip(answer[0::2], answer[1::2], strict=True)}
    for kind, words in listed.items():
        item = SCENE.find(kind)
        expected = {"no"} if item is None else {item.colour, item.position}
        assert set(words.strip(" ,").split()) == expected
    assert {kind in SCENE.kinds for kind in listed} == {True, False}
    assert [learned for _, learned in answer] == [False, True] * len(listed)


def test_parts_side_by_side_are_the_batch_in_one() -> None:
    torch.manual_seed(0)
    inputs, targets = torch.randn(8, 4), torch.randn(8, 1)

    def trained(parts: list[slice]) -> list[torch.Tensor]:
        torch.manual_seed(1)
        net = nn.Sequential()
        net.layers = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
        before = torch.get_num_threads()
        with Optimizer([net], 1e-2, 5) as optimizer:
            for _ in range(5):
                optimizer.step(lambda rows: (net(inputs[rows]) - targets[rows]).square().sum(), parts)
        assert torch.get_num_threads() == before
        return [parameter.detach() for parameter in net.parameters()]

    one, two = trained([slice(0, 8)]), trained([slice(0, 4), slice(4, 8)])
    for a, b in zip(one, two, strict=True):
        assert torch.allclose(a, b, atol=1e-6)
