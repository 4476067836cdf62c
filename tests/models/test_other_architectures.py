"""Models that lay their pictures out differently: patches with a grid (Qwen2-VL) and tiles (LLaVA-1.6)."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mfpo.data.images import open_image
from mfpo.models.logprobs import score_responses
from mfpo.models.vision import ImageEncoder, parameter_parts
from mfpo.preferences.collate import collate
from mfpo.preferences.encoding import SEQUENCES, EncodedRows, RowEncoder
from mfpo.records import Noise
from other_models import llava_next, qwen2_vl
from preference_rows import make_pair, png


@pytest.fixture(scope="module", params=[qwen2_vl, llava_next])
def vlm(request):
    return request.param()


def pairs():
    """Pictures of different shapes, so that rows differ in patches, tiles and image tokens."""
    rng = np.random.default_rng(0)
    shapes = [(40, 40), (32, 64), (64, 24)]
    return [
        make_pair(
            i,
            images=(png(rng.integers(0, 256, (*shape, 3), dtype=np.uint8)),),
            regions=(),
            noise=Noise("global", seed=i),
        )
        for i, shape in enumerate(shapes)
    ]


@torch.no_grad()
@pytest.mark.parametrize("share", [True, False])
def test_scores_equal_the_processors_own_path_row_by_row(vlm, share):
    """The reference feeds one row at a time as the processor makes it from the whole conversation."""
    rows = EncodedRows(pairs(), RowEncoder(vlm.processor))
    encoded = [rows[i] for i in range(3)]
    assert len({len(row.prompt["input_ids"]) for row in encoded}) > 1
    images = ImageEncoder(vlm.model, share=share)
    assert images.shares == share
    scores = score_responses(vlm.model, collate(encoded, SEQUENCES, 0), images).logps.view(3, 3)
    for column, (pair, row) in enumerate(zip(pairs(), encoded, strict=True)):
        sequences = [(pair.chosen, row.image), (pair.rejected, row.image), (pair.chosen, row.rejected_image)]
        for line, (answer, picture) in enumerate(sequences):
            text = vlm.processor.apply_chat_template([*pair.prompt, *answer], tokenize=False)
            inputs = dict(
                vlm.processor(images=[open_image(pair.images[0])], text=[text], return_tensors="pt")
            )
            inputs["pixel_values"] = picture.tensors["pixel_values"]
            logps = vlm.model(**inputs).logits[0, :-1].log_softmax(-1)
            tokens = inputs["input_ids"][0, 1:]
            start = len(row.prompt["input_ids"]) - 1
            expected = logps.gather(-1, tokens[:, None])[start:, 0].sum()
            assert scores[line, column].item() == pytest.approx(expected.item(), abs=2e-5)


def test_parts_of_the_model(vlm):
    parts = {part for _, _, part in parameter_parts(vlm.model)}
    assert parts == {"language", "projector", "vision"}
    for name, _, part in parameter_parts(vlm.model):
        assert ("merger" in name or "projector" in name or "newline" in name) == (part == "projector"), name
