from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mfpo.difficulty.config import RankConfig
from mfpo.experiments.budget import Budget
from mfpo.experiments.catalog import packaged
from mfpo.experiments.measures import GivenData
from mfpo.experiments.plan import Plan, make_plan, ranking_of
from mfpo.experiments.scene_steps import SceneLlava, SceneRows
from mfpo.experiments.step import GivenModel, GivenRows
from mfpo.experiments.steps import Measurement, Ranking, Training
from mfpo.experiments.store import Store
from mfpo.experiments.tuned import Tuned
from mfpo.experiments.worlds import RealWorld, SceneWorld
from mfpo.preferences.encoding import NoiseOverride
from mfpo.scenes.config import DifficultySettings
from mfpo.training.config import TrainConfig
from mfpo.training.setup import planned_precision

TUNED = Tuned({"mfpo": 1e-5}, 1e-5)


def plan(name: str, sft_seeds: int = 1, seeds: int = 1, budget: Budget | None = None) -> Plan:
    world = SceneWorld(packaged(name), budget or Budget(), TUNED)
    return make_plan(packaged(name), world, sft_seeds, seeds)


def training(name: str = "mfpo", experiment: str = "table1", **changes: object) -> Training:
    found = plan(experiment).trainings[name][(0, 0)]
    return replace(found, config=replace(found.config, **changes)) if changes else found


def test_one_training_serves_all_tables() -> None:
    digests = {training(experiment=name).digest for name in ("table1", "table4", "table8", "figure7")}
    assert len(digests) == 1
    scenes = {plan(name).measured[("mfpo", "scenes")][(0, 0)].digest for name in ("table1", "table5")}
    assert len(scenes) == 1


def test_the_rows_own_noise_step_is_the_same_training() -> None:
    figure8, table8 = plan("figure8").trainings, plan("table8").trainings
    assert figure8["region@900"][(0, 0)].digest == table8["mfpo"][(0, 0)].digest
    assert figure8["global@900"][(0, 0)].digest == table8["global"][(0, 0)].digest
    assert figure8["global@500"][(0, 0)].digest != table8["global"][(0, 0)].digest


@pytest.mark.parametrize(
    "change",
    [{"learning_rate": 3e-5}, {"seed": 1}, {"stages": "none"}, {"image_weight": 2.0}, {"noise_step": 500}],
)
def test_every_setting_makes_another_training(change: dict[str, object]) -> None:
    assert training(**change).digest != training().digest


@pytest.mark.parametrize(
    "change", [{"output_dir": "x"}, {"dataset": "y"}, {"model_name_or_path": "z"}, {"report_to": "wandb"}]
)
def test_where_things_are_does_not_matter(change: dict[str, object]) -> None:
    assert training(**change).digest == training().digest


def test_rows_and_models_belong_to_a_training() -> None:
    one = training()
    assert isinstance(one.rows, SceneRows)
    others = [
        replace(one, rows=replace(one.rows, num_rows=600)),
        replace(one, rows=replace(one.rows, difficulty=DifficultySettings(faulty_corrections=0.1))),
        replace(one, model=SceneLlava(seed=1)),
        replace(one, model=SceneLlava(DifficultySettings(co_occurrence=0.5))),
        replace(one, ranking=None),
    ]
    assert len({step.digest for step in (one, *others)}) == 6


def test_changed_code_makes_everything_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    one = training()
    assert one.ranking is not None
    steps = [one, one.ranking, one.rows, plan("table5").measured["mfpo", "scenes"][0, 0]]
    before = [step.depends() for step in steps]
    monkeypatch.setattr("mfpo.experiments.step.code_digest", lambda parts: f"changed {parts}")
    assert all(step.depends() != old for step, old in zip(steps, before, strict=True))


def test_a_grid_has_models_and_rows_of_its_own_for_each_sft_seed() -> None:
    found = plan("table4", sft_seeds=3, seeds=2)
    cells = found.trainings["mfpo"]
    assert list(cells) == [(s, t) for s in range(3) for t in range(2)]
    assert len({step.digest for step in cells.values()}) == 6
    assert len({step.model.digest for step in cells.values()}) == 3
    assert len({step.rows.digest for step in cells.values()}) == 3
    assert cells[(1, 0)].rows.needs == (cells[(1, 0)].model,)
    assert list(found.measured[("sft", "scenes")]) == [(0, 0), (1, 0), (2, 0)]


