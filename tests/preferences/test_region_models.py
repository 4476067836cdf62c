"""The model backends: decoding of hand-made outputs, parity with official code, one look at a picture."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from region_models import save_clipseg, save_grounding_dino, save_owlv2, save_sam2, save_sam3
from safetensors.torch import load_file

from mfpo.data.folder import open_dataset, shard_files
from mfpo.errors import UserError
from mfpo.preferences.build import build_dataset
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.regions import instances
from mfpo.preferences.regions.base import (
    RegionOptions,
    backend_fingerprint,
    default_checkpoints,
    load_backend,
)
from mfpo.preferences.regions.checkpoints import Checkpoint, Place, checkpoints
from mfpo.preferences.regions.instances import decode_boxes, resized_masks
from mfpo.preferences.regions.masks import box_of, decode_rle
from mfpo.preferences.regions.sam2 import SquareInput
from mfpo.preferences.regions.sam3 import decode_instances

KEYWORDS = ["red mug", "dog", "double decker bus"]
MODELS = ("clipseg", "owlv2-sam", "grounded-sam2", "sam3")


def logit(probability: float) -> float:
    return float(np.log(probability / (1 - probability)))


@pytest.fixture(scope="session")
def picture() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Checkpoints of each backend as --region_model takes them."""
    root = tmp_path_factory.mktemp("region-models")
    savers: dict[str, Callable[[Path], Path]] = {
        "clipseg": save_clipseg,
        "owlv2": save_owlv2,
        "dino": save_grounding_dino,
        "sam2": save_sam2,
        "sam3": save_sam3,
    }
    for name, save in savers.items():
        (root / name).mkdir()
        save(root / name)
    return {
        "clipseg": f"{root}/clipseg",
        "owlv2-sam": f"{root}/owlv2,{root}/sam2",
        "grounded-sam2": f"{root}/dino,{root}/sam2",
        "sam3": f"{root}/sam3",
    }


def opened(name: str, folders: dict[str, str], **options: Any) -> Any:
    low = {"clipseg": {"mask_threshold": 0.5}}.get(name, {"box_threshold": 0.01})
    return load_backend(name, RegionOptions(model=folders[name], device="cpu", **{**low, **options}))


def encoders(backend: Any) -> list[torch.nn.Module]:
    """What looks at pixels in a backend."""
    if hasattr(backend, "detector"):
        detector = backend.detector.model
        eye = detector.owlv2.vision_model if hasattr(detector, "owlv2") else detector.model.backbone.backbone
        return [eye, backend.segmenter.model.vision_encoder]
    model = backend._model
    return [model.clip.vision_model if hasattr(model, "clip") else model.vision_encoder]


@pytest.mark.parametrize("together", [1, 4])
@pytest.mark.parametrize("name", MODELS)
def test_a_keyword_is_found_alike_alone_and_with_others_in_one_look(
    name: str,
    together: int,
    folders: dict[str, str],
    picture: Image.Image,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Place, "queries", together)
    backend = opened(name, folders)
    looks: list[int] = []
    for encoder in encoders(backend):
        encoder.register_forward_hook(lambda *_: looks.append(1))
    regions = backend.segment(picture, KEYWORDS)
    assert len(looks) == len(encoders(backend))
    assert {region.keyword for region in regions} == set(KEYWORDS)
    assert all(region.size == (60, 90) and 0 < region.score <= 1 for region in regions)
    assert regions == [region for word in KEYWORDS for region in backend.segment(picture, [word])]
    other = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    again = backend.segment(other, KEYWORDS)
    assert again != regions
    assert again == opened(name, folders).segment(other, KEYWORDS), "nothing of the last picture is left"


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_runs(name: str, folders: dict[str, str], picture: Image.Image) -> None:
    assert opened(name, folders, dtype="bfloat16").segment(picture, KEYWORDS)


