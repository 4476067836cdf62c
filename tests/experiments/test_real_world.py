"""``--world llava``: the same files on a checkpoint with rows and benchmarks on disk, all of them tiny."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from mfpo.data.writer import DatasetWriter
from mfpo.errors import UserError
from mfpo.experiments import measures
from mfpo.experiments.catalog import find
from mfpo.experiments.config import ExperimentConfig
from mfpo.experiments.measures import Measuring
from mfpo.experiments.run import folder_of, notes_of, plan_of
from mfpo.experiments.run import run as experiment
from mfpo.experiments.scheduler import missing_steps
from mfpo.experiments.store import Store
from mfpo.experiments.worlds import given_rows, narrowest_variant
from preference_rows import make_pairs

MINE = """
title: a real checkpoint
arms:
  - {name: sft}
  - {name: mfpo, train: {objective: mfpo, stages: easy_to_hard}}
  - {name: after easy, train: {objective: mfpo, stages: easy_to_hard}, stage: 1}
  - {name: templates, train: {objective: mfpo}, data: {source: templates}}
metrics:
  scenes: [F1]
  pope: [Accuracy, Yes_ratio]
  distortion: [clean, drop black]
  rewards: [text_margin]
claims:
  - {text: it helps, better: mfpo, than: sft, metrics: [Accuracy, drop black]}
