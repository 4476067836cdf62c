"""Metrics of several runs side by side, each with its difference to the first, on the items they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mfpo.errors import UserError, nearest
from mfpo.evaluation.results import ScoreResult, by_benchmark, load_scores
from mfpo.evaluation.statistics import Difference, Estimate, Metric, differences, estimates, tabulate


@dataclass(frozen=True, slots=True)
class Comparison:
    """One benchmark or probe, several runs, on the items that all of them have.

    Attributes:
        benchmark: Its name, or that of the score files where a run has several of it.
        metrics: The metrics that all runs have, in the order of the first.
        runs: Names of the runs.
        estimates: For each run, each metric with its 95% interval.
        differences: For each run but the first, each metric's difference to the first.
        num_items: Items that are compared.
        num_left_out: Items that some run has and another has not.
        num_groups: Groups of items, most often images, that intervals and tests are about.
    """

    benchmark: str
    metrics: dict[str, Metric]
    runs: list[str]
    estimates: list[dict[str, Estimate]]
    differences: list[dict[str, Difference]]
    num_items: int
    num_left_out: int
    num_groups: int


def compare_runs(
    runs: Sequence[str], benchmarks: Sequence[str] | None = None, metrics: Sequence[str] | None = None
) -> list[Comparison]:
    """Compare score files or run folders, a [`Comparison`] for each benchmark they share.

    Args:
        runs: Run folders (with ``scores/*.json``) or score files.
        benchmarks: Keep to these; all that the runs share when None.
        metrics: Keep to these; all when None.
    """
    if not runs:
        raise UserError("nothing to compare", where="mfpo compare", fix="name run folders or score files")
    scores = by_benchmark([_load(Path(run)) for run in runs])
    shared = [name for name in scores[0] if all(name in found for found in scores)]
    for name in benchmarks or ():
        if name not in shared:
            raise UserError(
                "not every run has scores of it", where=f"--benchmarks {name}", fix=nearest(name, shared)
            )
    chosen = [name for name in shared if benchmarks is None or name in benchmarks]
    if not chosen:
        have = "; ".join(f"{run}: {', '.join(found)}" for run, found in zip(runs, scores, strict=True))
        raise UserError(f"the runs share no benchmark ({have})", where="mfpo compare")
    names = _run_names(runs)
    return [
        replace(
            compare_results(list(zip(names, (s[name] for s in scores), strict=True)), metrics), benchmark=name
        )
        for name in chosen
    ]


def compare_results(
    results: Sequence[tuple[str, ScoreResult]], metrics: Sequence[str] | None = None
) -> Comparison:
    """Compare scores of the same benchmark on the items that all of them have.

    Args:
        results: Name and scores of each run, the one to compare with first.
        metrics: Keep to these; all that the runs share when None.

    Raises:
        UserError: The runs share no item, or have no metric of a wanted name.
    """
    first = results[0][1]
    definitions = {
        name: metric
        for name, metric in first.definitions.items()
        if all(name in result.definitions for _, result in results)
    }
    for name in metrics or ():
        if name not in definitions:
            raise UserError("no such metric", where=f"--metrics {name}", fix=nearest(name, definitions))
    definitions = {name: metric for name, metric in definitions.items() if metrics is None or name in metrics}
    ids = [{str(item["id"]) for item in result.items} for _, result in results]
    common = set.intersection(*ids)
    if not common:
        raise UserError(
            "the runs have no item in common", where=first.name, fix="score the same split for all of them"
        )
    tables = [
        tabulate([item for item in result.items if str(item["id"]) in common], definitions)
        for _, result in results
    ]
    return Comparison(
        benchmark=first.name,
        metrics=definitions,
        runs=[name for name, _ in results],
        estimates=[estimates(table) for table in tables],
        differences=[differences(tables[0], table) for table in tables[1:]],
        num_items=len(common),
        num_left_out=len(set.union(*ids) - common),
        num_groups=len(tables[0].groups),
    )


def _load(path: Path) -> dict[str, ScoreResult]:
    """Scores by file of a score file or a run folder."""
    if path.is_file():
        return {path.stem: ScoreResult.load(path)}
    found = load_scores(path / "scores")
    if not found:
        raise UserError(
            "no scores" if path.is_dir() else "does not exist",
            where=str(path),
            fix="name a run folder with scores/*.json, which `mfpo eval` writes, or a score file",
        )
    return found


def _run_names(runs: Sequence[str]) -> list[str]:
    """The last part of each run's path, or the whole path where that is not unique."""
    short = []
    for path in (Path(run).resolve() for run in runs):
        in_run = path.is_file() and path.parent.name == "scores"
        short.append(path.parents[1].name if in_run else path.name.removesuffix(".json"))
    return [name if short.count(name) == 1 else run for name, run in zip(short, runs, strict=True)]
