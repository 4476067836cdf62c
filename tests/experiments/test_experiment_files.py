from __future__ import annotations

from pathlib import Path

import pytest

from mfpo.errors import UserError
from mfpo.experiments.budget import Budget
from mfpo.experiments.catalog import find, names, packaged, tuned_arms
from mfpo.experiments.plan import expand_sweep, make_plan
from mfpo.experiments.reading import read_experiment
from mfpo.experiments.schema import Arm, Experiment
from mfpo.experiments.tuned import Tuned, load_tuned
from mfpo.experiments.worlds import SceneWorld
from mfpo.training.config import TrainConfig
from mfpo.training.loss import make_loss

SHORT = """
title: a short one
arms:
  - {name: sft}
  - {name: mfpo, train: {objective: mfpo, stages: easy_to_hard}}
metrics: {scenes: [CHAIR_i]}
"""


def read(text: str) -> Experiment:
    return read_experiment(text, "mine", "mine.yaml", lambda: ())


def plan(experiment: Experiment) -> None:
    make_plan(experiment, SceneWorld(experiment, Budget(), Tuned({}, 1e-5)), 1, 1)


def test_all_tables_and_figures_of_the_paper_are_there() -> None:
    tables = {f"table{number}" for number in range(1, 10)}
    figures = {f"figure{number}" for number in (1, 2, 5, 6, 7, 8)}
    assert tables | figures | {"learning_rates", "noise_step", "balance"} <= set(names())


@pytest.mark.parametrize("name", names())
def test_a_file_means_trainings_that_can_be_run(name: str) -> None:
    for arm in packaged(name).arms:
        if arm.train is not None:
            config = TrainConfig(**{"stages": "none", **arm.train})
            make_loss(config)
            assert config.stages in ("none", "easy_to_hard", "hard_to_easy", "random")


@pytest.mark.parametrize("name", names())
def test_a_file_names_metrics_and_arms_that_exist(name: str) -> None:
    experiment = packaged(name)
    plan(experiment)
    shown = {metric for metrics in experiment.metrics.values() for metric in metrics}
    assert set(experiment.figure.metrics) <= shown
    assert {name for one in experiment.relations for name in (one.x, one.y)} <= shown
    for claim in experiment.claims:
        assert set(claim.metrics) <= shown, claim.text


def test_table_4_expands_to_its_arms() -> None:
    arms = {arm.name: arm.train for arm in packaged("table4").arms}
    own_rate = ["sft", "dpo", "dpo+margin", "image+margin", "no-margin", "mfpo"]
    one_rate = ["dpo+margin, lr of mfpo", "dpo+margin, staged, lr of mfpo", "no-margin, lr of mfpo"]
    assert list(arms) == own_rate + one_rate
    assert arms["sft"] is None
    assert arms["image+margin"] == {"objective": "mfpo", "stages": "easy_to_hard", "text_weight": 0}


def test_arms_are_run_in_every_world_with_claims_within_each() -> None:
    experiment = read(
        SHORT + "worlds: {plain: {}, weak: {co_occurrence: 0.5}}\n"
        "claims: [{text: it helps, better: mfpo, than: sft, metrics: [CHAIR_i]}]\n"
    )
    assert [arm.name for arm in experiment.arms] == ["sft, plain", "mfpo, plain", "sft, weak", "mfpo, weak"]
    assert [(one.better, one.than) for one in experiment.claims] == [
        ("mfpo, plain", ("sft, plain",)),
        ("mfpo, weak", ("sft, weak",)),
    ]
    assert experiment.arms[3].tuned_as == "mfpo"
    assert experiment.worlds["weak"].co_occurrence == 0.5


def test_a_sweep_trains_every_tuned_arm_at_every_rate() -> None:
    sweep = expand_sweep(packaged("learning_rates"))
    rates = packaged("learning_rates").sweep
    assert len(sweep.arms) == 1 + len(tuned_arms()) * len(rates)
    assert sweep.arm("mfpo@1e-05").train == {
        "objective": "mfpo",
        "stages": "easy_to_hard",
        "learning_rate": 1e-5,
    }
    assert {"dpo", "mdpo", "mfpo", "no-margin"} <= {arm.name for arm in tuned_arms()}