"""


@pytest.fixture
def settings(tiny_llava: Path, tmp_path: Path) -> ExperimentConfig:
    with DatasetWriter(tmp_path / "rows") as writer:
        for pair in make_pairs(9):
            writer.write(pair)
    pope = tmp_path / "benchmarks" / "pope"
    (pope / "val2014").mkdir(parents=True)
    for number in range(2):
        Image.new("RGB", (40, 40), (90 * number, 30, 60)).save(pope / "val2014" / f"{number}.jpg")
    for split in ("random", "popular", "adversarial"):
        rows = [
            {"question_id": at, "image": f"{at % 2}.jpg", "text": f"Is there a mug {at}?", "label": label}
            for at, label in enumerate(("yes", "no"), start=1)
        ]
        (pope / f"coco_pope_{split}.json").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "mine.yaml").write_text(MINE)
    return ExperimentConfig(
        name=str(tmp_path / "mine.yaml"),
        world="llava",
        model_name_or_path=str(tiny_llava),
        dataset=(str(tmp_path / "rows"),),
        data_dir=str(tmp_path / "benchmarks"),
        output_dir=str(tmp_path / "out"),
        train={"learning_rate": 1e-3, "per_device_train_batch_size": 3, "gradient_accumulation_steps": 1},
    )


def test_settings_of_the_other_world_are_refused() -> None:
    with pytest.raises(UserError, match=r"--sft_seeds.*--world llava has no use for it"):
        ExperimentConfig(name="table1", world="llava", sft_seeds=2)
    with pytest.raises(UserError, match=r"--train.*--world scenes has no use for it"):
        ExperimentConfig(name="table1", train={"use_lora": True})


def test_worlds_of_scenes_are_no_matter_of_a_checkpoint(settings: ExperimentConfig) -> None:
    settings.name = "conditions"
    with pytest.raises(UserError, match=r"conditions: worlds.*a checkpoint has one world only"):
        experiment(settings)


def test_rates_of_a_sweep_are_taken_for_a_checkpoint(settings: ExperimentConfig, tmp_path: Path) -> None:
    def rates() -> dict[str, float]:
        plan = plan_of(settings, find(str(settings.name)))
        return {name: cells[0, 0].config.learning_rate for name, cells in plan.trainings.items()}

    settings.train |= {"learning_rate": 1e-3}
    assert set(rates().values()) == {1e-3}
    (tmp_path / "tuned.yaml").write_text("fallback: 2.0e-5\nlearning_rates: {mfpo: 3.0e-4}\n")
    settings.tuned = str(tmp_path / "tuned.yaml")
    assert rates() == {"mfpo": 3e-4, "after easy": 2e-5}


def test_a_sweep_that_cannot_choose_is_refused_before_it_trains(
    settings: ExperimentConfig, tmp_path: Path
) -> None:
    text = MINE.split("claims:")[0].replace("stage: 1", "stage: 1, tune: mfpo")
    (tmp_path / "mine.yaml").write_text(text + "sweep: [1e-5, 1e-4]\n")
    with pytest.raises(UserError, match="chooses by 'F1' of scenes, which --world llava cannot measure") as e:
        plan_of(settings, find(str(settings.name)))
    assert "distortion, pope, rewards" in e.value.fix


def test_broken_rates_are_told(settings: ExperimentConfig, tmp_path: Path) -> None:
    (tmp_path / "tuned.yaml").write_text("learning_rates: [\n")
    settings.tuned = str(tmp_path / "tuned.yaml")
    with pytest.raises(UserError, match="not valid YAML"):
        plan_of(settings, find(str(settings.name)))


def test_only_benchmarks_that_need_a_judge_are_given_one(settings: ExperimentConfig, tmp_path: Path) -> None:
    (tmp_path / "benchmarks" / "mmhal").mkdir()
    settings.name, settings.judge_model, settings.base_url = "table1", "one", "http://127.0.0.1:1/v1"
    (tmp_path / "benchmarks" / "amber").mkdir()
    measured = plan_of(settings, find("table1")).measured
    judges = {name: measured["sft", name][0, 0].measuring.judge for name in ("amber", "mmhal")}
    assert judges["amber"] is None
    assert judges["mmhal"] is not None and judges["mmhal"].judge_model == "one"
    settings.judge_repeats = 0
    with pytest.raises(UserError, match="--judge_repeats 0"):
        plan_of(settings, find("table1"))


def test_what_a_judge_must_score_is_left_out_without_one(settings: ExperimentConfig, tmp_path: Path) -> None:
    for name in ("amber", "mmhal"):
        (tmp_path / "benchmarks" / name).mkdir()
    settings.name = "table1"
    plan = plan_of(settings, find("table1"))
    assert ("sft", "amber") in plan.measured and ("sft", "mmhal") not in plan.measured
    assert "mmhal is left out: it needs a judge (--judge_model)." in notes_of(settings, plan, [])


def test_amber_is_asked_what_the_table_shows(settings: ExperimentConfig, tmp_path: Path) -> None:
    (tmp_path / "benchmarks" / "amber").mkdir()
    settings.name = "table1"
    measured = plan_of(settings, find("table1")).measured
    assert measured["sft", "amber"][0, 0].measuring.variant == "generative"
    assert narrowest_variant("amber", []) is None
    assert narrowest_variant("amber", ["CHAIR", "Accuracy"]) is None
    assert narrowest_variant("amber", ["Accuracy"]) == "discriminative"
    assert narrowest_variant("pope", ["Accuracy"]) is None


def test_probes_take_rows_of_their_own(settings: ExperimentConfig, tmp_path: Path) -> None:
    plan = plan_of(settings, find(str(settings.name)))
    probed = plan.measured["sft", "distortion"][0, 0]
    assert probed.rows is not None and probed.rows == given_rows(str(tmp_path / "rows"))
    assert any("probed on the training's rows" in note for note in notes_of(settings, plan, []))
    with DatasetWriter(tmp_path / "others") as writer:
        for pair in make_pairs(4):
            writer.write(pair)
    settings.probe_dataset = str(tmp_path / "others")
    plan = plan_of(settings, find(str(settings.name)))
    other = plan.measured["sft", "distortion"][0, 0]
    assert other.digest != probed.digest
    assert not any("probed on" in note for note in notes_of(settings, plan, []))


def test_settings_that_are_not_the_trainings_alone_are_refused(settings: ExperimentConfig) -> None:
    settings.train = {"revision": "other"}
    with pytest.raises(UserError, match=r"--train revision: it is not the training's alone"):
        plan_of(settings, find(str(settings.name)))


def test_another_judge_or_checkpoint_is_another_measurement(
    settings: ExperimentConfig, tmp_path: Path
) -> None:
    (tmp_path / "benchmarks" / "objhal").mkdir()
    settings.name, settings.judge_model, settings.base_url = "table5", "one", "http://127.0.0.1:1/v1"

    def address() -> str:
        return plan_of(settings, find("table5")).measured["sft", "objhal"][0, 0].digest

    found = [address()]
    settings.judge_temperature = 0.5
    found.append(address())
    copy = tmp_path / "copy"
    shutil.copytree(str(settings.model_name_or_path), copy)
    settings.model_name_or_path = str(copy)
    assert address() == found[1], "where the checkpoint is does not matter"
    (copy / "chat_template.jinja").write_text("another")
    found.append(address())
    assert len(set(found)) == 3


def test_an_arm_that_swaps_pictures_needs_rows_that_bring_them(
    settings: ExperimentConfig, tmp_path: Path
) -> None:
    (tmp_path / "benchmarks" / "objhal").mkdir()
    settings.name = "table8"
    plan = plan_of(settings, find("table8"))
    assert "swap" not in plan.trainings and "erase" in plan.trainings
    assert any("swap is left out" in note for note in plan.notes)
    with DatasetWriter(tmp_path / "swaps", rejected_images=True) as writer:
        for pair in make_pairs(3):
            writer.write(replace(pair, rejected_images=pair.images))
    settings.dataset = (str(tmp_path / "swaps"),)
    assert "swap" in plan_of(settings, find("table8")).trainings


def test_other_questions_are_another_measurement(settings: ExperimentConfig, tmp_path: Path) -> None:
    def address() -> str:
        return plan_of(settings, find(str(settings.name))).measured["sft", "pope"][0, 0].digest

    before = address()
    shutil.copytree(tmp_path / "benchmarks", tmp_path / "elsewhere")
    settings.data_dir = str(tmp_path / "elsewhere")
    assert address() == before, "where the data are does not matter"
    questions = tmp_path / "elsewhere" / "pope" / "coco_pope_random.json"
    questions.write_text(questions.read_text().replace("a mug 1", "a mug 8"))
    assert address() != before


def test_answers_are_scored_again_with_tools_that_came_since(
    settings: ExperimentConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "benchmarks" / "amber").mkdir()
    settings.name = "table1"
    step = plan_of(settings, find("table1")).measured["sft", "amber"][0, 0]
    runs = []

    def measure(measuring: Measuring, model: str, folder: Path, **_: object) -> None:
        runs.append(measuring.resume)
        (folder / "scores").mkdir(parents=True, exist_ok=True)
        (folder / "scores" / "amber.json").write_text("{}")

    monkeypatch.setattr(measures, "measure", measure)
    store = Store(tmp_path / "store")
    monkeypatch.setattr(measures, "_scoring_tools", lambda: {"nltk": "3.9.1", "missing": "NLTK's punkt"})
    store.make(step)
    store.make(step)
    assert runs == [True]
    digest = step.digest
    monkeypatch.setattr(measures, "_scoring_tools", lambda: {"nltk": "3.9.1", "missing": ""})
    assert not store.done(step) and step.digest == digest, "in the same folder, whose answers are kept"
    store.make(step)
    assert runs == [True, True] and store.done(step)


@pytest.mark.slow
@pytest.mark.parametrize("use_lora", [False, True])
def test_an_experiment_on_a_checkpoint(settings: ExperimentConfig, use_lora: bool) -> None:
    settings.train |= {"use_lora": use_lora}
    experiment(settings)
    folder = folder_of(settings, find(str(settings.name)))
    assert folder.name == f"mine-{Path(str(settings.model_name_or_path)).name}"
    content = json.loads((folder / "results.json").read_text())
    arms = {arm["name"]: arm["metrics"] for arm in content["arms"]}
    assert set(arms) == {"sft", "mfpo", "after easy"}
    assert set(arms["mfpo"]) == {
        "pope/Accuracy", "pope/Yes_ratio", "distortion/clean", "distortion/drop black", "rewards/text_margin",
    }  # fmt: skip
    assert 0 <= arms["sft"]["pope/Accuracy"]["value"] <= 1
    assert {claim["metric"] for claim in content["claims"]} == {"Accuracy", "drop black"}
    assert any("templates is left out" in note for note in content["notes"])
    (training,) = Path(settings.output_dir).glob("store/trainings/*/config.yaml")
    assert "learning_rate: 0.001" in training.read_text()
    assert "items only" in (folder / "table.md").read_text()
    assert any(note.startswith("pope: unverified: ") for note in content["notes"])
    store = Store(Path(settings.output_dir) / "store")
    plan = plan_of(settings, find(str(settings.name)))
    assert not missing_steps(plan.steps, store), "all is there, the models at the ends of stages too"
    assert all(store.done(step) for cells in plan.trainings.values() for step in cells.values())


def test_mistakes_are_told_before_anything_runs(settings: ExperimentConfig, tmp_path: Path) -> None:
    settings.train = {"learning_rat": 1.0}
    with pytest.raises(UserError, match="did you mean 'learning_rate'"):
        experiment(settings)
    settings.train, settings.data_dir = {}, str(tmp_path / "rows")
    with pytest.raises(UserError, match="no folder in it has the name of a benchmark"):
        experiment(settings)