def test_arms_of_one_noise_share_a_reference_pass() -> None:
    rankings = {}
    for name, cells in plan("table8").trainings.items():
        assert cells[(0, 0)].ranking is not None
        rankings[name] = cells[(0, 0)].ranking.digest
    assert rankings["mfpo"] == rankings["dpo+margin"] == rankings["dpo+margin, staged, lr of mfpo"]
    assert len(set(rankings.values())) == len(rankings) - 2
    semantic = plan("table7").trainings["semantic"][(0, 0)].ranking
    assert semantic is not None and semantic.semantic and training().ranking in semantic.needs


@pytest.mark.parametrize(
    "change", [{"noise_step_max": 950}, {"noise_feather": 0.1}, {"noise_schedule": "ddpm-linear"}]
)
def test_arms_of_another_noise_have_a_reference_pass_of_their_own(change: dict[str, Any]) -> None:
    one = training()
    config = replace(one.config, noise_step=900)
    both = config, replace(config, **change)
    world = SceneWorld(packaged("table5"), Budget(), TUNED)
    passes = [ranking_of(settings, one.rows, one.model, world) for settings in both]
    assert passes[0] is not None and passes[1] is not None
    assert passes[0].digest != passes[1].digest
    assert passes[1].noise == NoiseOverride.of(both[1])


