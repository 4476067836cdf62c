from __future__ import annotations

import pytest
import torch

from mfpo.models.load import load_vlm
from mfpo.models.logprobs import IGNORE, score_responses, scores_from_logits
from mfpo.models.vision import ImageEncoder
from mfpo.preferences.collate import collate
from mfpo.preferences.encoding import SEQUENCES, EncodedRows, RowEncoder
from preference_rows import make_pairs


@pytest.fixture(scope="module")
def vlm(tiny_llava):
    return load_vlm(str(tiny_llava), device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def rows(vlm):
    return EncodedRows(make_pairs(4), RowEncoder(vlm.processor))


@torch.no_grad()
def score(vlm, rows, sequences=SEQUENCES, **kwargs):
    batch = collate(rows, sequences, vlm.tokenizer.pad_token_id)
    return score_responses(vlm.model, batch, ImageEncoder(vlm.model, cache_bytes=0), **kwargs)


def test_log_probabilities_and_entropies_by_hand():
    logits = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]]).log() + 3.0
    scores = scores_from_logits(logits, torch.tensor([[1, IGNORE]]), entropies=True)
    assert scores.logps.tolist() == pytest.approx([torch.tensor(0.25).log().item()])
    assert scores.token_logps[0, 1] == 0 and scores.entropies[0, 1] == 0
    assert scores.entropies[0, 0].item() == pytest.approx(1.5 * 0.6931472)


def test_bfloat16_logits_are_summed_in_float32():
    logits = torch.randn(1, 5, 7).bfloat16()
    scores = scores_from_logits(logits, torch.zeros(1, 5, dtype=torch.long), entropies=True)
    assert scores.token_logps.dtype == scores.entropies.dtype == torch.float32
    assert torch.allclose(scores.token_logps, logits.float().log_softmax(-1)[..., 0], atol=1e-6)


@torch.no_grad()
def test_logits_at_response_positions_equal_the_full_forward_pass(vlm, rows):
    """The reference is a pass over one sequence, unpadded, with pixels and a log-softmax of all logits."""
    scores = score(vlm, [rows[i] for i in range(4)], entropies=True)
    for kind, start in zip(SEQUENCES, (0, 4, 8), strict=True):
        for i in range(4):
            row = rows[i]
            answer = row.rejected if kind == "rejected" else row.chosen
            image = row.rejected_image if kind == "image_rejected" else row.image
            ids = torch.cat([row.prompt["input_ids"], answer])[None]
            logps = vlm.model(input_ids=ids, **image.tensors).logits.log_softmax(-1)[0, :-1]
            logps = logps[-len(answer) :]
            expected = logps.gather(-1, answer[:, None])[:, 0]
            n = len(answer)
            assert torch.allclose(scores.token_logps[start + i, :n], expected, atol=1e-5)
            assert scores.mask[start + i].sum() == n
            assert torch.allclose(scores.entropies[start + i, :n], -(logps.exp() * logps).sum(-1), atol=1e-5)


def test_a_row_does_not_depend_on_its_batch_mates(vlm, rows):
    together = score(vlm, [rows[i] for i in range(4)]).logps.view(3, 4)
    alone = torch.stack([score(vlm, [rows[i]]).logps for i in range(4)], dim=1)
    assert torch.allclose(together, alone, atol=1e-5)


def test_only_the_wanted_sequences_are_scored(vlm, rows):
    batch = collate([rows[0], rows[1]], ("chosen", "rejected"), 0)
    assert len(batch.images) == 2 and batch.image_of == [0, 1, 0, 1]
    assert torch.allclose(
        score(vlm, [rows[0], rows[1]], ("chosen", "rejected")).logps,
        score(vlm, [rows[0], rows[1]]).logps[:4],
        atol=1e-5,
    )
