"""OPERA against its procedure, written out in NumPy over whole attention maps, computed anew each step."""

from __future__ import annotations

import copy
import math
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mfpo.errors import UserError
from mfpo.evaluation.decoding import decoding_options, make_decoder
from mfpo.models.chat import render_prompt
from mfpo.models.decoding import opera as opera_module
from mfpo.models.decoding.forward import CachedForward
from mfpo.models.generation import banned_tokens, generate_batches
from mfpo.models.load import VLM, load_vlm
from mfpo.records import user_message
from other_models import llava_next, qwen2_vl

QUESTION = "Describe the image with a red mug."
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8))


def sharpened(vlm: VLM, factor: float = 6.0) -> VLM:
    """A random model attends everywhere alike; this one has favourites, so that columns form."""
    vlm = VLM(copy.deepcopy(vlm.model), vlm.processor, vlm.name)
    with torch.no_grad():
        for name, parameter in vlm.model.named_parameters():
            if "vision" not in name and "visual" not in name and ("q_proj" in name or "k_proj" in name):
                parameter.mul_(factor)
            if "lm_head" in name:
                parameter.mul_(10.0)
    return vlm


@pytest.fixture(scope="module")
def llava(tiny_llava: Path) -> VLM:
    return load_vlm(str(tiny_llava), device="cpu")


