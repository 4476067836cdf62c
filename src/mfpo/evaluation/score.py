"""``mfpo score`` and ``mfpo eval``: from an answer file to a score file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mfpo.errors import UserError
from mfpo.evaluation.answers import generate_answers, read_skips
from mfpo.evaluation.benchmarks import load_benchmark
from mfpo.evaluation.benchmarks.base import Benchmark, BenchmarkSettings, Item
from mfpo.evaluation.compare import show
from mfpo.evaluation.interop.logs import log_format, read_log, write_log
from mfpo.evaluation.judged import check_judge, judged_result, show_judge
from mfpo.evaluation.mentions.words import HOW_TO_GET_NLTK_DATA
from mfpo.evaluation.processes import Processes
from mfpo.evaluation.results import ScoreResult
from mfpo.records import Prediction

if TYPE_CHECKING:
    from mfpo.evaluation.config import EvalConfig, JudgeSettings, ScoreConfig
    from mfpo.models.load import VLM


def run_score(config: ScoreConfig) -> None:
    """Score an answer file, write the score file and show the metrics.

    Raises:
        UserError: There is no such benchmark, the file is no answer file, items have no answer, or a judge's
            replies are needed.
    """
    # Before a benchmark's data are fetched.
    if config.predictions is not None and not Path(config.predictions).exists():
        raise UserError(
            "the file cannot be read: there is none",
            where=config.predictions,
            fix="`mfpo generate` writes one",
        )
    benchmark = load_benchmark(config.benchmark, BenchmarkSettings.of(config, config))
    if config.build_table:
        _build_table(benchmark, config.build_table)
        if config.predictions is None:
            return
    if config.predictions is None:
        raise UserError("an answer file is needed", where="--predictions", fix="`mfpo generate` writes one")
    result = score_answers(benchmark, config.predictions, config, config.judgements)
    if config.export_file:
        _export(benchmark, config.predictions, config.export_file)
    output = Path(config.output_file) if config.output_file else _score_path(Path(config.predictions))
    result.save(output)
    show([(Path(config.predictions).stem, result)])
    show_judge(result)
    for line in remarks(result):
        print(line)
    print(f"written to {output}")


def run_eval(config: EvalConfig, vlm: VLM | None = None) -> None:
    """Answer a benchmark's questions, score the answers and show the metrics; see [`evaluate`]."""
    result = evaluate(config, vlm)
    if result is not None:
        show([(Path(config.model_name_or_path).name, result)])
        show_judge(result)
        for line in remarks(result):
            print(line)
        print(f"written to {output_folder(config.model_name_or_path, config.output_dir)}")


def evaluate(config: EvalConfig, vlm: VLM | None = None) -> ScoreResult | None:
    """Generate and score.

    Args:
        config: Settings of ``mfpo eval``.
        vlm: The model, if it is loaded already.

    Returns:
        The scores, which are also in ``scores/<benchmark>.json`` of the output folder; None for a dry run,
        and in all but the first of several processes.

    Raises:
        UserError: See [`mfpo.evaluation.answers.run_generate`].
    """
    benchmark = load_benchmark(config.benchmark, BenchmarkSettings.of(config, config))
    _check_judge(benchmark, config)
    folder = output_folder(config.model_name_or_path, config.output_dir)
    answers = generate_answers(config, folder / "answers" / f"{config.benchmark}.jsonl", vlm)
    if config.dry_run or not Processes.launched().first:
        return None
    result = score_answers(benchmark, answers, config)
    result.save(folder / "scores" / f"{config.benchmark}.json")
    return result


def _check_judge(benchmark: Benchmark, config: EvalConfig) -> None:
    """Hours of answers for nothing are worse than an early word."""
    if config.judge_model is not None:
        check_judge(benchmark, config)
    elif benchmark.judge is not None and benchmark.judge.required:
        raise UserError(
            f"{benchmark.name} needs a judge, who {benchmark.judge.purpose}",
            where="--judge_model",
            fix=f"name one (the official script asks {benchmark.judge.model}), or use `mfpo generate` alone",
        )


def score_answers(
    benchmark: Benchmark,
    path: str | Path,
    judging: JudgeSettings | None = None,
    judgements: str | Path | None = None,
) -> ScoreResult:
    """Score an answer file; answers to other questions than the benchmark's are left aside.

    Args:
        benchmark: What was answered.
        path: The answers.
        judging: The judge, if one is to be asked.
        judgements: Saved replies of a judge.

    Raises:
        UserError: The file is no answer file, items have no answer in it, or a judge is needed and cannot
            be asked.
    """
    predictions = _read(benchmark, path)
    items = benchmark.select(predictions, path)
    answers = {prediction.id: prediction for prediction in predictions}
    if judging is not None and judging.judge_model is not None:
        if judgements is not None:
            raise UserError(
                "replies are saved or asked for, not both",
                where="--judgements --judge_model",
                fix="leave one of them out",
            )
        result = judged_result(benchmark, items, answers, judging)
    else:
        replies = None if judgements is None else benchmark.read_judgements(judgements)
        if replies is None and benchmark.judge is not None and benchmark.judge.required:
            raise UserError(
                f"{benchmark.name} needs a judge ({benchmark.judge.model}), who {benchmark.judge.purpose}",
                where="--judgements",
                fix="name the file of its saved replies, or a judge with --judge_model",
            )
        result = benchmark.score(items, answers, replies)
    result.settings["predictions"] = str(path)
    _note_answers(result, benchmark, predictions, items, path)
    _note_judge(result, benchmark, judging, judgements)
    return result


