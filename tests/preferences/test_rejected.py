from __future__ import annotations

import hashlib
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw
from torch.utils.data import DataLoader
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from mfpo.errors import UserError
from mfpo.preferences.erase import erase, grow, harmonic_fill
from mfpo.preferences.noise import noise_level
from mfpo.preferences.regions.masks import box_of, encode_rle
from mfpo.preferences.rejected import picture_of, random_crop_box, rejected_inputs
from mfpo.records import Noise, Region

SIDE_336 = {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}}
PROCESSORS = {
    "llava-1.5": CLIPImageProcessorPil(**SIDE_336),
    "llava-1.5-padded": LlavaImageProcessorPil(do_pad=True, **SIDE_336),
    "llava-1.6": LlavaNextImageProcessorPil(**SIDE_336),
    "llava-onevision": LlavaOnevisionImageProcessorPil(
        image_grid_pinpoints=[[384, 768], [768, 384], [768, 768]]
    ),
    "qwen2-vl": Qwen2VLImageProcessorPil(),
    "idefics3": Idefics3ImageProcessorPil(),
    "siglip": SiglipImageProcessorPil(),
}
LLAVA = PROCESSORS["llava-1.5"]
TINY = CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    rough = np.random.default_rng(seed).integers(
        0, 256, (height // 16 + 2, width // 16 + 2, 3), dtype=np.uint8
    )
    return Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC)


def region(mask: np.ndarray) -> Region:
    return Region("thing", box_of(mask), 1.0, encode_rle(mask), (mask.shape[0], mask.shape[1]))


def box_region(size: tuple[int, int], left: int, top: int, right: int, bottom: int) -> Region:
    mask = np.zeros((size[1], size[0]), dtype=bool)
    mask[top:bottom, left:right] = True
    return region(mask)


def process(processor, image: Image.Image) -> dict[str, torch.Tensor]:
    return dict(processor(images=[image], return_tensors="pt"))


