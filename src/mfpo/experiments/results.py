"""From measurements to a table, effects and verdicts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from mfpo.errors import UserError, nearest
from mfpo.evaluation.benchmarks import BENCHMARKS
from mfpo.evaluation.results import ScoreResult
from mfpo.evaluation.score import caveats
from mfpo.evaluation.statistics import Difference, Estimate, Metric
from mfpo.experiments.derived import derive, derived_metric, item_metric
from mfpo.experiments.plan import Plan
from mfpo.experiments.pooled import Pooled, cell_tables, draw_groups, group_of, rank_correlation
from mfpo.experiments.schema import Arm, Experiment, Relation
from mfpo.experiments.store import Store
from mfpo.experiments.verdicts import Column, Verdict, verdicts_on


@dataclass(frozen=True)
class Related:
    """How two metrics go together over the arms.

    Attributes:
        relation: What was asked.
        correlation: Spearman's rank correlation; NaN with fewer than three arms.
        arms: The arms that have both metrics.
    """

    relation: Relation
    correlation: Estimate
    arms: tuple[str, ...]


@dataclass(frozen=True)
class Results:
    """An experiment's outcome.

    Attributes:
        experiment: The experiment.
        columns: Metrics in the order of the file.
        pooled: By arm, measure and metric, columns or not; what was not measured is missing.
        effects: Difference to the first arm of the same world, likewise.
        verdicts: Of the claims.
        related: Of the relations.
        notes: What a reader must know of this run.
        num_groups: Scenes or rows of each measure.
    """

    experiment: Experiment
    columns: tuple[Column, ...]
    pooled: Mapping[tuple[str, str, str], Pooled]
    effects: Mapping[tuple[str, str, str], Difference]
    verdicts: tuple[Verdict, ...]
    related: tuple[Related, ...] = ()
    notes: tuple[str, ...] = ()
    num_groups: Mapping[str, int] = field(default_factory=dict)

    def estimate(self, arm: str, column: Column) -> Estimate | None:
        """A metric of an arm with its interval; None if it was not measured."""
        found = self.pooled.get((arm, column.measure, column.name))
        return None if found is None else _within(found.estimate(), column.metric)

    def effect(self, arm: str, column: Column) -> Difference | None:
        """Its difference to the first arm."""
        return self.effects.get((arm, column.measure, column.name))

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON, numbers rounded to what bears on them."""
        experiment = self.experiment
        return {
            "experiment": experiment.name,
            "title": experiment.title,
            "arms": [
                {
                    "name": arm.name,
                    "text": arm.text,
                    "train": None if arm.train is None else dict(arm.train),
                    "paper": dict(
                        zip(experiment.paper.columns, experiment.paper.rows.get(arm.name, ()), strict=False)
                    ),
                    "metrics": {
                        f"{column.measure}/{column.name}": _numbers(self, arm, column)
                        for column in self.columns
                        if (arm.name, column.measure, column.name) in self.pooled
                    },
                }
                for arm in experiment.arms
            ],
            "claims": [
                {
                    "claim": verdict.claim.text,
                    "source": verdict.claim.source,
                    "better": verdict.claim.better,
                    "than": verdict.than,
                    "metric": verdict.column.name,
                    "verdict": verdict.word,
                    "effect": _rounded(asdict(verdict.effect)),
                }
                for verdict in self.verdicts
            ],
            "relations": [
                {
                    "relation": one.relation.text,
                    "x": one.relation.x,
                    "y": one.relation.y,
                    "arms": list(one.arms),
                    "rank_correlation": _rounded(asdict(one.correlation)),
                }
                for one in self.related
            ],
            "items": dict(self.num_groups),
            "notes": list(self.notes),
        }


def collect(plan: Plan, store: Store, notes: Sequence[str] = (), *, verdicts: bool = True) -> Results:
    """Read the scores and compare.

    Args:
        plan: The experiment.
        store: Where the scores are.
        notes: What a reader must know.
        verdicts: Whether the numbers can bear any; without, all of them are ``unknown``.

    Raises:
        UserError: The experiment asks for a metric that its measure does not have, or nothing was measured.
    """
    experiment = plan.experiment
    columns: list[Column] = []
    pooled: dict[tuple[str, str, str], Pooled] = {}
    num_groups: dict[str, int] = {}
    told: list[str] = []
    for measure, wanted in experiment.metrics.items():
        scores = _scores(plan, measure, store)
        if not scores:
            continue
        found = _columns(experiment, measure, wanted, scores)
        columns += found
        told += _caveats(measure, scores)
        num_groups[measure] = _pool_measure(experiment, measure, scores, found, pooled)
    if not columns:
        raise UserError(
            "nothing that this experiment measures could be measured",
            where=f"mfpo experiment {experiment.name}",
            fix="it measures " + ", ".join(experiment.metrics),
        )
    effects = _effects(experiment, columns, pooled)
    judged = [verdict for claim in experiment.claims for verdict in verdicts_on(claim, columns, pooled)]
    if not verdicts:
        judged = [replace(verdict, word="unknown") for verdict in judged]
    related = [_related(relation, experiment, columns, pooled) for relation in experiment.relations]
    return Results(
        experiment,
        tuple(columns),
        pooled,
        effects,
        tuple(judged),
        tuple(related),
        (*notes, *told),
        num_groups,
    )


def _scores(plan: Plan, measure: str, store: Store) -> dict[str, dict[tuple[int, int], ScoreResult]]:
    """Scores of each arm by cell; arms with a missing cell are left out."""
    found = {}
    for arm in plan.experiment.arms:
        cells = plan.measured.get((arm.name, measure), {})
        if cells and all(store.done(step) for step in cells.values()):
            found[arm.name] = {
                cell: ScoreResult.load(step.scores(store(step))) for cell, step in cells.items()
            }
    return found