def _note_answers(
    result: ScoreResult,
    benchmark: Benchmark,
    predictions: Sequence[Prediction],
    items: Sequence[Item],
    path: str | Path,
) -> None:
    """What was scored, and what was not and why."""
    skipped = read_skips(path)
    scored = {item.id for item in items}
    result.settings["answers"] = {
        "scored": len(items),
        "left_out": len(predictions) - len(items),
        "skipped": len(skipped),
        "unanswered": benchmark.unanswered(scored | skipped.keys()),
    }
    if skipped:
        result.settings["skipped"] = [skip.to_dict() for skip in skipped.values()]


def _note_judge(
    result: ScoreResult,
    benchmark: Benchmark,
    judging: JudgeSettings | None,
    judgements: str | Path | None,
) -> None:
    """Who has judged, beside whom the official script asks."""
    if judgements is not None:
        result.settings["judgements"] = str(judgements)
        judged_by = f"saved replies, {Path(judgements).name}"
    elif judging is not None and judging.judge_model is not None:
        judged_by = judging.judge_model
    else:
        return
    if benchmark.judge is not None:
        result.settings |= {"judged_by": judged_by, "official_judge": benchmark.judge.model}


def remarks(result: ScoreResult) -> list[str]:
    """What a reader must know: unofficial tools, what is unverified, and where the modes differ."""
    lines = caveats(result)
    for name, (official, strict) in mode_differences(result).items():
        lines.append(f"{name}: official {_shown(official)}, strict {_shown(strict)}")
    return lines


def caveats(result: ScoreResult) -> list[str]:
    """What must be known about how the scores were made before they are compared with others."""
    settings = result.settings
    lines = []
    counts = settings.get("answers", {})
    told = {
        "unanswered": "questions have no answer",
        "skipped": "have a picture that cannot be used",
        "left_out": "answers are to other questions",
    }
    missing = [f"{counts[name]} {what}" for name, what in told.items() if counts.get(name)]
    if missing:
        lines.append(f"{counts['scored']} answers scored; {', '.join(missing)}")
    if settings.get("judged_by") != settings.get("official_judge"):
        lines.append(
            f"judged by {settings['judged_by']}; the official script asks {settings['official_judge']}, "
            "and scores of two judges don't compare"
        )
    if settings.get("official_tools") is False:
        lines.append(f"UNOFFICIAL: {settings['tools']['unofficial']}; the numbers differ from published ones")
        lines.append(f"  fix: {HOW_TO_GET_NLTK_DATA}")
    if isinstance(settings.get("similarity"), dict):
        lines.append(f"synonyms: {settings['similarity']['source']}")
    return lines + [f"unverified: {reason}" for reason in settings.get("unverified", ())]


def mode_differences(result: ScoreResult) -> dict[str, tuple[float | None, float | None]]:
    """The metrics that the modes ``official`` and ``strict`` give other values, as they are shown."""
    modes = result.settings.get("modes", {})
    pairs = {
        name: (official, modes["strict"].get(name)) for name, official in modes.get("official", {}).items()
    }
    return {name: pair for name, pair in pairs.items() if _shown(pair[0]) != _shown(pair[1])}


def _shown(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _build_table(benchmark: Benchmark, path: str) -> None:
    from mfpo.evaluation.benchmarks.amber import AmberBenchmark

    if not isinstance(benchmark, AmberBenchmark):
        raise UserError(
            f"{benchmark.name} has no table of synonyms", where="--build_table", fix="leave it out"
        )
    table = benchmark.similarity()
    table.save(path)
    print(f"{len(table.pairs)} pairs of synonyms by {table.source} written to {path}")


def output_folder(model_name_or_path: str, output_dir: str | None) -> Path:
    """Where results go: the given folder, else the model's own.

    Raises:
        UserError: No folder is given, and the model is not one.
    """
    if output_dir is not None:
        return Path(output_dir)
    if not Path(model_name_or_path).is_dir():
        raise UserError(
            f"{model_name_or_path} is no folder on disk", where="--output_dir", fix="say where results go"
        )
    return Path(model_name_or_path)


def _read(benchmark: Benchmark, path: str | Path) -> list[Prediction]:
    """The answers of a file, whoever wrote it."""
    kind = log_format(path)
    # Positions in a log are those of the whole benchmark.
    return read_log(path, benchmark.unlimited().load(), kind) if kind else benchmark.read_answers(path)


def _export(benchmark: Benchmark, path: str | Path, target: str) -> None:
    """Write answers as a log of lmms-eval (``.jsonl``) or VLMEvalKit (any other ending)."""
    answers = {prediction.id: prediction for prediction in _read(benchmark, path)}
    scored = {item.id: answers[item.id] for item in benchmark.select(list(answers.values()), path)}
    kind = "lmms-eval" if target.endswith(".jsonl") else "vlmevalkit"
    write_log(target, benchmark.unlimited().load(), scored, kind)


def _score_path(predictions: Path) -> Path:
    if predictions.parent.name == "answers":
        return predictions.parent.parent / "scores" / f"{predictions.stem}.json"
    return predictions.with_name(f"{predictions.stem}.scores.json")
