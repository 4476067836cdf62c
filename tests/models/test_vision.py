from __future__ import annotations

import torch

from mfpo.models.load import load_vlm
from mfpo.models.logprobs import score_responses
from mfpo.models.vision import ImageEncoder, batch_images, parameter_parts
from mfpo.preferences.collate import collate
from mfpo.preferences.encoding import SEQUENCES, EncodedRows, RowEncoder
from preference_rows import make_pairs


def load(tiny_llava):
    return load_vlm(str(tiny_llava), device="cpu", dtype="float32")


def batch_of(vlm, count=3):
    rows = EncodedRows(make_pairs(count), RowEncoder(vlm.processor))
    return collate([rows[i] for i in range(count)], SEQUENCES, vlm.tokenizer.pad_token_id)


def test_every_parameter_has_a_part(tiny_llava):
    parts = {}
    for name, _, part in parameter_parts(load(tiny_llava).model):
        parts.setdefault(part, []).append(name)
    assert all("vision_tower" in name for name in parts["vision"])
    assert all("multi_modal_projector" in name for name in parts["projector"])
    assert all("language_model" in name or "lm_head" in name for name in parts["language"])


def test_shared_features_equal_repeated_pixels(tiny_llava):
    vlm = load(tiny_llava)
    batch = batch_of(vlm)
    gradients = []
    for share in (True, False):
        vlm.model.zero_grad()
        scores = score_responses(vlm.model, batch, ImageEncoder(vlm.model, share=share))
        scores.logps.sum().backward()
        gradients.append(
            {name: p.grad.clone() for name, p in vlm.model.named_parameters() if p.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], rtol=1e-4, atol=1e-5), name


def test_tower_runs_once_per_picture(tiny_llava, monkeypatch):
    vlm = load(tiny_llava)
    vlm.model.requires_grad_(False)
    seen = []
    tower = vlm.model.model.vision_tower
    monkeypatch.setattr(
        tower, "forward", lambda pixels, _f=tower.forward, **k: (seen.append(len(pixels)), _f(pixels, **k))[1]
    )
    images = ImageEncoder(vlm.model)
    first = score_responses(vlm.model, batch_of(vlm), images).logps
    second = score_responses(vlm.model, batch_of(vlm), images).logps
    assert seen == [1] * 6, "three images and three rejected images, each once, and nothing the second time"
    assert torch.equal(first, second)


def test_kept_features_do_not_depend_on_the_company_they_were_computed_in(tiny_llava):
    """A resumed training meets its pictures in other batches, and must go on bit for bit."""
    vlm = load(tiny_llava)
    vlm.model.requires_grad_(False)
    pictures = batch_of(vlm).images
    together = ImageEncoder(vlm.model)._features(pictures)
    for picture, expected in zip(pictures, together, strict=True):
        (alone,) = ImageEncoder(vlm.model)._features([picture])
        assert all(torch.equal(one, other) for one, other in zip(alone, expected, strict=True))


def test_nothing_is_kept_while_the_projector_is_trained_or_without_a_budget(tiny_llava):
    vlm = load(tiny_llava)
    for name, parameter, part in parameter_parts(vlm.model):
        parameter.requires_grad_(part == "projector" and "bias" in name)
    for encoder in (ImageEncoder(vlm.model), ImageEncoder(vlm.model.requires_grad_(False), cache_bytes=0)):
        seen = []
        encode = encoder._encode
        encoder._encode = lambda images, e=encode, s=seen: (s.append(len(images)), e(images))[1]
        score_responses(vlm.model, batch_of(vlm), encoder)
        assert not encoder._kept and seen == [6], "all pictures of the batch together"


def test_features_fit_as_a_whole_or_not(tiny_llava):
    vlm = load(tiny_llava)
    vlm.model.requires_grad_(False)
    image = batch_of(vlm).images[0]
    # 16 tokens of width 32 in float32.
    encoder = ImageEncoder(vlm.model, cache_bytes=10 * 16 * 32 * 4)
    assert encoder.fits(image, 10) and not encoder.fits(image, 11)
    assert not encoder.kept_bytes


def test_images_of_different_numbers_of_tiles_and_patches():
    tiles = [
        {"pixel_values": torch.ones(1, n, 3, 2, 2), "image_sizes": torch.tensor([[n, n]])} for n in (2, 3)
    ]
    batched = batch_images(tiles)
    assert batched["pixel_values"].shape == (2, 3, 3, 2, 2)
    assert batched["pixel_values"][0, 2].eq(0).all() and batched["pixel_values"][1].eq(1).all()
    patches = [
        {"pixel_values": torch.full((n, 5), n), "image_grid_thw": torch.tensor([[1, n, 1]])} for n in (4, 6)
    ]
    batched = batch_images(patches)
    assert batched["pixel_values"].shape == (10, 5) and batched["image_grid_thw"].shape == (2, 3)