def test_a_sweep_leaves_arms_as_they_are_that_have_no_rate_to_choose() -> None:
    text = (
        "title: t\narms:\n"
        "  - {name: mfpo, train: {objective: mfpo}}\n"
        "  - {name: vcd, decoding: vcd}\n"
        "  - {name: fixed, train: {objective: dpo, learning_rate: 2e-5}}\n"
        "  - {name: as mfpo, train: {objective: dpo}, tune: mfpo}\n"
        "metrics: {scenes: [F1]}\nsweep: [1e-5, 1e-4]\nworlds: {hard: {co_occurrence: 1.2}}\n"
    )
    arms = expand_sweep(read(text)).arms
    assert [arm.name for arm in arms] == ["sft", "mfpo@1e-05", "mfpo@0.0001", "vcd", "fixed", "as mfpo"]
    assert {arm.world for arm in arms} == {"hard"} and arms[0].train is None
    first = expand_sweep(read(text.replace("arms:", "arms:\n  - {name: base}"))).arms
    assert [arm.name for arm in first][:2] == ["base", "mfpo@1e-05"], "no second model without training"
    with pytest.raises(UserError, match="no arm is without a learning rate"):
        read(text.replace("objective: mfpo}", "objective: mfpo, learning_rate: 1e-5}"))


def test_ablations_take_the_learning_rate_of_what_they_vary() -> None:
    tuned = load_tuned()
    table6 = packaged("table6")
    assert tuned.rate(table6.arm("5:1:1")) == tuned.rate(table6.arm("mfpo")) == 1e-5
    assert tuned.untuned((Arm("new", train={"objective": "simpo"}), *packaged("table6").arms)) == ["new"]


