"""Every layout gives the numbers of the plain forward pass, for every kind of model."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from mfpo.models.logprobs import PLAIN, Layout, score_responses
from mfpo.models.packing import set_tree_attention
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.collate import collate
from mfpo.preferences.encoding import SEQUENCES
from tiny_models import KINDS, tiny_model, tiny_rows

SHARED = Layout(shared=True, chunked=True)
EXACT = [kind for kind in KINDS if kind not in ("paligemma", "gemma3")]


def one_by_one(model: nn.Module, rows: list) -> torch.Tensor:
    """Sums of log-probabilities by the model's own forward pass over single, unpadded sequences."""
    sums = []
    for sequence in SEQUENCES:
        for row in rows:
            answer = row.rejected if sequence == "rejected" else row.chosen
            image = row.rejected_image if sequence == "image_rejected" else row.image
            text = {
                name: torch.cat([ids, torch.zeros_like(answer)])[None] for name, ids in row.prompt.items()
            }
            text["input_ids"][0, -len(answer) :] = answer
            text["attention_mask"].fill_(1)
            logits = model(**text, **image.tensors, use_cache=False).logits[0, -len(answer) - 1 : -1]
            sums.append(logits.float().log_softmax(-1).gather(-1, answer[:, None]).sum())
    return torch.stack(sums)


def gradients(model: nn.Module, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def assert_close(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], relative: float) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():  # a key bias has none but rounding, hence the floor
        error = (found[name] - gradient).norm()
        assert error <= relative * gradient.norm() + 1e-6, f"{name}: {error / gradient.norm()}"


def loss_of(logps: torch.Tensor) -> torch.Tensor:
    """Every sequence counts, each by another weight and sign."""
    return (logps * torch.linspace(-1, 1.5, len(logps))).sum()


@pytest.mark.parametrize("kind", EXACT)
@pytest.mark.parametrize("case", ["full", "full-checkpointing", "lora", "lora-checkpointing"])
def test_shared_prompts_are_exact(kind: str, case: str) -> None:
    model, rows = tiny_model(kind), tiny_rows(kind)
    if case.startswith("lora"):
        targets = r".*(language_model|text_model)\.layers.*(q_proj|v_proj|up_proj)"
        model = get_peft_model(model, LoraConfig(r=4, target_modules=targets, init_lora_weights=False))
    if case.endswith("checkpointing"):
        model.gradient_checkpointing_enable({"use_reentrant": False})
        if case.startswith("lora"):
            model.enable_input_require_grads()
    model.train()
    expected = one_by_one(model, rows)
    expected_gradients = gradients(model, loss_of(expected))
    set_tree_attention(model, True)
    for share in (True, False):
        images = ImageEncoder(model, share=share)
        batch = collate(rows, SEQUENCES, 0, SHARED)
        assert batch.padding == 0
        scores = score_responses(model, batch, images, entropies=True)
        assert torch.allclose(scores.logps, expected, atol=1e-5), (scores.logps - expected).abs().max()
        assert_close(gradients(model, loss_of(scores.logps)), expected_gradients, 1e-4)
    plain = score_responses(model, collate(rows, SEQUENCES, 0), ImageEncoder(model), entropies=True)
    assert torch.equal(plain.mask, scores.mask)
    assert torch.allclose(plain.token_logps, scores.token_logps, atol=1e-5)
    assert torch.allclose(plain.entropies, scores.entropies, atol=1e-5)


@pytest.mark.parametrize("kind", ["paligemma", "gemma3"])
@torch.no_grad()
def test_no_response_sees_what_follows(kind: str) -> None:
    """Prompts of these models see all of themselves; their responses must not."""
    model, rows = tiny_model(kind), tiny_rows(kind)
    before, after = [], []
    for last, results in ((5, before), (60, after)):
        for row in rows:
            row.chosen[-1] = last
        scores = score_responses(model, collate(rows, SEQUENCES[:1], 0), ImageEncoder(model))
        results.append(scores.token_logps)
    for number, row in enumerate(rows):
        end = len(row.chosen) - 1
        assert torch.equal(before[0][number, :end], after[0][number, :end])
        assert before[0][number, end] != after[0][number, end]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["llava", "qwen2_5_vl", "internvl"])
def test_eager_attention_takes_the_trees_as_a_mask(kind: str) -> None:
    rows = tiny_rows(kind)
    expected = one_by_one(tiny_model(kind), rows)
    model = tiny_model(kind, attn_implementation="eager")
    scores = score_responses(model, collate(rows, SEQUENCES, 0, SHARED), ImageEncoder(model))
    assert torch.allclose(scores.logps, expected, atol=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "mixed"])
@pytest.mark.parametrize("kind", EXACT)
def test_bfloat16_is_as_close_to_float32_as_the_plain_path(kind: str, precision: str) -> None:
    """Float32 has the rounded weights too, so that only computing differs."""
    half, exact = tiny_model(kind).bfloat16(), tiny_model(kind)
    exact.load_state_dict({n: t.to(exact.state_dict()[n].dtype) for n, t in half.state_dict().items()})
    lower = half if precision == "bfloat16" else copy.deepcopy(exact)
    rows = tiny_rows(kind, 12)

    def run(model: nn.Module, layout: Layout, autocast: bool) -> dict[str, torch.Tensor]:
        set_tree_attention(model, layout.shared)
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            scores = score_responses(model, collate(rows, SEQUENCES, 0, layout), ImageEncoder(model))
        found = gradients(model, loss_of(scores.logps))
        return {
            "log-probabilities": scores.token_logps.detach(),
            "gradients": torch.cat([gradient.float().flatten() for gradient in found.values()]),
        }

    expected = run(exact, PLAIN, False)
    plain, shared = (run(lower, layout, precision == "mixed") for layout in (PLAIN, SHARED))
    for name, truth in expected.items():
        assert (shared[name] - truth).norm() <= 1.2 * (plain[name] - truth).norm(), name


@torch.no_grad()
def test_same_inputs_give_the_same_bits_and_batch_mates_change_nothing() -> None:
    model, rows = tiny_model("llava"), tiny_rows("llava", 4)
    set_tree_attention(model, True)

    def score(chosen: list) -> torch.Tensor:
        batch = collate(chosen, SEQUENCES, 0, SHARED)
        return score_responses(model, batch, ImageEncoder(model)).logps.view(3, -1)

    assert torch.equal(score(rows), score(rows))
    assert torch.allclose(score(rows)[:, 2:], score(rows[2:]), atol=1e-6)


def test_a_batch_tells_its_sequences() -> None:
    rows = tiny_rows("llava")
    plain, shared = (collate(rows, SEQUENCES, 0, layout) for layout in (PLAIN, SHARED))
    for number in range(9):
        (ids, image), (other, same) = plain.sequence(number), shared.sequence(number)
        assert ids == other and image.key == same.key
    prompts = [len(row.prompt["input_ids"]) for row in rows]
    answers = [len(answer) for row in rows for answer in (row.chosen, row.rejected, row.chosen)]
    held = 3 * sum(prompts) + sum(answers)
    assert plain.tokens == 9 * (max(prompts) + max(answers))
    assert plain.padding == pytest.approx(1 - held / plain.tokens, abs=1e-6)
    assert shared.tokens == 2 * sum(prompts) + sum(answers) and shared.padding == 0
