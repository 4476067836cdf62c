"""What VCD and OPERA cost, against greedy and beam search of transformers on the same model and questions.

    python benchmarks/decoding.py [--repeats 3] [--tokens 48]

The model is a random LLaVA of the scene world's size: time does not depend on the weights. No answer ends
early, so that every method makes the same number of tokens. Ratios of times in one process; the median of
the repeats.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from mfpo.evaluation.decoding import make_decoder
from mfpo.models.generation import Decoder, PromptBatch, generate_batches
from mfpo.models.load import VLM, load_vlm
from mfpo.records import user_message
from mfpo.scenes.llava import LlavaSize, create_llava, save_llava

QUESTIONS = 8


def random_llava() -> VLM:
    texts = [
        "USER: Describe the image. ASSISTANT: A kitchen with a red mug, a blue plate and a green apple."
    ] * 4
    with tempfile.TemporaryDirectory() as folder:
        save_llava(create_llava(texts, LlavaSize()), folder)
        return load_vlm(folder, device="cpu", dtype="float32")


def without_end(decoder: Decoder | None) -> Decoder:
    """The same decoder with answers of full length."""
    from mfpo.models.generation import plain_decoding

    def decode(vlm: VLM, batch: PromptBatch) -> torch.Tensor:
        config = copy.deepcopy(batch.config)
        config.suppress_tokens = sorted({*config.suppress_tokens, *config.eos_token_id})
        changed = PromptBatch(batch.inputs, batch.images, batch.ids, config, batch.sampler)
        return (decoder or plain_decoding)(vlm, changed)

    return decode


def beam_search(vlm: VLM, batch: PromptBatch) -> torch.Tensor:
    config = copy.deepcopy(batch.config)
    config.update(num_beams=5, early_stopping=False, length_penalty=1.0)
    output = vlm.model.generate(**batch.inputs, generation_config=config)
    return output[:, batch.inputs["input_ids"].shape[1] :]


def seconds(vlm: VLM, decoder: Decoder | None, batch_size: int, tokens: int) -> float:
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (96, 96, 3), dtype=np.uint8)) for _ in range(QUESTIONS)]
    prompts = [user_message("Describe the image.")] * QUESTIONS
    begun = time.perf_counter()
    for _ in generate_batches(
        vlm, images, prompts, max_new_tokens=tokens, batch_size=batch_size, decoder=without_end(decoder)
    ):
        pass
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=48)
    arguments = parser.parse_args()
    vlm = random_llava()
    measured: dict[str, Callable[[], float]] = {
        "greedy, batches of 8": lambda: seconds(vlm, None, 8, arguments.tokens),
        "vcd, batches of 8": lambda: seconds(vlm, make_decoder("vcd", {}), 8, arguments.tokens),
        "greedy, one by one": lambda: seconds(vlm, None, 1, arguments.tokens),
        "5 beams, one by one": lambda: seconds(vlm, beam_search, 1, arguments.tokens),
        "opera, one by one": lambda: seconds(vlm, make_decoder("opera", {}), 1, arguments.tokens),
    }
    times: dict[str, list[float]] = {name: [] for name in measured}
    # Turn by turn, so that a busy machine slows all of them alike.
    for _ in range(arguments.repeats):
        for name, run in measured.items():
            times[name].append(run())
    medians = {name: statistics.median(values) for name, values in times.items()}
    for name, values in times.items():
        spread = f"{min(values):.2f} to {max(values):.2f}"
        print(
            f"{name:22} {medians[name] / QUESTIONS * 1000 / arguments.tokens:7.2f} ms a token   ({spread} s)"
        )
    ratios = {
        "ratio_vcd_greedy": medians["vcd, batches of 8"] / medians["greedy, batches of 8"],
        "ratio_opera_beams": medians["opera, one by one"] / medians["5 beams, one by one"],
        "ratio_opera_greedy": medians["opera, one by one"] / medians["greedy, one by one"],
    }
    print(json.dumps({name: round(ratio, 2) for name, ratio in ratios.items()}))


if __name__ == "__main__":
    main()