def test_a_reference_pass_is_in_the_precision_of_its_trainings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scores of another precision are not used, and semantic entropies are then missing."""
    from mfpo.training import setup

    monkeypatch.setattr(setup, "default_dtype", lambda device: torch.bfloat16)
    full, adapter = TrainConfig(), TrainConfig(use_lora=True)
    device = torch.device("cpu")
    assert planned_precision(full, device) == "mixed"
    assert planned_precision(adapter, device) == "bfloat16"
    assert planned_precision(TrainConfig(use_lora=True, bf16=False), device) == "float32"

    asked: list[RankConfig] = []

    def rank(config: RankConfig) -> SimpleNamespace:
        asked.append(config)
        return SimpleNamespace(fingerprint="abc")

    monkeypatch.setattr("mfpo.difficulty.rank.run", rank)
    one = training()
    world = SceneWorld(packaged("table5"), Budget(), TUNED)
    for settings in (full, adapter):
        step = ranking_of(replace(one.config, use_lora=settings.use_lora), one.rows, one.model, world)
        assert step is not None
        step.make(tmp_path / "step", lambda needed: tmp_path)
    assert [config.precision for config in asked] == ["mixed", "bfloat16"]


@pytest.mark.parametrize("change", [{"objective": "ddpo"}, {"reference": "copy"}])
def test_semantic_difficulty_has_a_reference_pass_whatever_the_loss_needs(change: dict[str, Any]) -> None:
    one = training()
    world = SceneWorld(packaged("table5"), Budget(), TUNED)
    staged = replace(one.config, stages="easy_to_hard", difficulty="semantic", **change)
    found = ranking_of(staged, one.rows, one.model, world)
    assert found is not None and found.semantic
    assert ranking_of(replace(staged, stages="none"), one.rows, one.model, world) is None


def test_scores_that_are_gone_or_elsewhere_are_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rank(config: RankConfig) -> SimpleNamespace:
        scores = Path(config.dataset) / "reference" / "abc.parquet"
        scores.parent.mkdir(parents=True, exist_ok=True)
        scores.touch()
        return SimpleNamespace(fingerprint="abc")

    monkeypatch.setattr("mfpo.difficulty.rank.run", rank)
    one, two = (Ranking(GivenRows(str(tmp_path / name), "rows"), GivenModel("m", "f")) for name in ("a", "b"))
    assert one.digest == two.digest
    mark = tmp_path / "mark"
    mark.mkdir()
    one.make(mark, lambda needed: Path(needed.folder) if isinstance(needed, GivenRows) else tmp_path)
    assert one.done(mark) and not two.done(mark)
    (tmp_path / "a" / "reference" / "abc.parquet").unlink()
    assert not one.done(mark)


def test_steps_are_called_by_their_arms() -> None:
    found = plan("table8")
    labels = found.labels
    assert labels[found.trainings["crop"][(0, 0)].digest] == "training crop"
    assert labels[found.measured[("crop", "matched")][(0, 0)].digest] == "matched of crop"
    assert {*labels} >= {step.digest for step in found.steps}


def test_decoding_is_measured_on_the_model_before_training() -> None:
    found = plan("table1")
    assert ("vcd", "grounding") not in found.measured and "vcd" not in found.trainings
    step = found.measured[("vcd", "scenes")][(0, 0)]
    assert step.model == found.measured[("sft", "scenes")][(0, 0)].model
    assert step.digest != found.measured[("sft", "scenes")][(0, 0)].digest


def test_stages_are_measured_on_one_training() -> None:
    found = plan("figure5")
    digests = {found.trainings[name][(0, 0)].digest for name in ("after easy", "after medium", "mfpo")}
    assert digests == {training().digest}
    measured = {found.measured[(name, "scenes")][(0, 0)].digest for name in ("after easy", "mfpo")}
    assert len(measured) == 2


def test_another_world_is_measured_on_its_own_scenes() -> None:
    found = plan("conditions")
    weak, crowded = (found.measured[(f"mfpo, {w}", "scenes")][(0, 0)] for w in ("weak ties", "crowded"))
    assert isinstance(weak.world, SceneLlava) and weak.world.difficulty.co_occurrence == 0.5
    assert isinstance(crowded.world, SceneLlava) and crowded.world.difficulty.min_objects == 4
    assert plan("table4").measured[("mfpo", "scenes")][(0, 0)].world is None


def test_faulty_rows_are_of_the_same_model() -> None:
    found = plan("faulty")
    clean, faulty = (found.trainings[name][(0, 0)] for name in ("mfpo", "mfpo, 30% faulty"))
    assert faulty.model.digest == clean.model.digest
    assert faulty.rows.digest != clean.rows.digest
    assert faulty.config.learning_rate == clean.config.learning_rate
    other = found.trainings["dpo+margin, 30% faulty"][(0, 0)]
    assert other.config.learning_rate == found.trainings["dpo+margin"][(0, 0)].config.learning_rate


def test_a_real_checkpoint_takes_the_same_files(tmp_path: Path) -> None:
    world = RealWorld(
        GivenModel("some/model", "abc"),
        (GivenRows(str(tmp_path), "rows"),),
        settings={"use_lora": True, "learning_rate": 2e-5},
        benchmarks={"amber": GivenData("/data/amber", "abc")},
    )
    found = make_plan(packaged("table9"), world, 1, 1)
    assert {arm.name for arm in found.experiment.arms} == {"sft", "mdpo", "mfpo"}
    assert len(found.notes) == 2 and [claim.better for claim in found.experiment.claims] == ["mfpo"]
    config = found.trainings["mfpo"][(0, 0)].config
    assert (config.use_lora, config.learning_rate, config.stages) == (True, 2e-5, "easy_to_hard")
    assert not any(measure == "scenes" for _, measure in found.measured)
    step = make_plan(packaged("table1"), world, 1, 1).measured[("mfpo", "amber")][(0, 0)]
    assert isinstance(step, Measurement)
    assert step.measuring.data == GivenData("/data/amber", "abc") and step.measuring.resume


def test_a_reference_pass_is_given_what_its_trainings_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = {
        "load_in_4bit": True,
        "max_length": 1024,
        "attn_implementation": "sdpa",
        "shared_prefix": "off",
        "noise_step": 700,
    }
    rows = GivenRows(str(tmp_path), "rows")
    world = RealWorld(GivenModel("some/model", "abc"), (rows,), settings={"use_lora": True, **shared})
    ranking = make_plan(packaged("table4"), world, 1, 1).trainings["mfpo"][(0, 0)].ranking
    assert ranking is not None
    given: list[RankConfig] = []

    def rank(config: RankConfig) -> SimpleNamespace:
        given.append(config)
        return SimpleNamespace(fingerprint="abc")

    monkeypatch.setattr("mfpo.difficulty.rank.run", rank)
    ranking.make(tmp_path, lambda step: tmp_path)
    assert {name: getattr(given[0], name) for name in shared} == shared


def test_folders_of_the_store(tmp_path: Path) -> None:
    store, step = Store(tmp_path, str(tmp_path / "cache")), training()
    assert store(step) == tmp_path / "trainings" / step.digest
    assert store(step.model).parent == tmp_path / "cache"
    assert not store.done(step)
    assert store(GivenModel("some/model", "x")) == Path("some/model")


def test_settings_of_a_training_are_those_of_the_budget() -> None:
    config: TrainConfig = training().config
    assert (config.num_train_epochs, config.per_device_train_batch_size) == (2, 16)
    assert (config.learning_rate, config.gradient_accumulation_steps) == (1e-5, 1)
