"""Probes: log-probabilities against a plain forward pass, and what models of known behaviour score."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mfpo.data import images
from mfpo.errors import UserError
from mfpo.evaluation import distortion as distortion_module
from mfpo.evaluation import grounding as grounding_module
from mfpo.evaluation import probes
from mfpo.evaluation.benchmarks.scenes import edited_scenes
from mfpo.evaluation.config import ProbeConfig
from mfpo.evaluation.distortion import Distortion, distortion, distortions
from mfpo.evaluation.grounding import grounding
from mfpo.evaluation.pair_scores import PairLogps, score_pairs
from mfpo.evaluation.results import ScoreResult
from mfpo.models.load import VLM, load_vlm
from mfpo.preferences.encoding import RowEncoder
from mfpo.preferences.regions.masks import box_of, encode_rle
from mfpo.preferences.rejected import rejected_inputs
from mfpo.records import ImageSource, Noise, PreferencePair, Region, assistant_message, row_seed, user_message
from mfpo.scenes.captions import parse
from mfpo.scenes.world import sample_scene

CONDITIONS = distortions(["region", "global", "black"], [500, 900])


@pytest.fixture(scope="module")
def vlm(tiny_llava: Path) -> VLM:
    return load_vlm(str(tiny_llava), device="cpu")


@pytest.fixture(scope="module")
def blind(vlm: VLM) -> VLM:
    """A model that knows the language and sees nothing: its projector gives zeros."""
    model = copy.deepcopy(vlm.model)
    with torch.no_grad():
        for parameter in model.model.multi_modal_projector.parameters():
            parameter.zero_()
    return VLM(model, vlm.processor, "blind")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[PreferencePair]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    found = []
    for number, (chosen, rejected) in enumerate(
        [
            ("A red mug.", "A blue plate and a green apple."),
            ("A kitchen with a mug.", "A kitchen."),
            ("Red.", "A green apple."),
        ]
    ):
        path = folder / f"{number}.png"
        Image.fromarray(rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(path)
        mask = np.zeros((48, 48), bool)
        mask[10:30, 5:25] = True
        found.append(
            PreferencePair(
                id=f"row{number}",
                images=(ImageSource(str(path)),),
                prompt=user_message("Describe the image."),
                chosen=assistant_message(chosen),
                rejected=assistant_message(rejected),
                regions=(Region("mug", box_of(mask), 1.0, encode_rle(mask), (48, 48)),),
                noise=Noise(seed=row_seed(0, f"row{number}")),
            )
        )
    return found


def plain_logp(vlm: VLM, pixels: torch.Tensor, answer: str) -> float:
    """log pi(answer | image, "Describe the image.") from one forward pass over the whole sequence."""
    prompt = "USER: <image>\nDescribe the image. ASSISTANT:"
    placeholder = Image.new("RGB", (48, 48))
    head = vlm.processor(images=[placeholder], text=[prompt], return_tensors="pt")["input_ids"]
    whole = vlm.processor(images=[placeholder], text=[f"{prompt} {answer}</s>"], return_tensors="pt")[
        "input_ids"
    ]
    with torch.no_grad():
        logits = vlm.model(input_ids=whole, pixel_values=pixels).logits
    logps = logits[0, :-1].log_softmax(-1).gather(-1, whole[0, 1:, None])[:, 0]
    return logps[head.shape[1] - 1 :].sum().item()


def test_distortions() -> None:
    names = [condition.name for condition in CONDITIONS]
    assert names == ["region@500", "region@900", "global@500", "global@900", "black"]
    both = distortions(["region", "black"], [500, 900], ["vcd", "ddpm-linear"])
    assert [condition.name for condition in both] == [
        "region@500", "region@900", "region/ddpm-linear@500", "region/ddpm-linear@900", "black",
    ]  # fmt: skip
    assert Distortion().name == "clean"


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_distortion_scores_equal_a_plain_forward_pass(
    vlm: VLM, pairs: list[PreferencePair], batch_size: int
) -> None:
    conditions = [*CONDITIONS, Distortion("region", 500, "ddpm-linear")]
    result = distortion(vlm, pairs, conditions, batch_size=batch_size, progress=False)
    assert result.settings["schedules"] == ["ddpm-linear", "vcd"]
    for pair, record in zip(pairs, result.items, strict=True):
        assert record["region/ddpm-linear@500 gap"] != record["region@500 gap"]
        image = Image.open(pair.images[0].path)
        for condition in (Distortion(), *conditions):
            if condition.scope is None:
                inputs = vlm.image_processor(images=[image], return_tensors="pt")
            else:
                noise = Noise(
                    scope=condition.scope,
                    schedule=condition.schedule,
                    step=condition.step or 500,
                    seed=pair.noise.seed,
                )
                inputs = rejected_inputs(vlm.image_processor, image, pair.regions, noise).inputs
            for answer in ("chosen", "rejected"):
                text = getattr(pair, answer)[0]["content"][0]["text"]
                assert record[f"{condition.name} {answer}"] == pytest.approx(
                    plain_logp(vlm, inputs["pixel_values"], text), abs=1e-4
                )


def test_distortion_metrics_follow_from_the_records(vlm: VLM, pairs: list[PreferencePair]) -> None:
    result = distortion(vlm, pairs, CONDITIONS, progress=False)
    for name in ("clean", "region@500", "black"):
        preferred = [item[f"{name} chosen"] > item[f"{name} rejected"] for item in result.items]
        assert result.metrics[name] == pytest.approx(100 * np.mean(preferred))
    assert result.metrics["drop black"] == pytest.approx(result.metrics["clean"] - result.metrics["black"])
    gaps = {
        item[f"{name} gap"]
        for item in result.items
        for name in ("clean", "region@500", "global@900", "black")
    }
    assert len(gaps) == 12


def test_a_blind_model_prefers_the_same_on_any_image(blind: VLM, pairs: list[PreferencePair]) -> None:
    result = distortion(blind, pairs, CONDITIONS, progress=False)
    assert all(result.metrics[f"drop {condition.name}"] == 0 for condition in CONDITIONS)
    for item in result.items:
        assert item["black gap"] == pytest.approx(item["clean gap"], abs=1e-5)


def test_unreadable_rows_are_counted(vlm: VLM, pairs: list[PreferencePair]) -> None:
    gone = PreferencePair(
        "gone", (ImageSource("nowhere.png"),), pairs[0].prompt, pairs[0].chosen, pairs[0].rejected
    )
    result = distortion(vlm, [gone, *pairs], [Distortion("black")], progress=False)
    assert [item["id"] for item in result.items] == [pair.id for pair in pairs]
    assert [skip["reason"] for skip in result.settings["skipped"]] == ["missing-image"]
    with pytest.raises(UserError, match="none of the 1 rows"):
        distortion(vlm, [gone], [], progress=False)


def test_a_picture_is_decoded_once_for_all_its_distortions(
    vlm: VLM, pairs: list[PreferencePair], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    monkeypatch.setattr(
        distortion_module, "open_image", lambda source: opened.append(source) or images.open_image(source)
    )
    distortion(vlm, pairs, CONDITIONS, progress=False)
    assert opened == [pair.images[0] for pair in pairs]


@pytest.mark.parametrize(("batch_size", "taken"), [(1, [1, 2, 3]), (4, [2, 2, 3]), (64, [3, 3, 3])])
def test_rows_are_scored_as_they_come(
    vlm: VLM, pairs: list[PreferencePair], batch_size: int, taken: list[int]
) -> None:
    encoder, started, seen = RowEncoder(vlm.processor, rejected_image=False), [], []
    rows = ((pair.id, encoder.encode(pair)) for pair in pairs if started.append(pair.id) is None)
    for key, logps in score_pairs(vlm, encoder, rows, batch_size=batch_size):
        assert key == pairs[len(seen)].id and logps.chosen < 0 and logps.rejected < 0
        seen.append(len(started))
    assert seen == taken


def test_a_blind_model_cannot_pass_the_grounding_probe(blind: VLM) -> None:
    """What it gains on one drawing it loses on the other."""
    result = grounding(blind, edited_scenes(6), progress=False)
    metrics = result.metrics
    assert metrics["pair_accuracy"] == 0
    assert metrics["swap_accuracy"] + metrics["clean_accuracy"] == pytest.approx(100)
    assert metrics["removal_gap"] == pytest.approx(0, abs=1e-5)
    assert metrics["swap_gap"] == pytest.approx(-metrics["clean_gap"], abs=1e-4)


def test_grounding_scores_equal_a_plain_forward_pass(vlm: VLM) -> None:
    items = list(edited_scenes(1))
    record = grounding(vlm, items, progress=False).items[0]
    assert items[0].prompt == user_message("Describe the image.")

    def score(image: Image.Image, caption: str) -> float:
        return plain_logp(
            vlm, vlm.image_processor(images=[image], return_tensors="pt")["pixel_values"], caption
        )

    item = items[0]
    clean = score(item.image, item.caption)
    assert record["caption_logp"] == pytest.approx(clean, abs=1e-3)
    assert record["clean_gap"] == pytest.approx(clean - score(item.image, item.swapped_caption), abs=1e-3)
    swapped = score(item.swapped_image, item.swapped_caption) - score(item.swapped_image, item.caption)
    assert record["swap_gap"] == pytest.approx(swapped, abs=1e-3)
    assert record["removal_gap"] == pytest.approx(clean - score(item.removed_image, item.caption), abs=1e-3)


def test_an_all_seeing_model_passes_the_probe(vlm: VLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its log-probability of a caption is how well the caption fits what is drawn."""
    fits = {"clean": PairLogps(0, -5), "swapped": PairLogps(-5, -1), "removed": PairLogps(-3, -4)}
    monkeypatch.setattr(
        grounding_module,
        "score_pairs",
        lambda vlm, encoder, rows, batch_size: (((record, name), fits[name]) for (record, name), _ in rows),
    )
    metrics = grounding(vlm, edited_scenes(3), progress=False).metrics
    assert metrics == {
        "swap_accuracy": 100, "clean_accuracy": 100, "pair_accuracy": 100, "removal_accuracy": 100,
        "swap_gap": 4, "clean_gap": 5, "removal_gap": 3, "caption_logp": 0,
    }  # fmt: skip


