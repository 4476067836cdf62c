"""VCD against its formulas, written out in NumPy, with every step computed anew from the whole sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mfpo.evaluation.decoding import make_decoder
from mfpo.models.decoding import contrast as contrast_module
from mfpo.models.generation import banned_tokens, generate_batches
from mfpo.models.load import VLM, load_vlm
from mfpo.records import user_message
from other_models import llava_next, qwen2_vl

QUESTIONS = [
    "Describe.",
    "Describe the image with a red mug.",
    "A kitchen with a blue plate and a green apple.",
]


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)) for _ in QUESTIONS]


@pytest.fixture(scope="module", params=["llava", "llava-next", "qwen2-vl"])
def vlm(request, tiny_llava: Path) -> VLM:
    makers = {
        "llava": lambda: load_vlm(str(tiny_llava), device="cpu"),
        "llava-next": llava_next,
        "qwen2-vl": qwen2_vl,
    }
    vlm = makers[request.param]()
    # A random model hardly notices its picture.
    with torch.no_grad():
        for name, parameter in vlm.model.named_parameters():
            if "projector" in name or "merger" in name:
                parameter.mul_(3.0)
    return vlm


def answers_of(
    vlm: VLM, images, questions=QUESTIONS, ids=("a", "b", "c"), batch_size=3, temperature=0.0, **options
):
    decoder = make_decoder("vcd", options)
    found = {}
    for batch in generate_batches(
        vlm,
        images,
        [user_message(question) for question in questions],
        max_new_tokens=8,
        batch_size=batch_size,
        ids=list(ids),
        decoder=decoder,
        temperature=temperature,
    ):
        found.update(batch)
    return [found[row] for row in range(len(questions))]


def reference(
    vlm: VLM, image, question: str, noised, alpha: float, beta: float
) -> tuple[str, list[np.ndarray]]:
    """Greedy VCD of one row, without cache or padding; contrasted logits of every step."""
    from mfpo.models.chat import render_prompt

    text = render_prompt(vlm.processor, user_message(question))
    bos = vlm.tokenizer.bos_token
    special = not (bos and text.startswith(bos))
    inputs = vlm.processor(images=[image], text=[text], add_special_tokens=special, return_tensors="pt")
    ids, steps = inputs["input_ids"], []
    length = ids.shape[1]
    for _ in range(8):
        logits = []
        for pixels in (inputs["pixel_values"], noised):
            whole = {
                **inputs,
                "input_ids": ids,
                "attention_mask": torch.ones_like(ids),
                "pixel_values": pixels,
            }
            if "mm_token_type_ids" in whole:
                kinds = whole["mm_token_type_ids"]
                whole["mm_token_type_ids"] = torch.cat([kinds, kinds.new_zeros(1, ids.shape[1] - length)], 1)
            with torch.no_grad():
                logits.append(vlm.model(**whole).logits[0, -1].double().numpy())
        true, distorted = logits
        true[banned_tokens(vlm)] = -np.inf
        probabilities = np.exp(true - true.max())
        contrasted = (1 + alpha) * true - alpha * distorted
        contrasted[
            probabilities / probabilities.sum() < beta * (probabilities / probabilities.sum()).max()
        ] = -np.inf
        steps.append(contrasted)
        token = int(contrasted.argmax())
        if token == vlm.tokenizer.eos_token_id:
            break
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    return vlm.tokenizer.decode(ids[0, length:], skip_special_tokens=True).strip(), steps


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.1), (4.0, 0.02)])
def test_every_step_follows_the_formulas(vlm: VLM, images, alpha: float, beta: float, monkeypatch) -> None:
    seen, distorted = [], []
    contrast = contrast_module.contrast
    monkeypatch.setattr(contrast_module, "contrast", lambda *given: seen.append(contrast(*given)) or seen[-1])
    make = make_decoder("vcd", {"alpha": alpha, "beta": beta}).distort
    for image, name in zip(images, ("a", "b", "c"), strict=True):
        distorted.append(make(vlm, [image], [name])["pixel_values"])
    answers = answers_of(vlm, images, alpha=alpha, beta=beta)
    order = sorted(range(3), key=lambda row: -len(QUESTIONS[row]))
    for position, row in enumerate(order):
        answer, steps = reference(vlm, images[row], QUESTIONS[row], distorted[row], alpha, beta)
        assert answers[row] == answer
        for ours, expected in zip(seen, steps, strict=False):
            np.testing.assert_allclose(ours[position].numpy(), expected, atol=2e-4)
    # The noise matters: without it other answers come out.
    assert answers != answers_of(vlm, images, alpha=0.0)


def test_the_noise_is_that_of_the_schedule(tiny_llava: Path, images) -> None:
    from mfpo.preferences.noise import noise_level

    vlm = load_vlm(str(tiny_llava), device="cpu")
    clean = vlm.image_processor(images=images[:1], return_tensors="pt")["pixel_values"].numpy()
    for step in (500, 999):
        distort = make_decoder("vcd", {"noise_step": step}).distort
        noised = distort(vlm, images[:1], ["a"])["pixel_values"].numpy()
        signal, sigma = noise_level("vcd", step)
        noise = (noised - signal * clean) / sigma
        assert abs(noise.mean()) < 0.1 and abs(noise.std() - 1) < 0.05
    # 0.745 of the variance is left at step 500, as in the code of the paper.
    assert noise_level("vcd", 500).signal ** 2 == pytest.approx(0.745, abs=1e-3)


def test_a_row_gets_the_same_answer_alone_and_in_a_batch(vlm: VLM, images) -> None:
    together = answers_of(vlm, images, alpha=4.0)
    alone = [
        answers_of(vlm, [image], [question], [name], batch_size=1, alpha=4.0)[0]
        for image, question, name in zip(images, QUESTIONS, ("a", "b", "c"), strict=True)
    ]
    assert together == alone


def test_without_contrast_and_bound_it_is_plain_decoding(vlm: VLM, images) -> None:
    prompts = [user_message(question) for question in QUESTIONS]
    plain = dict(pair for batch in generate_batches(vlm, images, prompts, max_new_tokens=8) for pair in batch)
    assert answers_of(vlm, images, alpha=0.0, beta=0.0) == [plain[row] for row in range(3)]
    # Only the likeliest token is plausible: greedy again, whatever the contrast and the sampling.
    assert answers_of(vlm, images, alpha=3.0, beta=1.0, temperature=1.0) == [plain[row] for row in range(3)]
