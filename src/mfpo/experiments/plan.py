"""From an experiment and its seeds to the steps that have to be made, in one of the two worlds."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

from mfpo.difficulty.config import BY_DIFFICULTY
from mfpo.errors import UserError, nearest
from mfpo.evaluation.benchmarks import BENCHMARKS
from mfpo.experiments.budget import Budget
from mfpo.experiments.derived import derived_metric, item_metric
from mfpo.experiments.measures import Measuring, known_metrics
from mfpo.experiments.schema import MEASURES, Arm, Experiment
from mfpo.experiments.step import Model, Rows
from mfpo.experiments.steps import Measurement, Ranking, Training
from mfpo.experiments.tuned import Tuned
from mfpo.preferences.encoding import NoiseOverride
from mfpo.training.config import TrainConfig
from mfpo.training.loss import make_loss
from mfpo.training.objectives import OBJECTIVES

Cell: TypeAlias = tuple[int, int]
"""Number of the SFT seed and of the training seed."""


@dataclass(frozen=True)
class Plan:
    """What is to be made.

    Attributes:
        experiment: The experiment, arms that cannot be run in this world left out.
        measured: For each arm and measure, the measurement of each cell.
        trainings: For each arm, the training of each cell; none for the model before preference training.
        notes: What was left out, and why.
    """

    experiment: Experiment
    measured: Mapping[tuple[str, str], Mapping[Cell, Measurement]]
    trainings: Mapping[str, Mapping[Cell, Training]]
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> list[Measurement]:
        """All measurements."""
        return [step for cells in self.measured.values() for step in cells.values()]

    @property
    def labels(self) -> dict[str, str]:
        """Names of trainings and measurements in the progress, by digest: that of the first arm with one."""
        found: dict[str, str] = {}
        for arm, trainings in self.trainings.items():
            for training in trainings.values():
                found.setdefault(training.digest, f"training {arm}")
        for (arm, measure), measurements in self.measured.items():
            for measurement in measurements.values():
                found.setdefault(measurement.digest, f"{measure} of {arm}")
        return found


class World(Protocol):
    """Where models, rows and measurements come from."""

    @property
    def name(self) -> str:
        """What the user calls it."""
        ...

    @property
    def semantic_samples(self) -> int:
        """Answers sampled for the semantic entropy of a row."""
        ...

    @property
    def rows_at_once(self) -> int:
        """Rows that the reference pass scores at once."""
        ...

    def model(self, arm: Arm, sft_seed: int) -> Model:
        """The model before preference training."""
        ...

    def rows(self, arm: Arm, model: Model, sft_seed: int) -> Rows | None:
        """The arm's preference rows; None if this world has no such rows."""
        ...

    def training(self, arm: Arm, rows: Rows, seed: int) -> TrainConfig:
        """Settings of its training."""
        ...

    def measurement(self, arm: Arm, measure: str, model: Model, rows: Rows | None) -> Measurement | None:
        """How a model is measured; None if this world does not have the measure."""
        ...


def expand_sweep(experiment: Experiment) -> Experiment:
    """An experiment whose arms are trained with every learning rate of its sweep.

    Arms that are not trained or have a rate already stay as they are. The first arm, with which the others
    are compared, is the model before preference training; where the file has no such arm, it is put in.
    """
    if not experiment.sweep:
        return experiment
    first = experiment.arms[0]
    arms = [] if first.train is None else [Arm("sft", "before preference training", world=first.world)]
    for arm in experiment.arms:
        arms += [at_rate(arm, rate) for rate in experiment.sweep] if arm.tunes_itself else [arm]
    return replace(experiment, arms=tuple(arms))


def at_rate(arm: Arm, rate: float) -> Arm:
    """An arm of a sweep; ``tune`` says which arm of the file it is."""
    train = {**(arm.train or {}), "learning_rate": rate}
    return replace(arm, name=f"{arm.name}@{rate:g}", train=train, tune=arm.name)