def test_fingerprints_tell_settings_and_weights_apart(folders: dict[str, str], tmp_path: Path) -> None:
    one = backend_fingerprint(opened("clipseg", folders))
    assert (
        one is not None
        and one.startswith("clipseg-")
        and one == backend_fingerprint(opened("clipseg", folders))
    )
    assert one != backend_fingerprint(opened("clipseg", folders, mask_threshold=0.6))
    assert one != backend_fingerprint(opened("clipseg", folders, dtype="bfloat16"))
    torch.manual_seed(7)
    other = save_clipseg(tmp_path)
    assert one != backend_fingerprint(opened("clipseg", {"clipseg": str(other)}))
    for name in ("grounded-sam2", "sam3"):
        settings: list[dict[str, float]] = [{}, {"box_threshold": 0.2}, {"mask_threshold": 0.6}]
        assert len({backend_fingerprint(opened(name, folders, **change)) for change in settings}) == 3


def test_revisions_and_names_go_to_their_models() -> None:
    defaults = Checkpoint("detector", gate="https://gate"), Checkpoint("segmenter")
    assert checkpoints(RegionOptions(revision="v1,v2"), *defaults) == [
        Checkpoint("detector", "v1", "https://gate"),
        Checkpoint("segmenter", "v2"),
    ]
    assert checkpoints(RegionOptions(model="a,b", revision="v1,v2"), *defaults) == [
        Checkpoint("a", "v1"),
        Checkpoint("b", "v2"),
    ]


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    folder = save_clipseg(tmp_path)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match="cannot be loaded"):
        load_backend("clipseg", RegionOptions(model=str(folder), device="cpu"))


def test_the_square_that_sam_sees() -> None:
    """The left half black, the right half white, squeezed to 4x4; mean and deviation by channel."""
    picture = Image.new("RGB", (40, 10))
    picture.paste((255, 255, 255), (20, 0, 40, 10))
    place = Place(torch.device("cpu"), torch.float32)
    settings = {"size": {"height": 4}, "image_mean": [0.5, 0.25, 0.0], "image_std": [0.5, 0.25, 1.0]}
    for given in (settings, {"image_processor": settings}):
        (pixels,) = SquareInput(given, place)(picture)
        assert pixels.shape == (3, 4, 4)
        assert pixels[:, :, 0].tolist() == [[-1.0] * 4, [-1.0] * 4, [0.0] * 4]
        assert pixels[:, :, 3].tolist() == [[1.0] * 4, [3.0] * 4, [1.0] * 4]
    assert SquareInput({}, place).side == 1024


def test_sam2_equals_the_plain_model(folders: dict[str, str], picture: Image.Image) -> None:
    from transformers import Sam2Model

    segmenter = opened("owlv2-sam", folders).segmenter
    plain = Sam2Model.from_pretrained(folders["owlv2-sam"].split(",")[1]).eval()
    boxes = np.array([[5.0, 5.0, 60.0, 40.0], [30.0, 10.0, 85.0, 55.0], [0.0, 0.0, 20.0, 20.0]])
    scaled = torch.tensor(boxes * np.tile([128 / 90, 128 / 60], 2), dtype=torch.float32)
    with torch.inference_mode():
        out = plain(pixel_values=segmenter._input(picture), input_boxes=scaled[None], multimask_output=False)
        shown = torch.nn.functional.interpolate(out.pred_masks[0], (60, 90), mode="bilinear")[:, 0]
    middle = float(shown.sigmoid().median())
    masks, quality = zip(*segmenter.masks(picture, boxes, middle), strict=True)
    assert (np.stack(masks) != (shown.sigmoid() > middle).numpy()).mean() < 0.01
    np.testing.assert_allclose(quality, out.iou_scores[0, :, 0].numpy(), atol=1e-4)


def test_sam3_equals_the_plain_model(folders: dict[str, str], picture: Image.Image, tmp_path: Path) -> None:
    from transformers import Sam3Model

    backend = opened("sam3", folders)
    plain = Sam3Model.from_pretrained(folders["sam3"]).eval()
    text = backend._tokenizer("dog", padding="max_length", max_length=16, return_tensors="pt")
    with torch.inference_mode():
        out = plain(pixel_values=backend._input(picture), **text)
    expected = decode_instances(
        "dog",
        out.pred_logits[0],
        out.presence_logits[0],
        out.pred_masks[0],
        size=(60, 90),
        score_threshold=0.01,
        mask_threshold=0.5,
    )
    found = backend.segment(picture, ["dog"])
    assert [region.score for region in found] == pytest.approx(
        [region.score for region in expected], abs=2e-4
    )
    assert len(found) > 0
    # Without settings of its own a checkpoint gets the preprocessing of SAM 3, not that of SAM 2.
    shutil.copytree(folders["sam3"], tmp_path / "bare")
    (tmp_path / "bare/preprocessor_config.json").unlink()
    bare = opened("sam3", {"sam3": str(tmp_path / "bare")})._input
    assert bare.side == 1008 and bare(Image.new("RGB", (9, 9))).unique().tolist() == [-1.0]


