from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mfpo.data.annotation_files import load_annotations
from mfpo.data.folder import open_dataset
from mfpo.errors import UserError
from mfpo.preferences.regions.masks import decode_rle
from mfpo.records import Messages, text_of
from mfpo.scenes.captions import parse, parse_plan
from mfpo.scenes.command import run, write_rows
from mfpo.scenes.config import DifficultySettings, ScenesConfig
from mfpo.scenes.difficulty import world_of
from mfpo.scenes.grounding import grounding_items
from mfpo.scenes.preferences import RowMaker
from mfpo.scenes.render import Drawing, draw
from mfpo.scenes.world import Scene, sample_scene


@pytest.fixture(scope="module")
def rows() -> list:
    return list(RowMaker().rows(80))


def test_rejected_hallucinates_and_chosen_does_not(rows: list) -> None:
    for row in rows:
        rejected, chosen = parse(text_of(row.pair.rejected)), parse(text_of(row.pair.chosen))
        assert any(m.kind not in row.scene.kinds for m in rejected)
        for mention in chosen:
            item = row.scene.find(mention.kind)
            assert item is not None and mention.colour in (None, item.colour)
        assert len({m.kind for m in chosen}) == len(chosen)


def test_lengths_are_balanced(rows: list) -> None:
    difference = [len(text_of(r.pair.chosen).split()) - len(text_of(r.pair.rejected).split()) for r in rows]
    assert abs(np.mean(difference)) < 0.5
    assert np.std(difference) > 1


def test_rows_are_always_the_same_and_a_prefix(rows: list) -> None:
    again = list(RowMaker().rows(20))
    assert [row.pair.id for row in again] == [row.pair.id for row in rows[:20]]


def test_rows_and_annotations_on_disk(tmp_path: Path) -> None:
    write_rows(RowMaker(store_swapped=True), 12, tmp_path)
    dataset = open_dataset(tmp_path)
    assert len(dataset) == 12 and all(len(pair.rejected_images) == 1 for pair in dataset)
    annotations = load_annotations(tmp_path / "annotations.jsonl")
    pair = dataset[3]
    found = annotations.find(pair.images[0].path)
    assert found is not None
    scene = sample_scene("train", int(pair.images[0].path.split("-")[-1].split(".")[0]))
    assert {thing.label for thing in found.objects} == scene.kinds
    thing = found.objects[0]
    mask = decode_rle(thing.rle, thing.size)
    ys, xs = np.nonzero(mask)
    assert thing.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


class Babbler:
    name = "runs/babbler"


def test_a_model_that_babbles_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def generate(vlm: Babbler, images: list, prompts: list, **settings: object) -> list[str]:
        asked.append(len(prompts))
        return ["the the mug"] * len(prompts)

    monkeypatch.setattr("mfpo.models.generation.generate", generate)
    monkeypatch.setattr("mfpo.scenes.preferences.draw", lambda scene, size: SimpleNamespace(image=None))
    with pytest.raises(
        UserError, match=r"^runs/babbler: 500 answers .* \(500 not-a-caption\); 0 of 9"
    ) as caught:
        write_rows(RowMaker(Babbler()), 9, tmp_path / "rows")
    assert "without --quick" in caught.value.fix and len(asked) == 1
    assert not list((tmp_path / "rows").iterdir())


def test_the_advice_fits_the_main_reason(tmp_path: Path) -> None:
    """With one object in a scene nothing can be added to a correction; fewer objects were advised."""
    world = world_of(DifficultySettings(min_objects=1, max_objects=1))
    with pytest.raises(UserError, match="lengths-unbalanced") as caught:
        write_rows(RowMaker(world=world), 300, tmp_path / "rows")
    assert caught.value.fix.startswith("let scenes hold more objects")


def test_quick_rows_are_from_templates(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mfpo.scenes.command.ensure_llava", lambda *args, **kwargs: True)
    loaded: list[str] = []
    monkeypatch.setattr("mfpo.scenes.command.load_vlm", lambda name, **_: loaded.append(name))
    config = ScenesConfig(output_dir=str(tmp_path / "rows"), train_model=str(tmp_path / "m"), num_samples=4)
    run(replace(config, quick=True))
    assert "answers are from templates" in capsys.readouterr().out and not loaded
    assert len(open_dataset(tmp_path / "rows")) == 4
    run(replace(config, output_dir=str(tmp_path / "sampled")))
    assert "templates" not in capsys.readouterr().out and loaded == [str(tmp_path / "m")]


@pytest.mark.parametrize("name", ["README.md", "config.yaml", "annotations.jsonl"])
def test_files_of_somebody_else_are_told_before_a_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr("mfpo.scenes.command.ensure_llava", lambda *args, **kwargs: pytest.fail("trained"))
    (tmp_path / name).write_text("years of work")
    config = ScenesConfig(output_dir=str(tmp_path), train_model=str(tmp_path / "m"), num_samples=4)
    with pytest.raises(UserError, match=f"{name} would be replaced"):
        run(config)
    assert (tmp_path / name).read_text() == "years of work"
    run(replace(config, train_model=None, overwrite=True))
    assert len(open_dataset(tmp_path)) == 4


def test_pictures_that_nobody_looks_at_are_not_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[object] = []

    def counted(scene: Scene, size: int) -> Drawing:
        drawn.append(scene)
        return draw(scene, size)

    monkeypatch.setattr("mfpo.scenes.preferences.draw", counted)
    assert [row.scene for row in RowMaker().rows(3)] == drawn


def test_grounding_captions_differ_in_one_object() -> None:
    for item in grounding_items(20, split="validation"):
        one, other = (
            {(m.kind, m.colour, m.position) for m in parse(text)}
            for text in (item.caption, item.swapped_caption)
        )
        (gone,), (new,) = one - other, other - one
        assert gone[0] != new[0] and gone[1:] == new[1:]
        assert parse_plan(item.swapped_caption) is not None
        pictures = [np.asarray(image) for image in (item.image, item.swapped_image, item.removed_image)]
        changed = (pictures[0] != pictures[1]).any(-1)
        assert 0 < changed.mean() < 0.25
        assert (pictures[0] != pictures[2]).any()


def test_corrections_differ_in_what_they_say_and_not_in_how() -> None:
    rows = list(RowMaker().rows(150))

    def habits(messages: list[Messages]) -> np.ndarray:
        texts = [text_of(message) for message in messages]
        mentions = [mention for text in texts for mention in parse(text)]
        return np.array(
            [
                np.mean([mention.colour is not None for mention in mentions]),
                np.mean([mention.position is not None for mention in mentions]),
                np.mean([text.count(".") > 1 for text in texts]),
                np.mean([len(text.split()) for text in texts]) / 100,
            ]
        )

    chosen, rejected = habits([r.pair.chosen for r in rows]), habits([r.pair.rejected for r in rows])
    assert np.abs(chosen - rejected).max() < 0.05
