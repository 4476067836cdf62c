from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from mfpo.data.images import open_image
from mfpo.difficulty.config import RankConfig
from mfpo.errors import RowError, UserError
from mfpo.models.load import load_processor
from mfpo.models.logprobs import IGNORE
from mfpo.preferences.collate import collate
from mfpo.preferences.encoding import SEQUENCES, EncodedRows, NoiseOverride, RowEncoder
from mfpo.preferences.noise import draw_step
from mfpo.preferences.regions.masks import encode_rle
from mfpo.preferences.rejected import rejected_inputs
from mfpo.records import ImageSource, Noise, Region, assistant_message, user_message
from mfpo.training.config import TrainConfig
from preference_rows import make_pair, make_pairs, png

IMAGE_TOKENS = 16


@pytest.fixture(scope="module")
def processor(tiny_llava):
    return load_processor(str(tiny_llava))


def test_tokens_are_those_of_the_whole_conversation(processor):
    pair = make_pair(1)
    row = RowEncoder(processor).encode(pair)
    image = open_image(pair.images[0])
    for answer, tokens in ((pair.chosen, row.chosen), (pair.rejected, row.rejected)):
        whole = processor.apply_chat_template([*pair.prompt, *answer], tokenize=False)
        expected = processor(images=image, text=whole, return_tensors="pt")["input_ids"][0]
        assert torch.equal(torch.cat([row.prompt["input_ids"], tokens]), expected)
        assert tokens[-1] == processor.tokenizer.eos_token_id
    assert row.prompt["input_ids"][0] == processor.tokenizer.bos_token_id
    assert (row.prompt["input_ids"] == processor.image_token_id).sum() == IMAGE_TOKENS


def test_bos_in_the_template_is_not_doubled(tiny_llava):
    processor = load_processor(str(tiny_llava))
    plain = RowEncoder(processor).encode(make_pair(0))
    processor.chat_template = "{{ bos_token }}" + processor.chat_template
    assert torch.equal(
        RowEncoder(processor).encode(make_pair(0)).prompt["input_ids"], plain.prompt["input_ids"]
    )


def test_rejected_image_is_that_of_the_noise_module(processor):
    pair = make_pair(3)
    row = RowEncoder(processor, noise=NoiseOverride(scope="global", step=900)).encode(pair)
    expected = rejected_inputs(
        processor.image_processor,
        open_image(pair.images[0]),
        pair.regions,
        Noise("global", "vcd", 900, seed=3),
    )
    assert torch.equal(row.rejected_image.tensors["pixel_values"], expected.inputs["pixel_values"])
    assert RowEncoder(processor, rejected_image=False).encode(pair).rejected_image is None


def test_steps_drawn_for_rows_are_those_of_their_seeds():
    override = NoiseOverride(step=300, step_max=900, feather=0.1)
    noises = [override.apply(Noise(step=500, seed=seed)) for seed in range(20)]
    assert [noise.step for noise in noises] == [draw_step(300, 900, seed) for seed in range(20)]
    assert len({noise.step for noise in noises}) > 15 and {noise.feather for noise in noises} == {0.1}
    assert NoiseOverride().apply(noises[0]) == noises[0], "the rows' own"
    with pytest.raises(UserError, match="--noise_step_max"):
        NoiseOverride(step_max=900)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"step": -300, "step_max": 900}, "noise step -300"),
        ({"step": 1200}, "noise step 1200"),
        ({"feather": 5.0}, "--noise_feather"),
        ({"scope": "regoin"}, "did you mean 'region'"),
        ({"schedule": "linear"}, "--noise_schedule"),
    ],
)
def test_a_wrong_override_is_told_before_a_row_is_read(settings, says):
    with pytest.raises(UserError, match=says):
        NoiseOverride(**settings)


@pytest.mark.parametrize("kind", [RankConfig, TrainConfig])
def test_commands_hand_all_their_noise_settings_on(kind):
    given = {"noise_step": 300, "noise_step_max": 900, "noise_schedule": "ddpm-linear", "noise_feather": 0.1}
    names = {item.name for item in fields(kind) if item.name.startswith("noise_")}
    assert names == {*given, "noise_scope"}
    expected = NoiseOverride("crop", step=300, schedule="ddpm-linear", step_max=900, feather=0.1)
    assert NoiseOverride.of(kind(noise_scope="crop", **given)) == expected
    assert NoiseOverride.of(kind(**given), "crop") == expected


def test_region_noise_leaves_the_rest_of_the_image(processor):
    row = RowEncoder(processor).encode(make_pair(3))
    same = row.image.tensors["pixel_values"] == row.rejected_image.tensors["pixel_values"]
    assert 0 < same.float().mean() < 1