def test_grounding_dino_equals_the_official_processor(
    folders: dict[str, str], picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import GroundingDinoForObjectDetection, GroundingDinoProcessor

    monkeypatch.setattr(instances, "NMS_IOU", 1.0)
    detector = opened("grounded-sam2", folders).detector
    processor = GroundingDinoProcessor(detector._images, detector._tokenizer)
    plain = GroundingDinoForObjectDetection.from_pretrained(folders["grounded-sam2"].split(",")[0]).eval()
    for keyword, ours in zip(KEYWORDS, detector.boxes(picture, KEYWORDS, 0.3), strict=True):
        inputs = processor(images=picture, text=f"{keyword}.", return_tensors="pt")
        with torch.inference_mode():
            out = plain(**inputs)
        (theirs,) = processor.post_process_grounded_object_detection(
            out, inputs["input_ids"], threshold=0.3, text_threshold=0.3, target_sizes=[(60, 90)]
        )
        inside = theirs["boxes"].clamp(min=0).minimum(torch.tensor([90.0, 60.0, 90.0, 60.0])).numpy()
        order = np.argsort(-theirs["scores"].numpy(), kind="stable")
        solid = [i for i in order if (inside[i, 2:] - inside[i, :2] >= 1).all()][: instances.MAX_INSTANCES]
        assert len(ours.scores) == len(solid) > 0
        np.testing.assert_allclose(ours.scores, theirs["scores"].numpy()[solid], atol=2e-4)
        np.testing.assert_allclose(ours.xyxy, inside[solid], atol=0.05)


def test_owlv2_equals_the_official_processor(
    folders: dict[str, str], picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Owlv2ForObjectDetection

    monkeypatch.setattr(instances, "NMS_IOU", 1.0)
    detector = opened("owlv2-sam", folders).detector
    plain = Owlv2ForObjectDetection.from_pretrained(folders["owlv2-sam"].split(",")[0]).eval()
    pixels = detector._images(images=[picture], return_tensors="pt")["pixel_values"]
    for keyword, ours in zip(KEYWORDS, detector.boxes(picture, KEYWORDS, 0.4), strict=True):
        text = detector._tokenizer(
            f"a photo of a {keyword}", padding="max_length", max_length=16, return_tensors="pt"
        )
        with torch.inference_mode():
            out = plain(
                input_ids=text["input_ids"], attention_mask=text["attention_mask"], pixel_values=pixels
            )
        (theirs,) = detector._images.post_process_object_detection(
            out, threshold=0.4, target_sizes=[(60, 90)]
        )
        inside = theirs["boxes"].clamp(min=0).minimum(torch.tensor([90.0, 60.0, 90.0, 60.0])).numpy()
        order = np.argsort(-theirs["scores"].numpy(), kind="stable")
        solid = [i for i in order if (inside[i, 2:] - inside[i, :2] >= 1).all()][: instances.MAX_INSTANCES]
        assert len(ours.scores) == len(solid) > 0
        np.testing.assert_allclose(ours.scores, theirs["scores"].numpy()[solid], atol=2e-4)
        np.testing.assert_allclose(ours.xyxy, inside[solid], atol=0.05)


def test_clipseg_equals_the_plain_model(folders: dict[str, str], picture: Image.Image) -> None:
    from transformers import CLIPSegForImageSegmentation

    backend = opened("clipseg", folders)
    plain = CLIPSegForImageSegmentation.from_pretrained(folders["clipseg"]).eval()
    pixels = backend._images(images=[picture], return_tensors="pt")["pixel_values"]
    text = backend._tokenizer("a photo of a dog", padding="max_length", max_length=16, return_tensors="pt")
    with torch.inference_mode():
        logits = plain(
            input_ids=text["input_ids"], attention_mask=text["attention_mask"], pixel_values=pixels
        ).logits
        shown = torch.nn.functional.interpolate(logits.reshape(1, 1, 64, 64), (60, 90), mode="bilinear")[0, 0]
    middle = float(shown.sigmoid().median())
    (region,) = opened("clipseg", folders, mask_threshold=middle).segment(picture, ["dog"])
    expected = (shown.sigmoid() > middle).numpy()
    assert (decode_rle(region.rle, region.size) != expected).mean() < 0.01
    sure = logits.sigmoid()[logits.sigmoid() > middle]
    assert region.score == pytest.approx(float(sure.mean()), abs=1e-3)


def test_boxes_of_a_wide_picture() -> None:
    """Height 100, width 200: x scales with the width; scores equal to the threshold are out."""
    boxes = torch.tensor([[0.5, 0.25, 0.2, 0.1], [0.1, 0.9, 0.4, 0.4], [0.7, 0.7, 0.1, 0.1]])
    found = decode_boxes(boxes, torch.tensor([0.6, 0.9, 0.5]), 0.5, (100, 200), (100, 200))
    np.testing.assert_allclose(found.xyxy, [[0, 70, 60, 100], [80, 20, 120, 30]], atol=1e-3)
    np.testing.assert_allclose(found.scores, [0.9, 0.6], atol=1e-4)


def test_boxes_of_a_padded_square() -> None:
    """The lower half of the square is padding: a box reaching into it is cut, one inside it is dropped."""
    boxes = torch.tensor([[0.25, 0.4, 0.5, 0.4], [0.5, 0.8, 0.2, 0.2]])
    found = decode_boxes(boxes, torch.tensor([0.9, 0.8]), 0.5, (100, 200), (200.0, 200.0))
    np.testing.assert_allclose(found.xyxy, [[0, 40, 100, 100]], atol=1e-3)


def test_doubles_are_dropped_and_neighbours_kept() -> None:
    boxes = torch.tensor([[0.3, 0.5, 0.2, 0.2], [0.31, 0.5, 0.2, 0.2], [0.45, 0.5, 0.2, 0.2]])
    found = decode_boxes(boxes, torch.tensor([0.7, 0.9, 0.8]), 0.1, (100, 100), (100, 100))
    np.testing.assert_allclose(found.scores, [0.9, 0.8], atol=1e-4)


def test_masks_keep_their_orientation_and_threshold() -> None:
    """A 2x4 logit map whose upper right quarter is sure, the lower right unsure."""
    low = torch.full((1, 2, 4), -20.0)
    low[0, 0, 2:] = 20.0
    low[0, 1, 2:] = logit(0.6)
    (mask,) = resized_masks(low, (100, 400), 0.5)
    assert mask.shape == (100, 400) and not mask[:, :150].any() and mask[10:90, 250:].all()
    (mask,) = resized_masks(low, (100, 400), 0.7)
    assert mask[10:30, 250:].all() and not mask[80:].any()
    assert resized_masks(low[:0], (100, 400), 0.5).shape == (0, 100, 400)


def test_instances_of_sam3() -> None:
    """Scores are products with the presence; the surest comes first; boxes are those of the masks."""
    masks = torch.full((3, 4, 8), -20.0)
    masks[0, :2, :4] = 20.0
    masks[1, 2:, 4:] = 20.0
    masks[2] = 20.0
    found = decode_instances(
        "dog",
        torch.tensor([logit(0.7), logit(0.9), logit(0.55)]),
        torch.tensor([logit(0.8)]),
        masks,
        size=(40, 160),
        score_threshold=0.5,
        mask_threshold=0.5,
    )
    assert [region.score for region in found] == [0.72, 0.56]
    assert [region.box for region in found] == [(80, 20, 160, 40), (0, 0, 80, 20)]
    absent = decode_instances(
        "dog",
        torch.tensor([9.0]),
        torch.tensor([-9.0]),
        masks[:1],
        size=(40, 160),
        score_threshold=0.5,
        mask_threshold=0.5,
    )
    assert absent == []


def test_boxes_become_masks_of_their_own_place(
    folders: dict[str, str], picture: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SAM 2 gets boxes in pixels of its square, and its masks go back to keyword and box in order."""
    backend = opened("grounded-sam2", folders)
    given: list[np.ndarray] = []

    def decode(self: Any, embeddings: Any, boxes: np.ndarray) -> tuple[torch.Tensor, np.ndarray]:
        given.append(boxes)
        logits = torch.full((len(boxes), 32, 32), -20.0)
        for index, (x0, y0, x1, y1) in enumerate((boxes / 4).round().astype(int)):
            logits[index, y0:y1, x0:x1] = 20.0
        return logits, np.ones(len(boxes))

    monkeypatch.setattr(type(backend.segmenter), "_decode", decode)
    regions = backend.segment(picture, KEYWORDS)
    boxes = np.concatenate(given)
    assert len(boxes) >= len(regions) > 3
    np.testing.assert_allclose(boxes[0], np.array(regions[0].box) * np.tile([128 / 90, 128 / 60], 2))
    for region in regions:
        tight = np.array(box_of(decode_rle(region.rle, region.size)))
        assert np.abs(tight - region.box).max() < 6


def test_what_cannot_be_loaded_says_how_to_get_it(folders: dict[str, str], tmp_path: Path) -> None:
    for name in ("clipseg", "grounded-sam2", "owlv2-sam"):
        with pytest.raises(UserError) as caught:
            load_backend(name, RegionOptions(device="cpu"))
        for checkpoint in default_checkpoints()[name]:
            assert f"`hf download {checkpoint.name}`" in caught.value.fix
        assert "--regions annotations --annotations FILE" in caught.value.fix
    with pytest.raises(UserError, match=r"ask for access at .*`hf download facebook/sam3`"):
        load_backend("sam3", RegionOptions(device="cpu"))
    with pytest.raises(UserError, match="`hf download own/clipseg --revision v2`"):
        load_backend("clipseg", RegionOptions(model="own/clipseg", revision="v2", device="cpu"))
    half = f"own/dino,{folders['clipseg']}"
    with pytest.raises(UserError, match=r"`hf download own/dino` where .*--region_model FOLDER,FOLDER"):
        load_backend("grounded-sam2", RegionOptions(model=half, device="cpu"))
    with pytest.raises(UserError) as caught:
        load_backend("clipseg", RegionOptions(model=str(tmp_path / "gone"), device="cpu"))
    assert "hf download" not in caught.value.fix and "a folder with config.json" in caught.value.fix
    with pytest.raises(UserError, match="DETECTOR,SEGMENTER"):
        load_backend("grounded-sam2", RegionOptions(model=folders["clipseg"], device="cpu"))
    with pytest.raises(UserError, match="--device cuda:9"):
        load_backend("clipseg", RegionOptions(model=folders["clipseg"], device="cuda:9"))
    with pytest.raises(UserError, match="cannot be loaded"):
        load_backend("clipseg", RegionOptions(model=str(tmp_path), device="cpu"))


@pytest.mark.slow
def test_a_build_with_a_model_is_the_same_for_any_number_of_workers(
    folders: dict[str, str], picture: Image.Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for number in range(6):
        picture.rotate(20 * number).save(tmp_path / f"{number}.png")
        texts = {"chosen": "A red mug and a dog.", "rejected": "A blue mug and a cat."}
        rows.append(json.dumps({"image": f"{number}.png", "question": "What?", **texts}))
    (tmp_path / "pairs.jsonl").write_text("\n".join(rows))
    config = BuildConfig(
        dataset=str(tmp_path / "pairs.jsonl"),
        regions="clipseg",
        region_model=folders["clipseg"],
        mask_threshold=0.5,
        max_region=1.0,
    )
    for workers in (1, 2):
        monkeypatch.setenv("MFPO_CACHE", str(tmp_path / f"cache{workers}"))
        build_dataset(replace(config, output_dir=str(tmp_path / str(workers)), num_workers=workers))
        assert list((tmp_path / f"cache{workers}/regions").glob("clipseg-*.sqlite"))
    assert [path.read_bytes() for path in shard_files(tmp_path / "1")] == [
        path.read_bytes() for path in shard_files(tmp_path / "2")
    ]
    assert {region.keyword for row in open_dataset(tmp_path / "1") for region in row.regions} == {
        "red mug",
        "dog",
    }
