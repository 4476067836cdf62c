"""Both probes on drawn scenes and on real photographs, for models of several layouts of the picture."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mfpo.evaluation.attention import attention
from mfpo.evaluation.distortion import distortion, distortions
from mfpo.models.load import VLM, load_vlm
from mfpo.preferences.regions.masks import box_mask, box_of, encode_rle
from mfpo.records import (
    ImageSource,
    Keyword,
    Noise,
    PreferencePair,
    Region,
    assistant_message,
    text_of,
    user_message,
)
from mfpo.scenes.captions import parse
from mfpo.scenes.preferences import RowMaker
from other_models import llava_next, qwen2_vl

ROWS = 3
CONDITIONS = distortions(["region", "black"], [500], ["vcd", "ddpm-linear"])


@pytest.fixture(scope="module", params=["llava", "llava-next", "qwen2-vl"])
def vlm(request: pytest.FixtureRequest, tiny_llava: Path) -> VLM:
    if request.param == "llava":
        return load_vlm(str(tiny_llava), device="cpu", attn_implementation="eager")
    vlm = {"llava-next": llava_next, "qwen2-vl": qwen2_vl}[request.param]()
    vlm.model.set_attn_implementation("eager")
    return vlm


def with_object(pair: PreferencePair, name: str, mask: np.ndarray) -> PreferencePair:
    """The row with a keyword where its name stands in the chosen answer, and its region."""
    start = text_of(pair.chosen).lower().index(name)
    keyword = Keyword(name, 1.0, ((start, start + len(name)),))
    region = Region(name, box_of(mask), 1.0, encode_rle(mask), mask.shape)
    return replace(pair, keywords=(keyword,), regions=(region,), noise=Noise(seed=1))


@pytest.fixture(scope="module")
def scenes() -> list[PreferencePair]:
    found = []
    for row in RowMaker().rows(ROWS):
        answer = text_of(row.pair.chosen)
        mention = parse(answer)[0]
        name = answer[mention.start : mention.end].lower()
        found.append(with_object(row.pair, name, row.drawing.masks[mention.kind]))
    return found


@pytest.fixture(scope="module")
def photographs(shared: Path) -> list[PreferencePair]:
    folder = shared / "data" / "photo_pairs"
    pairs, annotations = (
        [json.loads(line) for line in (folder / name).read_text().splitlines()]
        for name in ("pairs.jsonl", "annotations.jsonl")
    )
    found = []
    for number, (pair, annotation) in enumerate(zip(pairs[:ROWS], annotations, strict=False)):
        path = folder / pair["image"]
        with Image.open(path) as picture:
            width, height = picture.size
        name = annotation["keywords"][0]
        box = np.array(annotation["boxes"][name][0]) * [width, height, width, height]
        row = PreferencePair(
            id=f"photo{number}",
            images=(ImageSource(str(path)),),
            prompt=user_message(pair["question"]),
            chosen=assistant_message(pair["chosen"]),
            rejected=assistant_message(pair["rejected"]),
        )
        found.append(with_object(row, name, box_mask(tuple(box), (height, width))))
    return found


@pytest.mark.parametrize("pictures", ["scenes", "photographs"])
def test_attention_is_split_and_drawn(
    vlm: VLM, pictures: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    pairs = request.getfixturevalue(pictures)
    result = attention(vlm, pairs, pictures=tmp_path, num_pictures=ROWS, progress=False)
    assert len(result.items) == ROWS and not result.settings["skipped"]
    for item in result.items:
        assert item["object"] + item["other_image"] + item["text"] == pytest.approx(item["mentions"])
        assert min(item["object"], item["other_image"], item["text"]) > 0
    overlays = sorted(tmp_path.glob("*.png"))
    assert [path.name.rpartition("-")[0] for path in overlays] == sorted(pair.id for pair in pairs)
    for path in overlays:
        with Image.open(path) as overlay:
            assert np.asarray(overlay.convert("RGB")).std() > 1


@pytest.mark.parametrize("pictures", ["scenes", "photographs"])
def test_distortions_change_what_a_model_thinks(
    vlm: VLM, pictures: str, request: pytest.FixtureRequest
) -> None:
    result = distortion(vlm, request.getfixturevalue(pictures), CONDITIONS, batch_size=4, progress=False)
    assert len(result.items) == ROWS and not result.settings["skipped"]
    assert result.settings["rows_without_region"] == 0
    for item in result.items:
        gaps = {item[f"{name} gap"] for name in ("clean", *(condition.name for condition in CONDITIONS))}
        assert len(gaps) == 1 + len(CONDITIONS)
