"""``mfpo score`` and ``mfpo eval``: from an answer file to a score file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mfpo.errors import UserError
from mfpo.evaluation.answers import generate_answers, read_skips
from mfpo.evaluation.benchmarks import load_benchmark
from mfpo.evaluation.benchmarks.base import Benchmark, BenchmarkSettings
from mfpo.evaluation.compare import show
from mfpo.evaluation.judged import check_judge, judged_result, show_judge
from mfpo.evaluation.results import ScoreResult

if TYPE_CHECKING:
    from mfpo.evaluation.config import EvalConfig, JudgeSettings, ScoreConfig
    from mfpo.models.load import VLM


def run_score(config: ScoreConfig) -> None:
    """Score an answer file, write the score file and show the metrics.

    Raises:
        UserError: There is no such benchmark, the file is no answer file, or items have no answer.
    """
    settings = BenchmarkSettings(data_dir=config.data_dir, split=config.split, num_samples=config.num_samples)
    result = score_answers(load_benchmark(config.benchmark, settings), config.predictions, config)
    output = Path(config.output_file) if config.output_file else _score_path(Path(config.predictions))
    result.save(output)
    show([(Path(config.predictions).stem, result)])
    show_judge(result)
    print(f"written to {output}")


def run_eval(config: EvalConfig, vlm: VLM | None = None) -> None:
    """Answer a benchmark's questions, score the answers and show the metrics; see [`evaluate`]."""
    result = evaluate(config, vlm)
    if result is not None:
        show([(Path(config.model_name_or_path).name, result)])
        show_judge(result)
        print(f"written to {output_folder(config.model_name_or_path, config.output_dir)}")


def evaluate(config: EvalConfig, vlm: VLM | None = None) -> ScoreResult | None:
    """Generate and score.

    Args:
        config: Settings of ``mfpo eval``.
        vlm: The model, if it is loaded already.

    Returns:
        The scores, which are also in ``scores/<benchmark>.json`` of the output folder; None for a dry run.

    Raises:
        UserError: See [`mfpo.evaluation.answers.run_generate`].
    """
    settings = BenchmarkSettings(data_dir=config.data_dir, split=config.split, num_samples=config.num_samples)
    benchmark = load_benchmark(config.benchmark, settings)
    _check_judge(benchmark, config)
    folder = output_folder(config.model_name_or_path, config.output_dir)
    answers = generate_answers(config, folder / "answers" / f"{config.benchmark}.jsonl", vlm)
    if config.dry_run:
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
    benchmark: Benchmark, path: str | Path, judging: JudgeSettings | None = None
) -> ScoreResult:
    """Score an answer file; answers to other questions than the benchmark's are left aside.

    Args:
        benchmark: What was answered.
        path: The answer file.
        judging: The judge, if one is to be asked.

    Raises:
        UserError: The file is no answer file, items have no answer in it, or the judge cannot be asked.
    """
    predictions = benchmark.read_answers(path)
    items = benchmark.select(predictions, path)
    answers = {prediction.id: prediction for prediction in predictions}
    if judging is not None and judging.judge_model is not None:
        result = judged_result(benchmark, items, answers, judging)
    else:
        result = benchmark.score(items, answers)
    result.settings["predictions"] = str(path)
    skipped = read_skips(path)
    if skipped:
        result.settings["skipped"] = [skip.to_dict() for skip in skipped.values()]
    return result


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


def _score_path(predictions: Path) -> Path:
    if predictions.parent.name == "answers":
        return predictions.parent.parent / "scores" / f"{predictions.stem}.json"
    return predictions.with_name(f"{predictions.stem}.scores.json")