def test_responses_are_cut_and_images_never(processor):
    pair = make_pair(1, chosen=assistant_message("a red mug and " * 30))
    full = RowEncoder(processor).encode(pair)
    room = len(full.prompt["input_ids"]) + 5
    cut = RowEncoder(processor, max_length=room).encode(pair)
    assert (full.cut, cut.length) == (0, room) and cut.cut >= 1
    assert torch.equal(cut.chosen, full.chosen[:5])
    assert torch.equal(cut.prompt["input_ids"], full.prompt["input_ids"])
    with pytest.raises(RowError, match="prompt-too-long"):
        RowEncoder(processor, max_length=len(full.prompt["input_ids"])).encode(pair)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"images": (ImageSource(data=b"not an image"),)}, "not-an-image"),
        ({"images": ()}, "image-count"),
        ({"prompt": user_message("Describe it.", num_images=2)}, "image-count"),
        ({"chosen": assistant_message("An <image> of a mug.")}, "image-token-in-response"),
        ({"chosen": assistant_message("It was <s>$20</s> and is $15.")}, "special-token-in-response"),
        ({"rejected": assistant_message("A mug.</s> A cat.")}, "special-token-in-response"),
    ],
)
def test_rows_that_cannot_be_used(processor, changes, reason):
    with pytest.raises(RowError) as error:
        RowEncoder(processor).encode(make_pair(0, **changes))
    assert error.value.reason == reason


@pytest.mark.parametrize("noised", [0, 1])
def test_of_two_images_the_noised_one_alone_changes(processor, noised):
    import numpy as np

    second = png(np.full((40, 40, 3), 99, dtype=np.uint8))
    pair = make_pair(0, images=(*make_pair(0).images, second), prompt=user_message("Compare.", num_images=2))
    pair = replace(pair, noise=replace(pair.noise, scope="global", image=noised))
    row = RowEncoder(processor).encode(pair)
    assert (row.prompt["input_ids"] == processor.image_token_id).sum() == 2 * IMAGE_TOKENS
    clean, corrupted = row.image.tensors["pixel_values"], row.rejected_image.tensors["pixel_values"]
    assert row.image.count == 2 and clean.shape[0] == 2
    assert not torch.equal(clean[noised], corrupted[noised])
    assert torch.equal(clean[1 - noised], corrupted[1 - noised])
    alone = replace(pair, images=(pair.images[noised],), noise=replace(pair.noise, image=0))
    single = RowEncoder(processor).encode(replace(alone, prompt=user_message("Compare.")))
    assert torch.equal(single.rejected_image.tensors["pixel_values"][0], corrupted[noised])
    with pytest.raises(RowError, match="image-count"):
        RowEncoder(processor).encode(replace(pair, noise=replace(pair.noise, image=2)))


def test_layout_of_a_batch(processor):
    rows = [RowEncoder(processor).encode(pair) for pair in make_pairs(3)]
    batch = collate(rows, SEQUENCES, processor.tokenizer.pad_token_id)
    P = max(len(row.prompt["input_ids"]) for row in rows)
    R = max(len(answer) for row in rows for answer in (row.chosen, row.rejected))
    assert batch.inputs["input_ids"].shape == (9, P + R) and batch.labels.shape == (9, R)
    assert batch.image_of == [0, 1, 2, 0, 1, 2, 3, 4, 5]
    for number, row in enumerate(rows * 3):
        answer = row.rejected if 3 <= number < 6 else row.chosen
        mask = batch.inputs["attention_mask"][number].bool()
        assert torch.equal(
            batch.inputs["input_ids"][number][mask], torch.cat([row.prompt["input_ids"], answer])
        )
        assert torch.equal(batch.inputs["position_ids"][number][mask], torch.arange(int(mask.sum())))
        assert torch.equal(batch.labels[number][: len(answer)], answer)
        assert (batch.labels[number][len(answer) :] == IGNORE).all()
        assert mask[P] and mask[P - 1], "every response starts at column P"


def test_rows_are_kept_within_the_budget(processor):
    pairs = make_pairs(3)
    encoder = RowEncoder(processor)
    budget = encoder.encode(pairs[0]).nbytes
    rows = EncodedRows(pairs, encoder, cache_bytes=budget)
    assert rows[0] is rows[0]
    assert rows[1] is not rows[1]
    assert torch.equal(
        rows[1].rejected_image.tensors["pixel_values"], rows[1].rejected_image.tensors["pixel_values"]
    )
    assert rows.ids == [pair.id for pair in pairs]


@pytest.mark.parametrize("size", [(20, 20), (41, 40)])
def test_region_of_another_picture_costs_the_row_and_not_the_run(processor, size):
    mask = np.zeros(size, dtype=bool)
    mask[2:9, 3:8] = True
    region = Region("mug", (3.0, 2.0, 8.0, 9.0), 1.0, encode_rle(mask), size)
    with pytest.raises(RowError) as error:
        RowEncoder(processor).encode(make_pair(0, regions=(region,)))
    assert error.value.reason == "bad-region"