def _caveats(measure: str, scores: Mapping[str, Mapping[tuple[int, int], ScoreResult]]) -> list[str]:
    """What must be known of a benchmark's scores before they stand beside others, each thing once."""
    if measure == "scenes" or measure not in BENCHMARKS:
        return []
    lines = [line for cells in scores.values() for result in cells.values() for line in caveats(result)]
    return [f"{measure}: {line.strip()}" for line in dict.fromkeys(lines)]


def _columns(
    experiment: Experiment,
    measure: str,
    wanted: Sequence[str],
    scores: Mapping[str, Mapping[tuple[int, int], ScoreResult]],
) -> list[Column]:
    definitions: dict[str, Metric] = {}
    for cells in scores.values():
        for result in cells.values():
            definitions |= result.definitions
    columns = []
    for name in wanted or definitions:
        metric = (
            definitions.get(name) or item_metric(measure, name, definitions) or derived_metric(measure, name)
        )
        if metric is None:
            raise UserError(
                f"{measure} has no metric {name!r}",
                where=f"{experiment.name}: metrics.{measure}",
                fix=nearest(name, definitions),
            )
        columns.append(Column(measure, name, metric))
    return columns


def _pool_measure(
    experiment: Experiment,
    measure: str,
    scores: Mapping[str, Mapping[tuple[int, int], ScoreResult]],
    columns: Sequence[Column],
    pooled: dict[tuple[str, str, str], Pooled],
) -> int:
    """Pool a measure's metrics, world by world: scenes of two worlds are not the same scenes."""
    most = 0
    for world in experiment.worlds:
        arms = [arm for arm in experiment.arms if arm.world == world and arm.name in scores]
        if not arms:
            continue
        results = [result for arm in arms for result in scores[arm.name].values()]
        groups = set.intersection(*({group_of(item) for item in result.items} for result in results))
        cells = [cell for arm in arms for cell in scores[arm.name]]
        num_training = 1 + max(seed for _, seed in cells)
        draws = draw_groups(len(groups))
        for arm in arms:
            known = next(iter(scores[arm.name].values())).definitions
            more = {c.name: c.metric for c in columns if item_metric(measure, c.name, known) is not None}
            tables = cell_tables(scores[arm.name], groups, num_training, more)
            values, resampled = tables.ratios(draws)
            for column in columns:
                if derived_metric(measure, column.name) is not None:
                    for found in (values, resampled):
                        found[column.name] = derive(column.name, found)
            for name in values:
                drawn = resampled[name].mean(axis=1)
                pooled[arm.name, measure, name] = Pooled(values[name], drawn, len(groups))
        most = max(most, len(groups))
    return most


def _effects(
    experiment: Experiment, columns: Sequence[Column], pooled: Mapping[tuple[str, str, str], Pooled]
) -> dict[tuple[str, str, str], Difference]:
    effects = {}
    first: dict[str, Arm] = {}
    for arm in experiment.arms:
        base = first.setdefault(arm.world, arm)
        for column in columns:
            ours, theirs = ((name.name, column.measure, column.name) for name in (arm, base))
            if arm is not base and ours in pooled and theirs in pooled:
                effects[ours] = pooled[ours].minus(pooled[theirs])
    return effects


def _related(
    relation: Relation,
    experiment: Experiment,
    columns: Sequence[Column],
    pooled: Mapping[tuple[str, str, str], Pooled],
) -> Related:
    """Rank correlation over the arms that have both metrics."""
    pairs = {}
    for arm in experiment.arms:
        found = [
            pooled.get((arm.name, column.measure, column.name))
            for name in (relation.x, relation.y)
            for column in columns
            if column.name == name
        ]
        known = [one for one in found if one is not None and not math.isnan(one.value)]
        if len(known) == 2:
            pairs[arm.name] = known[0], known[1]
    unknown = Estimate(math.nan, math.nan, math.nan)
    enough = len(pairs) > 2
    correlation = rank_correlation(*zip(*pairs.values(), strict=True)) if enough else unknown
    return Related(relation, correlation, tuple(pairs))


def _within(found: Estimate, metric: Metric) -> Estimate:
    """The interval of a share, cut at 0 and 100: Student's knows no ends of a scale.

    A ratio that is no share, as LLaVA-Bench's of two scores, is cut at 0 only.
    """
    parts = [terms for terms in (metric.numerator, metric.denominator) if not isinstance(terms, str)]
    if metric.scale != 100 or any(weight < 0 for terms in parts for weight in terms.values()):
        return found
    highest = math.inf if metric.unbounded else 100.0
    low, high = np.clip([found.low, found.high], 0.0, highest).tolist()
    return replace(found, low=low, high=high)


def _numbers(results: Results, arm: Arm, column: Column) -> dict[str, Any]:
    found = results.pooled[(arm.name, column.measure, column.name)]
    numbers: dict[str, Any] = asdict(_within(found.estimate(), column.metric))
    numbers["cells"] = found.cells.tolist()
    numbers["spread"] = asdict(found.spread())
    effect = results.effect(arm.name, column)
    if effect is not None:
        numbers["to_first"] = asdict(effect)
    rounded: dict[str, Any] = _rounded(numbers)
    return rounded


def _rounded(value: Any) -> Any:
    """Floats with six digits after the point; JSON has neither NaN nor infinity."""
    if isinstance(value, dict):
        return {name: _rounded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
