"""Defaults < YAML < flags, on a configuration that has every kind of field."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import pytest

from mfpo.cli.fields import UsageError, settings_of
from mfpo.cli.flags import parse_config
from mfpo.cli.verbs import VERBS, Verb
from mfpo.data.files import save_config
from mfpo.experiments.catalog import packaged
from mfpo.training.config import TrainConfig
from mfpo.training.loss import make_loss


@dataclass(slots=True)
class SampleConfig:
    """Settings of nothing."""

    runs: list[str] = field(metadata={"positional": True})
    """Where to look,
    one folder each."""

    dataset: str
    """A required one."""

    learning_rate: float = 5e-6
    """Peak learning rate."""

    noise_scope: Literal["region", "global"] = "region"
    """``region`` or ``global``."""

    max_steps: int | None = None
    """No limit if not given."""

    scale: tuple[float, float] = (0.01, 0.2)
    """Two numbers."""

    tags: list[str] = field(default_factory=list)
    """Any number of words."""

    inspect: bool = False
    """A flag."""

    shuffle: bool = True
    """A flag that is on."""

    trainer: dict[str, Any] = field(default_factory=dict)
    """Passed on as it is."""


VERB = Verb("sample", f"{__name__}:SampleConfig", f"{__name__}:run", "try things", "tests")


def parse(*arguments: str) -> SampleConfig:
    config = parse_config(VERB, arguments)
    assert type(config) is SampleConfig
    return config


def write(folder: Path, text: str) -> str:
    path = folder / "settings.yaml"
    path.write_text(text)
    return str(path)


def test_defaults() -> None:
    assert parse("r", "--dataset", "d") == SampleConfig(runs=["r"], dataset="d")


def test_flags_override_yaml_and_yaml_overrides_defaults(tmp_path: Path) -> None:
    path = write(
        tmp_path, "runs: [a, b]\ndataset: from-yaml\nlearning_rate: 1e-4\nmax_steps: 7\nshuffle: false\n"
    )
    config = parse("--config", path, "--learning_rate", "0.5")
    assert config.learning_rate == 0.5
    assert config == SampleConfig(
        runs=["a", "b"], dataset="from-yaml", learning_rate=0.5, max_steps=7, shuffle=False
    )
    config = parse(f"--config={path}", "--shuffle", "--max_steps", "None", "x")
    assert (config.shuffle, config.max_steps, config.runs, config.learning_rate) == (True, None, ["x"], 1e-4)


def test_underscores_dashes_and_equals_signs() -> None:
    for flags in (["--noise_scope", "global"], ["--noise-scope", "global"], ["--noise-scope=global"]):
        assert parse("r", "--dataset=d", *flags).noise_scope == "global"


def test_booleans_are_plain_flags() -> None:
    assert parse("r", "--dataset", "d", "--inspect").inspect is True
    assert parse("r", "--dataset", "d", "--no_shuffle").shuffle is False
    assert parse("r", "--dataset", "d", "--no-shuffle").shuffle is False


def test_positionals_before_and_after_flags() -> None:
    assert parse("a", "b", "--dataset", "d").runs == ["a", "b"]
    assert parse("--dataset", "d", "a", "b").runs == ["a", "b"]


def test_a_required_list_must_not_be_empty() -> None:
    with pytest.raises(UsageError, match="RUNS: at least one is needed"):
        parse("--dataset", "d")


def test_required_setting_is_named(tmp_path: Path) -> None:
    """With its explanation, as every other mistake is told."""
    cure = r"\n  fix: add --dataset \(A required one\); see `mfpo sample --help`$"
    with pytest.raises(UsageError, match=f"^mfpo sample: --dataset: required, but not given{cure}"):
        parse("r")
    with pytest.raises(UsageError, match="--dataset"):
        parse("dataset", "--tags", "dataset")
    assert parse("--config", write(tmp_path, "dataset: d\n"), "r").dataset == "d"
    assert parse("r", "--dataset=d").dataset == "d"


def test_all_required_settings_are_named_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=": --model_name_or_path, --output_file: required") as told:
        parse_config(VERBS["generate"], ["--benchmark", "scenes"])
    assert "Answer file to write or to continue" in told.value.fix
    with pytest.raises(UsageError, match=r"add --probe \(distortion or attention or grounding\)"):
        parse_config(VERBS["probe"], ["--model_name_or_path", "m"])
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("flag", "nearest"),
    [
        ("--noise_scop", "--noise_scope"),
        ("--learning-rat=3", "--learning_rate"),
        ("--no_inspct", "--no_inspect"),
        ("--confg", "--config"),
    ],
)
def test_unknown_flag_names_the_nearest(flag: str, nearest: str) -> None:
    with pytest.raises(UsageError, match=f"unknown flag\n  fix: did you mean '{nearest}'"):
        parse("r", "--dataset", "d", flag)


@pytest.mark.parametrize(
    "arguments",
    [["--learning_rate", "high"], ["--noise_scope", "reigon"], ["--max_steps", "1.5"], ["--scale", "1"]],
)
def test_wrong_value_exits_2_and_names_the_flag(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        parse("r", "--dataset", "d", *arguments)
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_free_mapping_from_flags_adds_to_yaml(tmp_path: Path) -> None:
    path = write(tmp_path, "trainer:\n  adam_epsilon: 1e-8\n  logging_steps: 10\n")
    assert parse("r", "--dataset", "d", "--config", path).trainer == {
        "adam_epsilon": 1e-8,
        "logging_steps": 10,
    }
    flags = ["--trainer", "logging_steps=5", "bf16=true", "optim=adamw_torch", "fsdp=[full_shard, offload]"]
    assert parse("r", "--dataset", "d", "--config", path, *flags).trainer == {
        "adam_epsilon": 1e-8,
        "logging_steps": 5,
        "bf16": True,
        "optim": "adamw_torch",
        "fsdp": ["full_shard", "offload"],
    }


def test_defaults_are_not_shared_between_calls() -> None:
    parse("r", "--dataset", "d", "--trainer", "a=1").trainer["b"] = 2
    assert parse("r", "--dataset", "d").trainer == {}


def test_saved_configuration_can_be_read_back(tmp_path: Path) -> None:
    config = parse("r", "--dataset", "d", "--learning_rate", "1e-5", "--tags", "x", "--trainer", "seed=3")
    save_config(config, tmp_path / "config.yaml")
    assert parse("--config", str(tmp_path / "config.yaml")) == config


def test_help_explains_every_field_with_its_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    assert stop.value.code == 0
    text = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "Where to look, one folder each. (required)" in text
    assert "A required one. (required)" in text
    assert "Peak learning rate. (default: 5e-06)" in text
    assert "`region` or `global`. (default: region)" in text
    assert "--inspect, --no_inspect" in text
    assert "--config F.yaml" in text


def test_inherited_fields_keep_their_explanation() -> None:
    @dataclass
    class Extended(SampleConfig):
        pass

    assert settings_of(Extended)["learning_rate"].help == "Peak learning rate."


@dataclass(frozen=True)
class PaintSettings:
    """What a group declares."""

    colour: str = "red"
    """Which colour."""


@dataclass(frozen=True)
class GroupedConfig(PaintSettings):
    """Settings of a verb, some of them from a group."""

    size: int = 3
    """How large."""


def test_groups_are_headings_and_no_prefixes(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    verb = Verb("grouped", f"{__name__}:GroupedConfig", f"{__name__}:run", "try groups", "tests")
    path = tmp_path / "g.yaml"
    path.write_text("colour: blue\nsize: 4\n")
    assert parse_config(verb, ["--config", str(path), "--size", "5"]) == GroupedConfig("blue", 5)
    save_config(GroupedConfig("green", 1), path)
    assert parse_config(verb, ["--config", str(path)]) == GroupedConfig("green", 1)
    with pytest.raises(SystemExit):
        parse_config(verb, ["--help"])
    shown = capsys.readouterr().out
    assert "paint options" in shown and "--colour" in shown and "Which colour." in shown


REQUIRED = {
    "rank": ["--dataset", "d", "--model_name_or_path", "m"],
    "train": ["--dataset", "d", "--model_name_or_path", "m", "--output_dir", "o"],
    "build": ["--dataset", "d", "--output_dir", "o"],
    "browse": ["--dataset", "d"],
    "generate": ["--model_name_or_path", "m", "--benchmark", "scenes", "--output_file", "f"],
    "score": ["--benchmark", "scenes", "--predictions", "p"],
    "eval": ["--model_name_or_path", "m", "--benchmark", "scenes"],
    "probe": ["--model_name_or_path", "m", "--probe", "attention"],
    "compare": ["one", "other"],
    "report": ["one"],
    "export": ["--model_name_or_path", "m", "--output_dir", "o"],
    "experiment": ["noise_step"],
    "scenes": ["--output_dir", "o"],
    "demo": [],
    "doctor": [],
}


@pytest.mark.parametrize("name", REQUIRED)
def test_every_verb_takes_its_required_flags_alone(name: str) -> None:
    """A group of settings must not hide a setting of the same name."""
    from mfpo.cli.verbs import VERBS

    assert isinstance(parse_config(VERBS[name], REQUIRED[name]), VERBS[name].config_type())


@dataclass(slots=True)
class WithRecipes:
    """Settings with recipes."""

    recipes: ClassVar[dict[str, dict[str, Any]]] = {"soft": {"rate": 0.1, "steps": 5}, "hard": {"rate": 0.9}}

    recipe: str | None = None
    """By name."""

    rate: float = 0.5
    """How fast."""

    steps: int = 1
    """How long."""


def test_a_recipe_stands_below_flags_and_above_the_file_if_it_is_one(tmp_path: Path) -> None:
    verb = Verb("sample", f"{__name__}:WithRecipes", f"{__name__}:run", "try things", "tests")
    assert parse_config(verb, []) == WithRecipes()
    assert parse_config(verb, ["--recipe", "soft"]) == WithRecipes("soft", 0.1, 5)
    assert parse_config(verb, ["--steps", "7", "--recipe=soft"]) == WithRecipes("soft", 0.1, 7)
    path = write(tmp_path, "recipe: soft\nrate: 0.3\n")
    assert parse_config(verb, ["--config", path]) == WithRecipes("soft", 0.3, 5)
    assert parse_config(verb, ["--config", path, "--recipe", "hard"]) == WithRecipes("hard", 0.9, 1)
    assert parse_config(verb, ["--config", path, "--recipe", "hard", "--rate", "0.7"]).rate == 0.7
    with pytest.raises(UsageError, match=r"recipe: sotf in the --config file: there is no such recipe"):
        parse_config(verb, ["--config", write(tmp_path, "recipe: sotf\n")])
    with pytest.raises(UsageError, match="there is no such recipe"):
        parse_config(verb, ["--recipe="])
    with pytest.raises(UsageError, match=r"--recipe sotf: there is no such recipe[\s\S]*did you mean 'soft'"):
        parse_config(verb, ["--recipe", "sotf"])


@pytest.mark.parametrize("name", TrainConfig.recipes)
def test_recipes_of_training_are_settings_that_fit(name: str) -> None:
    config = TrainConfig(recipe=name, **TrainConfig.recipes[name])
    assert make_loss(config).objective.name == "mfpo"


def test_a_recipe_undoes_another(tmp_path: Path) -> None:
    assert len({frozenset(settings) for settings in TrainConfig.recipes.values()}) == 1
    grounded = parse_config(VERBS["train"], ["--recipe", "grounded"])
    save_config(grounded, tmp_path / "config.yaml")
    back = parse_config(VERBS["train"], ["--config", str(tmp_path / "config.yaml"), "--recipe", "mfpo"])
    assert back == replace(TrainConfig(), recipe="mfpo")


def test_the_recipe_that_was_measured_is_the_one_with_the_name() -> None:
    measured = packaged("recipe").arm("grounded")
    assert TrainConfig.recipes["grounded"] == {"stages": "none", **(measured.train or {})}


def test_the_recipe_of_the_paper_is_the_default() -> None:
    assert TrainConfig(**TrainConfig.recipes["mfpo"]) == TrainConfig()
