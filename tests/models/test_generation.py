"""Generation: independent of the batch, seeded, and never a special token."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mfpo.models import generation
from mfpo.models.generation import SeededSampler, banned_tokens, generate, generate_batches, keep_top_p
from mfpo.models.load import VLM, load_vlm
from mfpo.records import user_message
from other_models import llava_next, qwen2_vl

QUESTIONS = [
    "Describe.",
    "Describe the image with a red mug.",
    "What?",
    "A kitchen with a blue plate and a green apple.",
]


@pytest.fixture(scope="module")
def vlm(tiny_llava: Path) -> VLM:
    return load_vlm(str(tiny_llava), device="cpu")


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)) for _ in QUESTIONS]


@pytest.fixture(scope="module")
def prompts() -> list[list[dict[str, object]]]:
    return [user_message(question) for question in QUESTIONS]


def test_greedy_answers_are_the_same_alone_and_in_any_batch(vlm, images, prompts) -> None:
    together = generate(vlm, images, prompts, max_new_tokens=12)
    in_twos = generate(vlm, images, prompts, max_new_tokens=12, batch_size=2)
    alone = [generate(vlm, [i], [p], max_new_tokens=12)[0] for i, p in zip(images, prompts, strict=True)]
    assert together == in_twos == alone
    assert len(set(together)) == len(QUESTIONS)
    assert all(answer == answer.strip() for answer in together)


def test_batches_come_longest_first_and_name_their_positions(vlm, images, prompts) -> None:
    batches = list(generate_batches(vlm, images, prompts, max_new_tokens=4, batch_size=1))
    lengths = [len(QUESTIONS[position]) for ((position, _),) in batches]
    assert lengths == sorted(map(len, QUESTIONS), reverse=True)


def test_samples_depend_on_seed_and_id_but_not_on_the_batch(vlm, images, prompts) -> None:
    ids = ["a", "b", "c", "d"]
    settings = {"max_new_tokens": 10, "temperature": 1.0, "top_p": 0.95}
    first = generate(vlm, images, prompts, ids=ids, seed=1, **settings)
    assert generate(vlm, images, prompts, ids=ids, seed=1, batch_size=1, **settings) == first
    assert generate(vlm, images[2:], prompts[2:], ids=ids[2:], seed=1, **settings) == first[2:]
    assert generate(vlm, images, prompts, ids=ids, seed=2, **settings) != first
    torch.manual_seed(123)
    before = torch.get_rng_state()
    generate(vlm, images[:1], prompts[:1], seed=1, **settings)
    assert torch.equal(torch.get_rng_state(), before)


def test_several_answers_to_a_prompt_stand_side_by_side(vlm, images, prompts) -> None:
    settings = {"max_new_tokens": 8, "temperature": 1.0, "seed": 0}
    answers = generate(vlm, images, prompts, num_return_sequences=3, batch_size=4, **settings)
    assert len(answers) == 12
    assert answers[6:9] == generate(
        vlm, images[2:3], prompts[2:3], ids=["2"], num_return_sequences=3, **settings
    )
    assert len(set(answers[:3])) == 3


@pytest.mark.parametrize("make", [None, qwen2_vl, llava_next], ids=["llava", "patches", "tiles"])
def test_a_picture_is_processed_once_for_all_answers_about_it(make, vlm, monkeypatch) -> None:
    """The inputs, and so the answers, are those of a processor that is given every picture anew."""
    vlm = vlm if make is None else make()
    rng = np.random.default_rng(1)
    shapes = [(40, 40), (32, 64), (64, 24), (40, 50)]
    pictures = [Image.fromarray(rng.integers(0, 255, (*shape, 3), dtype=np.uint8)) for shape in shapes]
    asked = [user_message(question) for question in QUESTIONS]
    processed: list[int] = []
    kind = type(vlm.processor.image_processor)
    call = kind.__call__
    monkeypatch.setattr(
        kind,
        "__call__",
        lambda self, images, *a, **k: (processed.append(len(images)), call(self, images, *a, **k))[1],
    )

    def answers() -> tuple[list[str], list[dict[str, torch.Tensor]]]:
        processed.clear()
        inputs = []

        def decoder(vlm: VLM, batch: generation.PromptBatch) -> torch.Tensor:
            assert len(batch.images) == len(batch.ids) == len(batch.inputs["input_ids"])
            inputs.append(dict(batch.inputs))
            return generation.plain_decoding(vlm, batch)

        settings = {"max_new_tokens": 6, "temperature": 1.0, "batch_size": 8, "num_return_sequences": 4}
        batches = list(generate_batches(vlm, pictures, asked, decoder=decoder, **settings))
        return sorted(answer for batch in batches for answer in batch), inputs

    found, ours = answers()
    assert processed == [2, 2]
    monkeypatch.setattr(generation, "_repeated", lambda *a: None)
    expected, theirs = answers()
    assert processed == [2, 8, 2, 8]
    assert found == expected and len({answer for _, answer in found}) > 4
    for one, other in zip(ours, theirs, strict=True):
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_inputs_that_cannot_be_told_apart_are_made_anew() -> None:
    """Tiles without a number of them for each picture."""
    text = torch.arange(6).view(2, 3)
    repeated = generation._repeated({"input_ids": text}, [0, 0, 1], 2)
    assert repeated is not None and torch.equal(repeated["input_ids"], text[[0, 0, 1]])
    tiles = {"input_ids": text, "pixel_values": torch.zeros(5, 3, 4, 4)}
    assert generation._repeated(tiles, [0, 0, 1], 2) is None


@pytest.mark.parametrize("temperature", [0.0, 5.0])
def test_banned_tokens_are_never_produced(vlm, images, prompts, temperature, monkeypatch) -> None:
    tokenizer = vlm.tokenizer
    specials = {tokenizer.pad_token_id, tokenizer.bos_token_id, vlm.model.config.image_token_id}
    assert specials <= set(banned_tokens(vlm))
    assert tokenizer.eos_token_id not in banned_tokens(vlm)
    # A model that likes nothing better than special tokens.
    eager = VLM(copy.deepcopy(vlm.model), vlm.processor, "eager")
    head = eager.model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(head.out_features))
    head.bias.data[list(specials)] = 20.0

    def special_tokens_in_answers() -> int:
        seen = []
        decode = type(tokenizer).batch_decode
        monkeypatch.setattr(
            type(tokenizer),
            "batch_decode",
            lambda self, ids, **kw: seen.append(ids) or decode(self, ids, **kw),
        )
        generate(eager, images * 8, prompts * 8, max_new_tokens=16, temperature=temperature)
        monkeypatch.setattr(type(tokenizer), "batch_decode", decode)
        # Padding after the end of an answer is not part of it.
        ended = [(ids == tokenizer.eos_token_id).cumsum(-1) > 0 for ids in seen]
        return sum(
            int((torch.isin(i, torch.tensor(list(specials))) & ~e).sum())
            for i, e in zip(seen, ended, strict=True)
        )

    assert special_tokens_in_answers() == 0
    monkeypatch.setattr(generation, "banned_tokens", lambda vlm: None)
    assert special_tokens_in_answers() > 0


def test_rows_of_the_output_matrix_without_a_token_are_banned(vlm) -> None:
    padded = VLM(copy.deepcopy(vlm.model), vlm.processor, "padded")
    size = len(vlm.tokenizer)
    padded.model.resize_token_embeddings(size + 7, mean_resizing=False)
    assert set(range(size, size + 7)) <= set(banned_tokens(padded))


def test_a_checkpoints_own_generation_settings_change_nothing(vlm, images, prompts) -> None:
    plain = generate(vlm, images, prompts, max_new_tokens=12)
    other = VLM(copy.deepcopy(vlm.model), vlm.processor, "other")
    other.model.generation_config.update(
        do_sample=True, temperature=0.01, top_k=1, repetition_penalty=9.0, no_repeat_ngram_size=1, num_beams=2
    )
    assert generate(other, images, prompts, max_new_tokens=12) == plain


def test_the_models_training_mode_is_left_as_it_was(vlm, images, prompts) -> None:
    model = VLM(copy.deepcopy(vlm.model).train(), vlm.processor, "training")
    generate(model, images[:1], prompts[:1], max_new_tokens=2)
    assert model.model.training


def test_sampler_follows_the_softmax() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -1.0, -torch.inf])
    rows = 20_000
    sampler = SeededSampler(range(rows), 1, temperature=2.0, top_p=1.0)
    tokens = sampler(torch.zeros(rows, 1, dtype=torch.long), logits.expand(rows, -1)).argmax(-1)
    shares = torch.bincount(tokens, minlength=5) / rows
    expected = (logits / 2).softmax(-1)
    assert shares[4] == 0
    assert torch.allclose(shares, expected, atol=4 * (0.25 / rows) ** 0.5)


def test_sampler_stays_among_possible_tokens_at_the_ends_of_the_interval() -> None:
    logits = torch.tensor([[-torch.inf, 1.0, -torch.inf, 0.0, -torch.inf]])
    sampler = SeededSampler([0], 2, temperature=1.0, top_p=1.0)
    sampler.uniforms_BT = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    tokens = [sampler(torch.zeros(1, 1, dtype=torch.long), logits).argmax().item() for _ in range(2)]
    assert tokens == [1, 3]


def test_top_p_keeps_the_smallest_set_that_reaches_the_share() -> None:
    probabilities = torch.tensor([[0.1, 0.5, 0.25, 0.15], [0.97, 0.01, 0.01, 0.01]])
    kept = keep_top_p(probabilities, 0.75)
    assert kept.tolist() == [pytest.approx([0, 0.5, 0.25, 0]), pytest.approx([0.97, 0, 0, 0])]


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": -1.0}, {"top_p": 0.0}, {"max_new_tokens": 0}, {"num_return_sequences": 2}],
)
def test_wrong_settings(vlm, images, prompts, wrong) -> None:
    with pytest.raises(ValueError):
        generate(vlm, images, prompts, **{"max_new_tokens": 4, **wrong})