class Reference:
    """The search as the paper's code does it, without a cache: every number from a whole forward pass."""

    def __init__(self, vlm: VLM, length: int, first: int, **options: Any) -> None:
        self.vlm, self.length, self.first = vlm, length, first
        self.K, self.C = options["num_beams"], options["num_attn_candidates"]
        self.sigma, self.threshold, self.alpha = (
            options["scale_factor"], options["threshold"], options["penalty_weights"],
        )  # fmt: skip
        text = render_prompt(vlm.processor, user_message(QUESTION))
        bos = vlm.tokenizer.bos_token
        self.inputs = vlm.processor(
            images=[IMAGE], text=[text], add_special_tokens=not text.startswith(bos), return_tensors="pt"
        )
        self.prompt = self.inputs["input_ids"][0].tolist()
        self.image = np.array(self.prompt) == vlm.model.config.image_token_id
        self.banned, self.eos = banned_tokens(vlm), vlm.tokenizer.eos_token_id
        self.returns = 0
        vlm.model.set_attn_implementation("eager")

    def run_model(self, rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
        """Next-token logits, and the last layer's attention: largest head, rows normalised."""
        ids = torch.tensor([self.prompt + tokens for tokens in rows])
        pixels = self.inputs["pixel_values"].expand(len(rows), -1, -1, -1)
        with torch.no_grad():
            output = self.vlm.model(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=pixels,
                output_attentions=True,
            )
        attention = output.attentions[-1].double().numpy().max(1)
        logits = output.logits[:, -1].double().numpy()
        logits[:, self.banned] = -np.inf
        return logits, attention / attention.sum(-1, keepdims=True)

    def over_trust(self, attention: np.ndarray) -> tuple[float, int]:
        start = len(self.prompt)
        local = self.sigma * attention[start:, start:]
        scores = [1e-7 * np.prod(local[j:, j]) for j in range(len(local))]
        halves = np.minimum(scores, 65504).astype(np.float16).astype(float)
        return halves.max(), int(halves.argmax())

    def search(self) -> list[int]:
        K, C = self.K, self.C
        beams: list[tuple[list[int], float]] = [([], 0.0 if k == 0 else -1e9) for k in range(K)]
        finished: list[tuple[list[int], float]] = []
        states, history, excluded, times = [], [], {}, Counter()
        while True:
            size = len(beams[0][0])
            del history[size:], states[size:]
            logits, _ = self.run_model([tokens for tokens, _ in beams])
            states.append((list(beams), list(finished)))
            penalised, locations = [], []
            for (tokens, _), row in zip(beams, logits, strict=True):
                scores = np.full(len(row), -np.inf)
                found = []
                candidates = np.argsort(-row, kind="stable")[:C].tolist()
                _, attentions = self.run_model([[*tokens, candidate] for candidate in candidates])
                for candidate, attention in zip(candidates, attentions, strict=True):
                    score, location = self.over_trust(attention)
                    found.append(location)
                    if size + 1 <= self.first:
                        score = -attention[-1, : len(self.prompt)][self.image].sum()
                    scores[candidate] = row[candidate] - self.alpha * score
                penalised.append(scores)
                locations.append(mode(found))
            history.append(locations)
            place = self.place(history, times, size)
            if place is not None:
                self.returns += 1
                beams, finished = states[place]
                for later in [p for p in excluded if p > place]:
                    del excluded[later]
                del history[place + 1 :], states[place + 1 :]
                excluded.setdefault(place, set()).update(self.choices[place])
                penalised, _ = self.run_model([tokens for tokens, _ in beams])
                for beam, token in excluded[place]:
                    penalised[beam][token] = -np.inf
                size = place
            beams, finished, done = self.grow(beams, penalised, finished, size)
            if done:
                return max(finished, key=lambda h: h[1])[0]
            if size + 1 >= self.length:
                cut = [(tokens, score / (size + 1)) for tokens, score in beams]
                return max([*finished, *cut], key=lambda h: h[1])[0]

    def place(self, history, times, size):
        location = mode(history[-1])
        hits = [sum(h[k] == location for h in history) for k in range(self.K)]
        if location < self.first or not all(count > self.threshold for count in hits):
            return None
        for place in (location + 1, location):
            if times[place] < self.C and place < size:
                times[place] += 1
                return place
        return None

    def grow(self, beams, logits, finished, size):
        options = []
        for k, ((_, score), row) in enumerate(zip(beams, logits, strict=True)):
            kept = row[np.isfinite(row)]
            normaliser = kept.max() + math.log(np.exp(kept - kept.max()).sum())
            options += [(score + value - normaliser, k, token) for token, value in enumerate(row)]
        options.sort(key=lambda o: (-o[0], o[1], o[2]))
        best, new, finished = options[0][0], [], list(finished)
        self.choices = getattr(self, "choices", {})
        for rank, (total, k, token) in enumerate(options[: 2 * self.K]):
            if token == self.eos:
                if rank < self.K:
                    finished.append((beams[k][0], total / (size + 1)))
            elif len(new) < self.K:
                new.append(([*beams[k][0], token], total, (k, token)))
        finished = sorted(finished, key=lambda h: -h[1])[: self.K]
        self.choices[size] = [choice for _, _, choice in new]
        done = len(finished) == self.K and finished[-1][1] >= best / (size + 1)
        return [(tokens, total) for tokens, total, _ in new], finished, done


def mode(values: list[int]) -> int:
    counts = Counter(values)
    return min(value for value, count in counts.items() if count == max(counts.values()))


def tokens_of(vlm: VLM, length: int, **options: Any) -> list[int]:
    seen: list[list[int]] = []
    decoder = make_decoder("opera", options)

    def keep(vlm, batch):
        tokens = decoder(vlm, batch)
        seen.append(tokens[0].tolist())
        return tokens

    list(
        generate_batches(
            vlm, [IMAGE], [user_message(QUESTION)], max_new_tokens=length, batch_size=1, decoder=keep
        )
    )
    return seen[0]


CASES = [
    # sharpening, options, tokens, tokens before which the search does not return, returns
    (6.0, {}, 13, 10, 0),
    (6.0, {"num_beams": 4, "scale_factor": 300.0, "penalty_weights": 3.0}, 10, 4, 0),
    (1.0, {"num_beams": 2, "num_attn_candidates": 3, "scale_factor": 60.0, "threshold": 2}, 28, 1, 3),
]


@pytest.mark.parametrize(("factor", "given", "length", "first", "returns"), CASES)
def test_the_search_follows_the_procedure(
    llava: VLM, factor: float, given: dict, length: int, first: int, returns: int, monkeypatch
) -> None:
    vlm = sharpened(llava, factor)
    monkeypatch.setattr(opera_module, "FIRST_TOKENS", first)
    ours = tokens_of(vlm, length, **given)
    reference = Reference(vlm, length, first, **decoding_options("opera", given))
    assert ours == reference.search()
    assert reference.returns == returns


@pytest.mark.parametrize("model", ["llava", "llava-next", "qwen2-vl"])
def test_without_penalty_it_is_the_beam_search_of_transformers(model: str, llava: VLM, monkeypatch) -> None:
    vlm = sharpened({"llava": lambda: llava, "llava-next": llava_next, "qwen2-vl": qwen2_vl}[model]())
    # Some answers are to end early.
    head = vlm.model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(head.out_features))
    head.bias.data[vlm.tokenizer.eos_token_id] = 12.0
    options = {"num_beams": 3, "num_attn_candidates": 6, "penalty_weights": 0.0, "threshold": 10**6}
    ours = tokens_of(vlm, 12, **options)

    def beam_search(vlm: VLM, batch: Any) -> torch.Tensor:
        config = copy.deepcopy(batch.config)
        config.update(num_beams=3, early_stopping=False, length_penalty=1.0)
        output = vlm.model.generate(**batch.inputs, generation_config=config)
        return output[:, batch.inputs["input_ids"].shape[1] :]

    prompts = [user_message(QUESTION)]
    ((_, expected),) = next(
        generate_batches(vlm, [IMAGE], prompts, max_new_tokens=12, decoder=beam_search, batch_size=1)
    )
    assert vlm.tokenizer.decode(ours, skip_special_tokens=True).strip() == expected