def test_edits_change_one_object_and_its_mention() -> None:
    for number, item in enumerate(edited_scenes(5)):
        assert sample_scene("test", number).id == item.id
        before, after = ({m.kind for m in parse(text)} for text in (item.caption, item.swapped_caption))
        assert len(before - after) == len(after - before) == 1
        assert item.image.tobytes() != item.swapped_image.tobytes() != item.removed_image.tobytes()
    with pytest.raises(UserError, match="for training"):
        edited_scenes(5, "train")


def test_run_writes_a_score_file(
    tiny_llava: Path, pairs: list[PreferencePair], tmp_path: Path, capsys
) -> None:
    from mfpo.data.writer import DatasetWriter

    with DatasetWriter(tmp_path / "data") as writer:
        for pair in pairs:
            writer.write(pair)
    common = {"model_name_or_path": str(tiny_llava), "output_dir": str(tmp_path / "run"), "device": "cpu"}
    probes.run(
        ProbeConfig(
            **common,
            probe="distortion",
            dataset=str(tmp_path / "data"),
            noise_scopes=("region",),
            noise_steps=(500,),
            noise_schedules=("vcd", "ddpm-linear"),
            num_samples=2,
        )
    )
    probes.run(ProbeConfig(**common, probe="grounding", num_samples=2))
    found = {
        name: ScoreResult.load(tmp_path / "run" / "scores" / f"{name}.json")
        for name in ("distortion", "grounding")
    }
    other = "region/ddpm-linear@500"
    assert list(found["distortion"].metrics) == [
        "clean", "region@500", other, "drop region@500", f"drop {other}",
    ]  # fmt: skip
    assert [len(result.items) for result in found.values()] == [2, 2]
    assert "swap_accuracy" in capsys.readouterr().out
    with pytest.raises(UserError, match="--dataset"):
        probes.run(ProbeConfig(**common, probe="distortion"))