@pytest.mark.parametrize("side", [336, 640, 2048])
@pytest.mark.parametrize("name", ["llava-1.5", "llava-1.6", "qwen2-vl"])
def test_sigma_in_the_model_input_is_the_schedules_at_every_native_size(name, side):
    image = photograph(side, side * 3 // 4)
    third = side // 3
    where = box_region(image.size, third, third // 2, 2 * third, 2 * third)
    clean = process(PROCESSORS[name], image)
    for step in (500, 900):
        noise = Noise(step=step, seed=side)
        rejected = rejected_inputs(PROCESSORS[name], image, [where], noise, clean=clean)
        m, m_prime = clean["pixel_values"], rejected.inputs["pixel_values"]
        signal, sigma = noise_level("vcd", step)
        residual = (m_prime - signal * m)[rejected.mask]
        assert residual.std().item() == pytest.approx(sigma, rel=0.02)
        assert abs(residual.mean().item()) < 0.02 * sigma
        assert torch.equal(m_prime[~rejected.mask], m[~rejected.mask])
        assert rejected.scope == "region" and 0.05 < rejected.share < 0.3


@pytest.mark.parametrize("name", PROCESSORS)
def test_keys_shapes_and_dtypes_are_the_processors(name):
    image = photograph(500, 375)
    clean = process(PROCESSORS[name], image)
    for scope in ("region", "global", "random", "crop", "erase", "swap", "black"):
        rejected = rejected_inputs(
            PROCESSORS[name],
            image,
            [box_region(image.size, 200, 150, 300, 250)],
            Noise(scope=scope, seed=5),
            photograph(640, 480, seed=1),
        )
        assert rejected.scope == scope
        assert {k: (v.shape, v.dtype) for k, v in rejected.inputs.items()} == {
            k: (v.shape, v.dtype) for k, v in clean.items()
        }
        assert not torch.equal(rejected.inputs["pixel_values"], clean["pixel_values"])
        for key in clean.keys() - {"pixel_values"}:
            assert torch.equal(rejected.inputs[key], clean[key])


def test_clean_inputs_that_are_passed_are_used_and_not_modified():
    image, noise = photograph(400, 300), Noise(seed=1)
    where = [box_region(image.size, 100, 100, 200, 200)]
    clean = process(LLAVA, image)
    before = clean["pixel_values"].clone()
    given_clean = rejected_inputs(LLAVA, image, where, noise, clean=clean)
    own_clean = rejected_inputs(LLAVA, image, where, noise)
    assert torch.equal(given_clean.inputs["pixel_values"], own_clean.inputs["pixel_values"])
    assert torch.equal(clean["pixel_values"], before)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_mask_is_the_footprint_of_the_region_in_a_cropped_picture(data):
    width, height = data.draw(st.integers(33, 300)), data.draw(st.integers(33, 300))
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    right, bottom = data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height))
    image = photograph(width, height)
    rejected = rejected_inputs(TINY, image, [box_region(image.size, left, top, right, bottom)], Noise())

    short = min(width, height)
    resized = [32 if side == short else int(32 * side / short) for side in (width, height)]
    start = [(side - 32) // 2 for side in resized]
    scale = [resized[0] / width, resized[1] / height]
    # A pixel counts in the output pixel that holds its centre; blocks grow it by at most an eighth of one.
    slack = 0.13 + max(scale) / 2
    inside = [
        [max(0.0, low * s - off + slack), max(0.0, min(32.0, high * s - off - slack))]
        for low, high, s, off in ((left, right, scale[0], start[0]), (top, bottom, scale[1], start[1]))
    ]
    around = [
        [low * s - off - slack - 1, high * s - off + slack + 1]
        for low, high, s, off in ((left, right, scale[0], start[0]), (top, bottom, scale[1], start[1]))
    ]
    if rejected.scope == "global":
        assert any(low >= high for low, high in inside)
        return
    mask = rejected.mask[0, 0].numpy()
    assert (rejected.mask == rejected.mask[:, :1]).all()
    rows, columns = np.nonzero(mask)
    assert columns.min() >= around[0][0] and columns.max() <= around[0][1]
    assert rows.min() >= around[1][0] and rows.max() <= around[1][1]
    (x0, x1), (y0, y1) = inside
    assert mask[math.ceil(y0) : math.floor(y1), math.ceil(x0) : math.floor(x1)].all()


def test_an_object_that_the_centre_crop_cuts_away_becomes_global():
    image = photograph(1200, 400)
    at_the_edge = box_region(image.size, 0, 100, 150, 300)
    for scope, feather in (("region", 0.0), ("erase", 0.0), ("region", 0.9)):
        rejected = rejected_inputs(LLAVA, image, [at_the_edge], Noise(scope=scope, feather=feather))
        assert rejected.scope == "global", "what a soft edge reaches in the crop is not the object"
        assert rejected.mask.all() and rejected.share == 1
    seen_whole = rejected_inputs(PROCESSORS["llava-1.6"], image, [at_the_edge], Noise())
    assert seen_whole.scope == "region"


@pytest.mark.parametrize("scope", ["region", "erase"])
def test_no_region_becomes_global(scope):
    rejected = rejected_inputs(LLAVA, photograph(400, 300), [], Noise(scope=scope))
    assert rejected.scope == "global" and rejected.mask.all()


@pytest.mark.parametrize(("x", "y"), [(1999, 1499), (2003, 1497), (1, 1)])
@pytest.mark.parametrize("name", ["llava-1.6", "llava-1.5-padded", "qwen2-vl", "siglip"])
def test_a_single_pixel_of_a_large_picture_survives(name, x, y):
    image = Image.new("RGB", (4000, 3000), (90, 120, 60))
    processor = PROCESSORS[name]
    rejected = rejected_inputs(processor, image, [box_region(image.size, x, y, x + 1, y + 1)], Noise())
    assert rejected.scope == "region"
    assert rejected.share < 0.001
    if name == "llava-1.6":
        assert rejected.mask[0, 0].any() and rejected.mask[0, 1:].any()


def test_a_single_pixel_survives_where_eight_bits_would_lose_it():
    image = Image.new("RGB", (4000, 3000))
    rejected = rejected_inputs(TINY, image, [box_region(image.size, 1999, 1499, 2000, 1500)], Noise())
    assert rejected.scope == "region"
    assert 1 <= rejected.mask[0, 0].sum() <= 4


def test_regions_are_united():
    image = photograph(336, 336)
    first, second = box_region(image.size, 10, 10, 50, 60), box_region(image.size, 200, 200, 210, 230)
    rejected = rejected_inputs(LLAVA, image, [first, second, first], Noise())
    expected = np.zeros((336, 336), dtype=bool)
    expected[10:60, 10:50] = expected[200:230, 200:210] = True
    assert np.array_equal(rejected.mask[0, 0].numpy(), expected)


def test_padding_stays_as_it_was():
    image = photograph(640, 480)
    padded = rejected_inputs(PROCESSORS["llava-1.5-padded"], image, [], Noise(scope="global")).mask[0, 0]
    assert padded[42:294].all() and not padded[:42].any() and not padded[294:].any()
    # 672 x 504 within 672 x 672: 84 rows above and below, cut into four tiles; the overview has no padding.
    tiles = rejected_inputs(PROCESSORS["llava-1.6"], image, [], Noise(scope="global")).mask[0, :, 0]
    assert tiles.shape == (5, 336, 336) and tiles[0].all()
    assert not tiles[1:3, :84].any() and tiles[1:3, 84:].all()
    assert not tiles[3:5, 252:].any() and tiles[3:5, :252].all()


def test_temporal_copies_of_a_still_image_get_the_same_noise():
    image = photograph(300, 200)
    processor = PROCESSORS["qwen2-vl"]
    pixels = rejected_inputs(processor, image, [], Noise(scope="global")).inputs["pixel_values"]
    copies = pixels.view(-1, 3, 2, 14, 14)
    assert torch.equal(copies[:, :, 0], copies[:, :, 1])
    noise = pixels - noise_level("vcd", 500).signal * process(processor, image)["pixel_values"]
    assert len(noise.view(-1, 3, 2, 14, 14)[:, :, 0].unique()) > 0.9 * noise.numel() / 2


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**63 - 1), step=st.integers(0, 999))
def test_same_seed_same_bits(seed, step):
    image = photograph(48, 40)
    where = [box_region(image.size, 10, 10, 30, 30)]
    noise = Noise(step=step, seed=seed)
    first, again, other = (
        rejected_inputs(TINY, image, where, n).inputs["pixel_values"]
        for n in (noise, noise, replace(noise, seed=seed + 1))
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_scopes_share_their_noise():
    image = photograph(336, 336)
    one = rejected_inputs(LLAVA, image, [box_region(image.size, 50, 50, 150, 150)], Noise(seed=3))
    whole = rejected_inputs(LLAVA, image, [], Noise(scope="global", seed=3))
    assert torch.equal(one.inputs["pixel_values"][one.mask], whole.inputs["pixel_values"][one.mask])


@pytest.mark.parametrize("scope", ["region", "random"])
def test_noise_fades_out_around_the_mask(scope):
    """Side 64, feather an eighth: 8 pixels. Of a strength a there is m + a (noised - m), a = 1 - d / 8."""
    processor = CLIPImageProcessorPil(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    image, where = photograph(64, 64), box_region((64, 64), 20, 24, 40, 44)
    sharp, soft, whole = (
        rejected_inputs(processor, image, [where], Noise(scope=s, step=900, seed=3, feather=feather))
        for s, feather in ((scope, 0.0), (scope, 1 / 8), ("global", 1 / 8))
    )
    m, noised = process(processor, image)["pixel_values"], whole.inputs["pixel_values"]
    rows, columns = torch.nonzero(sharp.mask[0, 0], as_tuple=True)
    y, x = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    down = (rows.min() - y).clamp(min=0) + (y - rows.max()).clamp(min=0)
    across = (columns.min() - x).clamp(min=0) + (x - columns.max()).clamp(min=0)
    strength = (1 - (down**2 + across**2).sqrt() / 8).clamp(min=0)
    expected = m + strength * (noised - m)
    assert torch.allclose(soft.inputs["pixel_values"], expected, atol=(noised - m).abs().max() / 255)
    assert torch.equal(soft.inputs["pixel_values"][sharp.mask], sharp.inputs["pixel_values"][sharp.mask])
    assert torch.equal(soft.mask[0, 0], strength > 1 / 510) and soft.share > sharp.share


@pytest.mark.parametrize("name", PROCESSORS)
def test_noise_that_fades_out_keeps_its_middle_and_what_is_far(name):
    image = photograph(640, 480)
    where = [box_region(image.size, 200, 150, 400, 330)]
    clean = process(PROCESSORS[name], image)
    sharp, soft = (
        rejected_inputs(PROCESSORS[name], image, where, Noise(seed=5, feather=feather), clean=clean)
        for feather in (0.0, 0.1)
    )
    m, one, other = clean["pixel_values"], sharp.inputs["pixel_values"], soft.inputs["pixel_values"]
    assert soft.inputs["pixel_values"].dtype == m.dtype
    assert (sharp.mask <= soft.mask).all() and sharp.share < soft.share < 0.6
    assert torch.equal(other[~soft.mask], m[~soft.mask])
    assert torch.equal(other[sharp.mask], one[sharp.mask])


@pytest.mark.parametrize("name", ["llava-1.6", "qwen2-vl"])
def test_a_soft_edge_takes_nothing_from_a_small_region(name):
    image = Image.new("RGB", (2048, 1536), (90, 120, 60))
    where = [box_region(image.size, 1000, 700, 1001, 701)]
    sharp, soft = (
        rejected_inputs(PROCESSORS[name], image, where, Noise(step=900, seed=5, feather=feather))
        for feather in (0.0, 0.001)
    )
    one, other = sharp.inputs["pixel_values"], soft.inputs["pixel_values"]
    assert sharp.mask.any() and torch.equal(other[sharp.mask], one[sharp.mask])


def test_a_feather_is_left_out_where_the_whole_picture_is_noised():
    image = photograph(400, 300)
    soft, sharp = (rejected_inputs(LLAVA, image, [], Noise(feather=f)) for f in (0.1, 0.0))
    assert soft.scope == "global"
    assert torch.equal(soft.inputs["pixel_values"], sharp.inputs["pixel_values"])


class Rows(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> str:
        image = photograph(120, 90, seed=index)
        scope = ("region", "random", "erase", "crop")[index % 4]
        where = [box_region(image.size, 30, 20, 70, 60)]
        rejected = rejected_inputs(TINY, image, where, Noise(scope=scope, seed=index))
        return hashlib.sha256(rejected.inputs["pixel_values"].numpy().tobytes()).hexdigest()


@pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning")
def test_same_bits_whatever_the_number_of_workers():
    here, one, four = (list(DataLoader(Rows(), batch_size=2, num_workers=n)) for n in (0, 1, 4))
    assert here == one == four
    assert len({digest for batch in here for digest in batch}) == 12


@settings(max_examples=60, deadline=None)
@given(
    width=st.integers(64, 700),
    height=st.integers(64, 700),
    seed=st.integers(0, 2**63 - 1),
    share=st.floats(0.05, 1),
)
def test_random_perturbs_the_requested_share_of_the_area(width, height, seed, share):
    square = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)
    image = Image.new("RGB", (width, height))
    rejected = rejected_inputs(square, image, [], Noise(scope="random", fraction=share, seed=seed))
    assert rejected.scope == "random"
    assert rejected.share == pytest.approx(share, abs=0.03)


def test_random_goes_to_another_place_with_another_seed():
    image = photograph(336, 336)
    places = {
        tuple(torch.nonzero(rejected_inputs(TINY, image, [], Noise(scope="random", seed=s)).mask)[0].tolist())
        for s in range(8)
    }
    assert len(places) > 4


@given(width=st.integers(40, 4000), height=st.integers(40, 4000), seed=st.integers(0, 2**64 - 1))
def test_random_crop_is_mdpos(width, height, seed):
    left, top, right, bottom = box = random_crop_box((width, height), seed)
    assert box == random_crop_box((width, height), seed)
    assert 0 <= left < right <= width and 0 <= top < bottom <= height
    across, down = (right - left) / width, (bottom - top) / height
    half_pixel = 0.5 / width + 0.5 / height
    assert 0.01 - half_pixel <= across * down <= 0.2 + half_pixel
    # Rounding each side to whole pixels moves the aspect of a small box.
    low, high = (right - left - 0.5) / width, (right - left + 0.5) / width
    assert low / (down + 0.5 / height) <= 4 / 3 and high / max(down - 0.5 / height, 1e-9) >= 3 / 4


def test_crop_shows_the_stored_box_at_the_size_of_the_picture():
    image = photograph(640, 480)
    noise = Noise(scope="crop", box=(100, 120, 260, 240), seed=9)
    rejected = rejected_inputs(LLAVA, image, [], noise)
    by_hand = image.crop((100, 120, 260, 240)).resize((640, 480), Image.Resampling.BICUBIC)
    expected = process(LLAVA, by_hand)["pixel_values"]
    # PIL lets the filter see beyond a box, not beyond a crop: they differ at the rim.
    assert (rejected.inputs["pixel_values"] - expected).abs().mean() < 0.02
    drawn = rejected_inputs(LLAVA, image, [], Noise(scope="crop", seed=9))
    stored = rejected_inputs(LLAVA, image, [], Noise(scope="crop", box=random_crop_box(image.size, 9)))
    assert torch.equal(drawn.inputs["pixel_values"], stored.inputs["pixel_values"])


def test_crop_box_outside_the_picture_is_refused():
    with pytest.raises(UserError, match="outside the picture of 64 x 48"):
        rejected_inputs(TINY, photograph(64, 48), [], Noise(scope="crop", box=(64, 0, 90, 48)))


def test_black_is_a_black_picture():
    rejected = rejected_inputs(LLAVA, photograph(400, 300), [], Noise(scope="black"))
    black = -torch.tensor(LLAVA.image_mean) / torch.tensor(LLAVA.image_std)
    assert torch.allclose(rejected.inputs["pixel_values"], black[None, :, None, None].expand(1, 3, 336, 336))
    assert rejected.mask is None and rejected.share == 1


def test_swap_shows_the_other_picture_and_needs_one():
    image, other = photograph(300, 300), photograph(300, 300, seed=4)
    rejected = rejected_inputs(LLAVA, image, [], Noise(scope="swap"), other)
    assert torch.equal(rejected.inputs["pixel_values"], process(LLAVA, other)["pixel_values"])
    with pytest.raises(UserError, match="no rejected image"):
        rejected_inputs(LLAVA, image, [], Noise(scope="swap"))


def disc_on_a_gradient(width: int, height: int) -> tuple[Image.Image, Image.Image, np.ndarray]:
    """A soft-edged red disc on a grainy gradient, the same without the disc, and the disc's exact mask."""
    y, x = np.mgrid[0:height, 0:width] / height
    grain = np.random.default_rng(0).normal(0, 4, (height, width, 1))
    background = np.stack([40 + 30 * x, 90 + 80 * y, 200 - 60 * x], axis=-1) + grain
    background_image = Image.fromarray(background.clip(0, 255).astype(np.uint8))
    cover = Image.new("L", (4 * width, 4 * height))
    radius = height // 5
    centre = width // 2, height // 2
    ImageDraw.Draw(cover).ellipse([4 * (c + s * radius) for s in (-1, 1) for c in centre], fill=255)
    cover = cover.resize((width, height), Image.Resampling.BOX)
    image = background_image.copy()
    image.paste((220, 30, 30), (0, 0), cover)
    return image, background_image, np.asarray(cover) > 127


@pytest.mark.parametrize("size", [(96, 96), (640, 480), (2000, 1500)])
def test_erase_continues_the_surroundings_and_touches_nothing_else(size):
    image, background, mask = disc_on_a_gradient(*size)
    pixels, original = np.asarray(erase(image, mask), dtype=float), np.asarray(image, dtype=float)
    truth = np.asarray(background, dtype=float)
    margin = max(2, round(0.004 * max(size)))
    outside = ~grow(mask, margin)
    assert np.array_equal(pixels[outside], original[outside])
    difference = np.abs(pixels - truth).mean(axis=-1)
    assert difference[mask].mean() < 0.1 * np.abs(original - truth).mean(axis=-1)[mask].mean()
    rim = grow(mask, 2) & ~mask
    assert difference[rim].mean() < 12


def test_erase_keeps_the_grain_so_that_no_blur_gives_it_away():
    image, background, mask = disc_on_a_gradient(640, 480)
    detail = {}
    for name, picture in (("erased", erase(image, mask)), ("true", background)):
        pixels = np.asarray(picture, dtype=float)
        detail[name] = np.diff(pixels, axis=1)[mask[:, 1:] & mask[:, :-1]].std()
    assert detail["erased"] > 0.7 * detail["true"]


def test_erase_in_the_model_input_changes_the_region_only():
    image, background, mask = disc_on_a_gradient(336, 336)
    clean, truth = process(LLAVA, image)["pixel_values"], process(LLAVA, background)["pixel_values"]
    rejected = rejected_inputs(LLAVA, image, [region(mask)], Noise(scope="erase"))
    erased = rejected.inputs["pixel_values"]
    assert np.array_equal(rejected.mask[0, 0].numpy(), mask)
    far = torch.from_numpy(~grow(mask, 2))
    assert torch.equal(erased[..., far], clean[..., far])
    assert (erased - truth)[rejected.mask].abs().mean() < 0.1 * (clean - truth)[rejected.mask].abs().mean()


def test_erase_of_everything_and_of_nothing():
    image = photograph(40, 30)
    assert np.array_equal(np.asarray(erase(image, np.zeros((30, 40), dtype=bool))), np.asarray(image))
    flat = np.asarray(erase(image, np.ones((30, 40), dtype=bool)))
    assert (flat == flat[0, 0]).all()
    assert np.abs(flat[0, 0] - np.asarray(image).mean(axis=(0, 1))).max() <= 0.5


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_erase_never_changes_what_is_outside(data):
    width, height = data.draw(st.integers(3, 400)), data.draw(st.integers(3, 400))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    mask = np.zeros((height, width), dtype=bool)
    for _ in range(data.draw(st.integers(1, 5))):
        y, x = rng.integers(0, height), rng.integers(0, width)
        mask[y : y + rng.integers(1, height + 1), x : x + rng.integers(1, width + 1)] = True
    image = photograph(width, height)
    erased = np.asarray(erase(image, mask, margin=0))
    if not mask.all():
        assert np.array_equal(erased[~mask], np.asarray(image)[~mask])


def test_harmonic_fill_continues_a_plane():
    y, x = np.mgrid[0:40, 0:50].astype(np.float32)
    plane = np.stack([2 * x + y, 100 - x], axis=-1)
    known = np.ones((40, 50), dtype=bool)
    known[10:25, 15:40] = False
    assert np.abs(harmonic_fill(np.where(known[..., None], plane, 0), known) - plane).max() < 4


@pytest.mark.parametrize("name", ["llava-1.5", "llava-1.5-padded", "siglip"])
def test_picture_of_undoes_the_normalisation(name):
    processor, image = PROCESSORS[name], photograph(500, 400)
    raw = processor(images=[image], do_normalize=False, do_rescale=False, return_tensors="pt")[
        "pixel_values"
    ][0]
    shown = np.asarray(picture_of(processor, process(processor, image)))
    assert np.array_equal(shown, raw.permute(1, 2, 0).numpy().astype(np.uint8))


def test_picture_of_puts_patches_and_tiles_together():
    image = photograph(500, 400)
    shown = picture_of(PROCESSORS["qwen2-vl"], process(PROCESSORS["qwen2-vl"], image))
    assert shown.size == (504, 392)
    resized = np.asarray(image.resize((504, 392), Image.Resampling.BICUBIC))
    assert np.array_equal(np.asarray(shown), resized)
    overview = picture_of(PROCESSORS["llava-1.6"], process(PROCESSORS["llava-1.6"], image))
    assert np.array_equal(
        np.asarray(overview), np.asarray(image.resize((336, 336), Image.Resampling.BICUBIC))
    )
    overview = picture_of(PROCESSORS["idefics3"], process(PROCESSORS["idefics3"], image))
    near = np.asarray(image.resize(overview.size, Image.Resampling.BICUBIC), dtype=float)
    assert overview.size == (364, 364) and np.abs(np.asarray(overview, dtype=float) - near).mean() < 3


def test_an_unknown_layout_is_told():
    class Audio:
        def __call__(self, **_):
            return {"input_features": torch.zeros(1, 80, 10)}

    with pytest.raises(UserError, match=r"Audio.*no pixel_values"):
        rejected_inputs(Audio(), photograph(64, 64), [], Noise())

    scrambled = process(PROCESSORS["qwen2-vl"], photograph(100, 100))
    scrambled["pixel_values"] = scrambled["pixel_values"].flip(1).roll(1, 1)
    with pytest.raises(UserError, match="layout of this image processor"):
        picture_of(PROCESSORS["qwen2-vl"], scrambled)