@pytest.mark.parametrize("model", ["llava", "llava-next", "qwen2-vl"])
def test_looking_ahead_at_all_candidates_is_looking_at_each(llava: VLM, model: str) -> None:
    """One pass over candidates side by side against a pass and a step back for each, of two beams."""
    vlm = sharpened({"llava": lambda: llava, "llava-next": llava_next, "qwen2-vl": qwen2_vl}[model]())
    vlm.model.set_attn_implementation("eager")
    text = render_prompt(vlm.processor, user_message(QUESTION))
    special = not text.startswith(vlm.tokenizer.bos_token or "\0")
    inputs = vlm.processor(images=[IMAGE], text=[text], add_special_tokens=special, return_tensors="pt")
    forward = CachedForward(vlm.model, inputs)
    with torch.no_grad():
        first = forward.prefill()
        forward.repeat(2)
        beams, candidates = first[0].topk(2).indices[:, None], torch.tensor([[5, 9, 7], [11, 5, 20]])
        before = forward.step(beams)
        # Not the candidates' own logits: what they see of what stands before them.
        forward.rewind(1)
        forward.step(beams)
        ahead = forward.look_ahead(candidates)
        alone = []
        for column in range(candidates.shape[1]):
            _, weights = forward.step_with_attention(candidates[:, column : column + 1])
            alone.append(weights[:, :, 0])
            forward.rewind(1)
        forward.rewind(1)
        after = forward.step(beams)
    assert torch.allclose(ahead, torch.stack(alone, dim=2), atol=1e-5)
    assert (ahead[:, :, 0] - ahead[:, :, 1]).abs().max() > 1e-3, "candidates differ in what they look at"
    assert torch.allclose(before, after, atol=1e-4), "nothing of them stays in cache, mask or positions"


def test_the_attention_kernel_is_put_back(llava: VLM) -> None:
    before = llava.model.get_decoder().config._attn_implementation
    assert before != "eager"
    tokens_of(llava, 3, num_beams=2, num_attn_candidates=2)
    assert llava.model.get_decoder().config._attn_implementation == before


def test_a_cache_that_forgets_is_refused(llava: VLM, monkeypatch) -> None:
    monkeypatch.setattr(opera_module.CachedForward, "can_rewind", False)
    with pytest.raises(UserError, match="must go back in the model's cache"):
        tokens_of(llava, 3)


def test_a_model_that_hides_its_attention_is_told(llava: VLM, monkeypatch) -> None:
    decoder = llava.model.get_decoder()
    monkeypatch.setattr(decoder, "set_attn_implementation", lambda name: None, raising=False)
    with pytest.raises(UserError, match="does not show its attention weights"):
        tokens_of(llava, 3)


@pytest.mark.parametrize(
    ("name", "given", "told"),
    [
        ("opera", {"beams": 3}, "did you mean 'num_beams'"),
        ("opera", {"num_beams": 1}, "int from 2 to 64"),
        ("opera", {"threshold": 2.5}, "int from 1"),
        ("vcd", {"alpha": "big"}, "float from 0 to 100"),
        ("vcd", {"noise_step": 1000}, "noise step 1000"),
        ("vcd", {"noise_schedule": "cosine"}, "unknown noise schedule"),
        ("greedy", {"alpha": 1}, "no options"),
    ],
)
def test_options_are_checked(name, given: dict, told: str) -> None:
    with pytest.raises(UserError, match=told):
        decoding_options(name, given)
