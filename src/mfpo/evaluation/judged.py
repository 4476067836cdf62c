"""Scores that rest on a judge: asked once or several times, with the spread between the times."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from mfpo.errors import UserError
from mfpo.evaluation.results import ScoreResult, finite, score_result
from mfpo.evaluation.statistics import Metric
from mfpo.records import Prediction

if TYPE_CHECKING:
    from mfpo.evaluation.benchmarks.base import Benchmark, Item
    from mfpo.evaluation.config import JudgeSettings


_Modes: TypeAlias = dict[str, dict[str, float | None]]
"""Metrics by mode of scoring, as benchmarks with two modes keep them in their settings."""


class _Spread(TypedDict):
    mean: float
    sd: float | None
    min: float
    max: float


def judged_result(
    benchmark: Benchmark, items: Sequence[Item], answers: Mapping[str, Prediction], settings: JudgeSettings
) -> ScoreResult:
    """Have answers judged, and score them.

    Args:
        benchmark: What was answered.
        items: The items to score.
        answers: An answer for each of them, by the item's id.
        settings: Who judges, and how often.

    Returns:
        The scores; ``settings["judge"]`` says who judged and what it took. With several repeats see
        [`mean_result`].

    Raises:
        UserError: The benchmark needs no judge, a setting is out of range, or the judge cannot be asked.
    """
    from mfpo.evaluation.servers.cache import CachedServer, ReplyCache, default_reply_cache
    from mfpo.evaluation.servers.chat import ChatServer
    from mfpo.evaluation.servers.judge import Judge, Price

    check_judge(benchmark, settings)
    price = Price.parse(settings.judge_price) if settings.judge_price else None
    requests = benchmark.judge_requests(items, answers)
    with (
        closing(ChatServer(settings.base_url, api_key_env=settings.api_key_env)) as server,
        closing(ReplyCache(default_reply_cache())) as cache,
    ):
        judge = Judge(
            CachedServer(server, cache),
            str(settings.judge_model),
            concurrency=settings.concurrency,
            temperature=settings.judge_temperature,
        )
        rounds = [judge.ask(requests, turn, benchmark.accepts) for turn in range(settings.judge_repeats)]
    results = [benchmark.score(items, answers, replies) for replies in rounds]
    result = results[0] if len(results) == 1 else mean_result(results)
    for item in result.items:
        item["judge_replies"] = [replies[item["id"]] for replies in rounds if item["id"] in replies]
    result.settings["judge"] = judge.describe(price) | result.settings.get("judge", {})
    return result


def check_judge(benchmark: Benchmark, settings: JudgeSettings) -> None:
    """Tell what is wrong with the settings of a judge before any work is done.

    Raises:
        UserError: The benchmark needs no judge, a setting is out of range, or there is no key.
    """
    from mfpo.evaluation.servers.chat import ChatServer
    from mfpo.evaluation.servers.judge import Price

    if benchmark.judge is None:
        where = f"--judge_model {settings.judge_model}"
        raise UserError(f"{benchmark.name} needs no judge", where=where, fix="leave it out")
    checks = {
        "judge_repeats": settings.judge_repeats >= 1,
        "concurrency": settings.concurrency >= 1,
        "judge_temperature": settings.judge_temperature is None or settings.judge_temperature >= 0,
    }
    for name, fits in checks.items():
        if not fits:
            raise UserError("out of range", where=f"--{name} {getattr(settings, name)}")
    if settings.judge_price:
        Price.parse(settings.judge_price)
    ChatServer(settings.base_url, api_key_env=settings.api_key_env).close()


def show_judge(result: ScoreResult) -> None:
    """Print who has judged, what it took and how far repeats differ."""
    judge = result.settings.get("judge")
    if not judge:
        return
    used, spent = judge["all_replies"], judge["this_run"]
    print(f"judge {judge['model']}: {_told(used)}, of these asked in this run: {_told(spent)}")
    if "spread" not in judge:
        return
    print(
        f"{len(judge['repeats'])} judgements of each answer, {judge['agreement']:.0%} of the items all alike:"
    )
    for name, spread in judge["spread"].items():
        if spread is not None and spread["sd"] is not None:
            low, high = spread["min"], spread["max"]
            print(f"  {name} {spread['mean']:.3f}, sd {spread['sd']:.3f}, {low:.3f} to {high:.3f}")


def mean_result(results: Sequence[ScoreResult]) -> ScoreResult:
    """The mean of scores of the same answers by repeated judgements.

    Args:
        results: Two or more, of the same items.

    Returns:
        A result whose item records hold the mean of every count, so that intervals and tests follow from them
        as usual. A record whose counts differ has their standard deviations under ``judge_sd``, and
        ``settings["judge"]`` holds ``repeats`` (the metrics of each), ``spread`` (mean, sd, min and max of
        each metric over the repeats) and ``agreement`` (share of items whose counts are equal in all).
    """
    definitions = results[0].definitions
    counts = sorted({name for metric in definitions.values() for name in _counts_of(metric)})
    by_id = [{str(item["id"]): item for item in result.items} for result in results]
    items = [_mean_item([items[str(item["id"])] for items in by_id], counts) for item in results[0].items]
    mean = score_result(results[0].name, items, definitions, results[0].settings)
    repeats = [result.metrics for result in results]
    spread = {name: _spread([metrics[name] for metrics in repeats]) for name in results[0].metrics}
    # What an official script prints may be rounded, and is not always the ratio of the counts.
    mean.metrics = {name: math.nan if found is None else found["mean"] for name, found in spread.items()}
    if "modes" in mean.settings:
        mean.settings["modes"] = _mean_modes([result.settings["modes"] for result in results])
    mean.settings["judge"] = {
        "repeats": [{name: finite(value) for name, value in metrics.items()} for metrics in repeats],
        "spread": spread,
        "agreement": sum("judge_sd" not in item for item in items) / len(items),
    }
    return mean


def _mean_modes(repeats: Sequence[_Modes]) -> _Modes:
    """Means of the metrics in each mode, None where no repeat has a value."""
    means: _Modes = {}
    for mode, metrics in repeats[0].items():
        found = {name: [r[mode][name] for r in repeats] for name in metrics}
        known = {name: [value for value in values if value is not None] for name, values in found.items()}
        means[mode] = {name: statistics.fmean(values) if values else None for name, values in known.items()}
    return means


def _mean_item(records: Sequence[Mapping[str, Any]], counts: Sequence[str]) -> dict[str, Any]:
    """The first record with the mean of every count, where a count that is absent is 0."""
    item = dict(records[0])
    deviations = {}
    for name in counts:
        values = [record.get(name, 0) for record in records]
        if len(set(values)) > 1:
            item[name] = statistics.fmean(values)
            deviations[name] = statistics.stdev(values)
    if deviations:
        item["judge_sd"] = deviations
    return item


def _counts_of(metric: Metric) -> set[str]:
    """Names of the counts that a metric is made of."""
    names: set[str] = set()
    for part in (metric.numerator, metric.denominator):
        names |= {part} if isinstance(part, str) else set(part)
    return names


def _spread(values: Sequence[float]) -> _Spread | None:
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return None
    return {
        "mean": statistics.fmean(known),
        "sd": statistics.stdev(known) if len(known) > 1 else None,
        "min": min(known),
        "max": max(known),
    }


def _told(spend: Mapping[str, Any]) -> str:
    tokens = f"{spend['prompt_tokens']:,} + {spend['completion_tokens']:,} tokens"
    cost = f", cost {spend['cost']:.4g}" if "cost" in spend else ""
    return f"{spend['replies']:,} replies ({tokens}{cost})"