def test_a_sweep_chose_a_rate_for_every_arm_of_the_packaged_files() -> None:
    tuned = load_tuned()
    assert [arm.name for arm in tuned_arms() if arm.train is not None and arm.name not in tuned.rates] == []
    for name in names():
        if not packaged(name).sweep:
            assert tuned.untuned(packaged(name).arms) == [], name


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("title:", "titel:"), r"mine.yaml: titel: unknown key; did you mean 'title'"),
        (("stages:", "stage_order:"), r"arms\[1\].train.stage_order: unknown key; did you mean"),
        (("scenes:", "scene:"), r"metrics.scene: unknown key; did you mean 'scenes'"),
        (("name: sft", "name: mfpo"), "two arms are named 'mfpo'"),
        (("{name: sft}", "{text: x}"), r"arms\[0\].name: the key is missing"),
        (("{name: sft}", "{name: sft, stage: 1}"), "no stages without"),
        (("{name: sft}", "{name: sft, decoding: vdc}"), "did you mean 'vcd'"),
        (("objective: mfpo,", "output_dir: x,"), "train.output_dir: unknown key"),
        (("{scenes: [CHAIR_i]}", "{scenes: CHAIR_i}"), "metrics.scenes: expected a list, found 'CHAIR_i'"),
        (("train: {", "tune: dpo, train: {learning_rate: 1e-5, "), "the arm has a learning rate already"),
        (("objective: mfpo,", "recipe: grounded,"), "train.recipe: unknown key"),
        (
            ("title: a short one", "title: a\ntitle: b"),
            r"mine.yaml:3: not valid YAML: 'title' is given twice",
        ),
    ],
)
def test_a_mistake_is_named_with_file_key_and_cure(change: tuple[str, str], says: str) -> None:
    with pytest.raises(UserError, match=says):
        read(SHORT.replace(*change))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("claims: [{text: t, better: mfpi, than: sft, metrics: [F1]}]", "no arm 'mfpi'; did you mean 'mfpo'"),
        ("paper: {columns: [a, b], rows: {sft: [1]}}", "paper.rows.sft: 1 numbers for 2 columns"),
        ("figure: {kind: bar}", "did you mean 'bars'"),
        (
            "relations: [{text: t, x: CHAIR_i, y: Cov}]",
            r"relations\[0\].y: 'Cov' is not listed under metrics",
        ),
        ("relations: [{text: t, x: 1, y: Cover}]", r"relations\[0\].x: 1 is not listed under metrics"),
        (
            "relations: [{text: t, x: CHAIR_i, y: CHAIR_i}]\nworlds: {a: {}, b: {co_occurrence: 1.2}}",
            "several worlds are not ranked together",
        ),
        ("claims: [{text: t, better: mfpo, than: sft, metrics: [F2]}]", "'F2' is not listed under metrics"),
        ("claims: {text: t}", "claims: expected a list"),
        ("notes: one text", "mine.yaml: notes: expected a list, found 'one text'"),
        ("figure: {highlight: [stf]}", "figure.highlight: did you mean 'sft'"),
        ("figure: {metrics: CHAIR_i}", "figure.metrics: expected a list"),
        ("paper: {columns: CHAIR_i}", "paper.columns: expected a list"),
        ("paper: {columns: [a], rows: {sft: ['13.4*']}}", "paper.rows.sft: expected a number, found '13.4"),
        ("split: tset", "split: .*did you mean 'test'"),
        ("sweep: [1e-5, much]\ncriterion: CHAIR_i", "sweep: expected a number, found 'much'"),
        ("sweep: [1e-5]", "chooses by 'F1', which must be listed under one measure; it is under 0"),
        ("sweep: [1e-5]\ncriterion: CHAIR_i\nworlds: {a: {}, b: {co_occurrence: 1.2}}", "takes one world"),
        ("worlds: {odd: {co_occurence: 1}}", "worlds.odd.co_occurence: unknown key; did you mean"),
        ("worlds: {odd: {co_occurrence: 9}}", "must be from 0 to 1.5"),
    ],
)
def test_mistakes_in_what_may_be_left_out(more: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read(SHORT + more)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ("train: {objective: mfpo}, stage: 1", r"stage: the training has no `stages`"),
        ("train: {objective: mfpo, stages: random}, stage: 7", "stage: expected 1, 2 or 3, found 7"),
        ("train: {objective: mfpo, stages: random}, stage: first", "stage: expected 1, 2 or 3"),
        ("train: {objective: mfpo}, data: {num_rows: many}", "num_rows: expected a whole number above 0"),
        ("text: 500", r"arms\[0\].text: expected a text, found 500; put it into quotes"),
    ],
)
def test_mistakes_in_an_arm(more: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        read(f"title: t\narms: [{{name: one, {more}}}]\nmetrics: {{scenes: [F1]}}\n")


def test_names_are_texts() -> None:
    with pytest.raises(UserError, match=r"arms\[1\].name: expected a text, found 0.2; put it into quotes"):
        read(SHORT.replace("{name: mfpo", "{name: 0.2"))


def test_an_empty_heading_of_worlds_is_the_default_one() -> None:
    assert set(read(SHORT + "worlds:\n").worlds) == {"default"}


@pytest.mark.parametrize(
    ("measure", "wrong", "right"),
    [
        ("amber", "CHAIRR", "CHAIR"),
        ("matched", "CHAIR@75", "CHAIR_i@75"),
        ("matched", "Cover, 9 votes", "Cover, 8 votes"),
        ("distortion", "region@901", "region@900"),
        ("distortion", "logp_drop blackk", "logp_drop black"),
        ("attention", "objects", "object"),
    ],
)
def test_metrics_that_a_measure_will_not_have_are_told_before_anything_runs(
    measure: str, wrong: str, right: str
) -> None:
    def showing(name: str) -> Experiment:
        return read(SHORT.replace("metrics: {", f'metrics: {{{measure}: ["{name}"], '))

    with pytest.raises(UserError, match=f"{measure} has no metric '{wrong}'"):
        plan(showing(wrong))
    plan(showing(right))


def test_a_relation_names_one_metric_of_one_measure() -> None:
    two = SHORT.replace("{scenes: [CHAIR_i]}", "{scenes: [CHAIR_i, Cover], objhal: [CHAIR_i]}")
    with pytest.raises(UserError, match="'CHAIR_i' is listed under several measures"):
        read(two + "relations: [{text: t, x: Cover, y: CHAIR_i}]")


def test_a_users_own_file_is_found_by_its_path(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(SHORT)
    assert find(str(tmp_path / "mine.yaml")).name == "mine"
    with pytest.raises(UserError, match="did you mean 'table1'"):
        find("tabel1")
    with pytest.raises(UserError, match=r"did you mean '.*mine.yaml'"):
        find(str(tmp_path / "mine"))
    with pytest.raises(UserError, match="cannot be read"):
        find(str(tmp_path / "other.yaml"))