def make_plan(experiment: Experiment, world: World, sft_seeds: int, seeds: int) -> Plan:
    """All steps of an experiment: arms times SFT seeds times training seeds."""
    experiment = expand_sweep(experiment)
    measured: dict[tuple[str, str], dict[Cell, Measurement]] = {}
    trainings: dict[str, dict[Cell, Training]] = {}
    kept, notes = [], []
    for arm in experiment.arms:
        if arm.train is not None and world.rows(arm, world.model(arm, 0), 0) is None:
            notes.append(f"{arm.name} is left out: --world {world.name} has no rows of its kind.")
            continue
        kept.append(arm)
        for sft_seed in range(sft_seeds):
            start = world.model(arm, sft_seed)
            rows = world.rows(arm, start, sft_seed)
            for seed in range(seeds if arm.train is not None else 1):
                cell = sft_seed, seed
                model: Model = start
                if arm.train is not None and rows is not None:
                    model = _training(world, arm, rows, start, seed, experiment.name)
                    trainings.setdefault(arm.name, {})[cell] = model
                for measure in experiment.metrics:
                    step = world.measurement(arm, measure, model, rows)
                    if step is not None and _applies(arm, measure):
                        measured.setdefault((arm.name, measure), {})[cell] = step
    check_metrics(experiment, {measure: cells[min(cells)] for (_, measure), cells in measured.items()})
    if experiment.sweep:
        _check_criterion(experiment, {measure for _, measure in measured}, world.name)
    names = {arm.name for arm in kept}
    claims = tuple(claim for claim in experiment.claims if {claim.better, *claim.than} <= names)
    reduced = replace(experiment, arms=tuple(kept), claims=claims)
    return Plan(reduced, measured, trainings, tuple(notes))


def check_metrics(experiment: Experiment, measured: Mapping[str, Measurement]) -> None:
    """Tell now what would be told after the last training.

    Args:
        experiment: The experiment.
        measured: Of each measure that is to be made, one measurement.

    Raises:
        UserError: A measure has no metric of a name that the experiment shows.
    """
    for measure, names in experiment.metrics.items():
        # A benchmark whose data are not there is left out; its metrics are known all the same.
        if measure not in measured and measure not in BENCHMARKS:
            continue
        known = known_metrics(measured[measure].measuring if measure in measured else Measuring(measure))
        for name in names:
            if (
                name not in known
                and item_metric(measure, name, known) is None
                and derived_metric(measure, name) is None
            ):
                raise UserError(
                    f"{measure} has no metric {name!r}",
                    where=f"{experiment.name}: metrics.{measure}",
                    fix=nearest(name, known),
                )


def _check_criterion(experiment: Experiment, measured: Collection[str], world: str) -> None:
    """A sweep that cannot choose in this world would train for nothing.

    Raises:
        UserError: What the sweep chooses by is not measured.
    """
    wanted = next(name for name, metrics in experiment.metrics.items() if experiment.criterion in metrics)
    if wanted not in measured:
        raise UserError(
            f"a sweep chooses by {experiment.criterion!r} of {wanted}, which --world {world} cannot measure",
            where=f"{experiment.name}: criterion",
            fix=f"choose by a metric of what it measures: {', '.join(sorted(measured)) or 'nothing'}",
        )


def _training(world: World, arm: Arm, rows: Rows, model: Model, seed: int, name: str) -> Training:
    try:
        config = world.training(arm, rows, seed)
        make_loss(config)
    except UserError as error:
        where = f"{name}: arm {arm.name!r}: {error.where}"
        raise UserError(error.what, where=where, fix=error.fix) from None
    return Training(
        rows=rows,
        model=model,
        config=config,
        ranking=ranking_of(config, rows, model, world),
        keep_stages=config.stages != "none",
    )


def ranking_of(config: TrainConfig, rows: Rows, model: Model, world: World) -> Ranking | None:
    """The reference pass that a training can share with others of its noise; None if it takes none.

    Semantic entropies are those of such a pass alone: a training makes none of its own.
    """
    objective = OBJECTIVES.get(config.objective)
    semantic = config.difficulty == "semantic" and config.stages in BY_DIFFICULTY
    if objective is None:
        return None
    if not semantic and (config.reference != "precomputed" or objective.reference != "sequences"):
        return None
    return Ranking(
        rows,
        model,
        NoiseOverride.of(config, objective.noise_scope),
        semantic=semantic,
        semantic_samples=world.semantic_samples,
        batch_size=world.rows_at_once,
        max_length=config.max_length,
        attn_implementation=config.attn_implementation,
        shared_prefix=config.shared_prefix,
        load_in_4bit=config.load_in_4bit,
        use_lora=config.use_lora,
        bf16=config.bf16,
    )


def _applies(arm: Arm, measure: str) -> bool:
    """Whether a measure says anything about an arm: decoding shows in answers only, rewards in trainings."""
    if measure == "rewards":
        return arm.train is not None and arm.stage is None
    return arm.decoding == "greedy" or measure in ANSWERED


ANSWERED = frozenset(("scenes", *MEASURES[MEASURES.index("amber") :]))
"""Measures that go through `mfpo eval`, and so know every decoding."""


def base_settings(budget: Budget, tuned: Tuned, arm: Arm) -> dict[str, Any]:
    """Settings of a training on scenes, the arm's own put over what all share."""
    shared = {
        "stages": "none",
        "learning_rate": tuned.rate(arm),
        "num_train_epochs": budget.num_epochs,
        "per_device_train_batch_size": budget.batch_size,
        "gradient_accumulation_steps": 1,
        "logging_steps": 5,
    }
    return shared | dict(arm.train or {})
