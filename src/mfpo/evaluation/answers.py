"""Answers to a benchmark's questions: generated once, appended to a file as they come, scored later."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm import tqdm

from mfpo.data.files import append_jsonl, read_jsonl, save_config, write_jsonl
from mfpo.errors import Skip, UserError
from mfpo.evaluation.answer_files import encodable
from mfpo.evaluation.processes import Processes
from mfpo.evaluation.provenance import Provenance, beside, check_same, provenance_of, provenance_path
from mfpo.records import Prediction

if TYPE_CHECKING:
    from mfpo.evaluation.benchmarks.base import Benchmark, Item
    from mfpo.evaluation.config import AnswerSettings, GenerateConfig
    from mfpo.evaluation.engines import Engine
    from mfpo.models.load import VLM


def run_generate(config: GenerateConfig, vlm: VLM | None = None) -> Path:
    """Answer a benchmark's questions into ``config.output_file``; answers that are already there are kept.

    Args:
        config: Settings of ``mfpo generate``.
        vlm: The model, if it is loaded already; its ``name`` must be what ``model_name_or_path`` says.

    Returns:
        The answer file.

    Raises:
        UserError: The benchmark or the model cannot be loaded, the file holds answers of another kind, or a
            server has left questions unanswered.
    """
    return generate_answers(config, Path(config.output_file), vlm)


def generate_answers(config: AnswerSettings, path: Path, vlm: VLM | None = None) -> Path:
    """As [`run_generate`], with the answer file given apart from the settings."""
    from mfpo.evaluation.benchmarks import load_benchmark
    from mfpo.evaluation.benchmarks.base import BenchmarkSettings
    from mfpo.evaluation.engines import Sampling, load_engine

    _check(config)
    benchmark = load_benchmark(config.benchmark, BenchmarkSettings.of(config))
    items = benchmark.load()
    limit = config.max_new_tokens or benchmark.max_new_tokens
    provenance = provenance_of(config, limit, benchmark.variant)
    begun = (path.exists() or bool(_parts(path))) and not config.overwrite
    if begun:
        provenance = check_same(path, provenance)
    if config.dry_run:
        count = len(_remaining(items, path if begun else None))
        print(f"{path}: {count} of {len(items)} questions of {config.benchmark} would be answered")
        return path
    processes = Processes.launched()
    processes.wait()
    if processes.first:
        _prepare(path, provenance, overwrite=config.overwrite)
    processes.wait()
    mine = _remaining(items, path)[processes.rank :: processes.count]
    # Each reads the files of all, so nobody may write before everybody has read.
    processes.wait()
    sampling = Sampling(provenance.max_new_tokens, config.temperature, config.top_p, config.seed)
    skips: list[Skip] = []
    if mine:
        engine = load_engine(config, sampling, vlm, processes.device())
        target = path if processes.count == 1 else _part(path, processes.rank)
        models: set[str] = set()

        def note_models() -> None:
            """Before the next answers: what comes after a kill may be another model's."""
            if not models.issuperset(engine.answered_by):
                models.update(engine.answered_by)
                save_config(check_same(path, provenance).with_models(models), provenance_path(path))

        skips = _answer(engine, benchmark, mine, target, note_models, show=processes.first)
    if processes.count > 1:
        write_jsonl(_skips_part(path, processes.rank), (skip.to_dict() for skip in skips))
        processes.wait()
        if processes.first:
            _join(path)
            skips = _join_skips(path, processes.count)
        processes.wait()
    if processes.first:
        _tell_skips(path, _skipped_before(path, items) + skips)
    return path


def read_answers(path: str | Path) -> list[Prediction]:
    """The answers of a file of ours; a last line that a crash cut off is left out.

    Raises:
        UserError: The file cannot be read, a line is no answer, or an item is answered twice.
    """
    predictions: dict[str, Prediction] = {}
    for number, record in enumerate(read_jsonl(path), start=1):
        where = f"{path}, answer {number}"
        fix = 'each line is {"id": ..., "question": ..., "answer": ..., "image": ..., "kind": ...}, all text'
        for name in ("id", "answer"):
            if not isinstance(record.get(name), str):
                raise UserError(f"{name!r} is missing or no text", where=where, fix=fix)
        if record["id"] in predictions:
            raise UserError(
                f"the item {record['id']!r} is answered twice", where, "keep one of the two answers"
            )
        names = ("id", "question", "answer", "image", "kind")
        fields = {name: encodable(str(record.get(name, ""))) for name in names}
        predictions[record["id"]] = Prediction(**fields)
    return list(predictions.values())


def skips_path(path: str | Path) -> Path:
    """The file beside an answer file that lists the items which cannot be answered."""
    return beside(path, ".skipped.jsonl")


def read_skips(path: str | Path) -> dict[str, Skip]:
    """Items of an answer file that cannot be answered, by their id; none where nothing was skipped."""
    listed = skips_path(path)
    if not listed.exists():
        return {}
    skips = [Skip(**record) for record in read_jsonl(listed)]
    return {skip.where: skip for skip in skips}


def _answer(
    engine: Engine,
    benchmark: Benchmark,
    items: Sequence[Item],
    path: Path,
    answered: Callable[[], None],
    *,
    show: bool,
) -> list[Skip]:
    """Append answers as they come, and call ``answered`` when some have; the items without one."""
    from mfpo.evaluation.engines import Question

    by_id = {item.id: item for item in items}
    questions = [Question(item.id, item.question, partial(benchmark.open_image, item)) for item in items]
    skips = []
    progress = tqdm(total=len(items), desc=f"answering {benchmark.name}", unit="answer", disable=not show)
    with progress:
        for outcomes in engine.answer(questions):
            predictions = []
            for outcome in outcomes:
                item = by_id[outcome.id]
                if outcome.skip is not None:
                    skips.append(outcome.skip)
                else:
                    predictions.append(
                        Prediction(item.id, item.question, outcome.answer, item.image, item.kind)
                    )
            append_jsonl(path, (prediction.to_dict() for prediction in predictions))
            answered()
            progress.update(len(outcomes))
    return skips


def _remaining(items: Sequence[Item], path: Path | None) -> list[Item]:
    """Items that have no answer yet.

    Raises:
        UserError: An item was asked another question than the benchmark has now.
    """
    if path is None:
        return list(items)
    answers = {answer.id: answer for file in _files(path) for answer in read_answers(file)}
    for item in items:
        answer = answers.get(item.id)
        if answer is not None and answer.question != item.question:
            raise UserError(
                f"the item {item.id!r} was asked {answer.question!r}, the benchmark asks {item.question!r}",
                where=str(path),
                fix="the benchmark's data or its prompt has changed: name another file, or give --overwrite",
            )
    return [item for item in items if item.id not in answers]


def _prepare(path: Path, provenance: Provenance, *, overwrite: bool) -> None:
    """The answer file as new answers are to find it."""
    if overwrite:
        for file in (*_files(path), skips_path(path)):
            file.unlink(missing_ok=True)
    _join(path)
    save_config(provenance, provenance_path(path))


def _join(path: Path) -> None:
    """Put what several processes have written into one file; safe to be cut off at any moment."""
    for part in _parts(path):
        known = {answer.id for answer in read_answers(path)} if path.exists() else set()
        new = [answer.to_dict() for answer in read_answers(part) if answer.id not in known]
        append_jsonl(path, new)
        part.unlink()


def _join_skips(path: Path, count: int) -> list[Skip]:
    skips = []
    for rank in range(count):
        part = _skips_part(path, rank)
        skips += [Skip(**record) for record in read_jsonl(part)]
        part.unlink()
    return skips


def _part(path: Path, rank: int) -> Path:
    return path.with_name(f"{path.name}.part{rank}")


def _skips_part(path: Path, rank: int) -> Path:
    return path.with_name(f"{path.name}.skips{rank}")


def _parts(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.part*"))


def _files(path: Path) -> list[Path]:
    return [file for file in (path, *_parts(path)) if file.exists()]


def _skipped_before(path: Path, items: Sequence[Item]) -> list[Skip]:
    """What an earlier run on more items left out, and this one did not ask for."""
    asked = {item.id for item in items}
    return [skip for name, skip in read_skips(path).items() if name not in asked]


def _tell_skips(path: Path, skips: Sequence[Skip]) -> None:
    """Count what was left out.

    Raises:
        UserError: Requests failed that may succeed another time.
    """
    from mfpo.evaluation.engines.base import REQUEST_FAILED

    failed = [skip for skip in skips if skip.reason == REQUEST_FAILED]
    lasting = [skip for skip in skips if skip.reason != REQUEST_FAILED]
    if lasting:
        write_jsonl(skips_path(path), (skip.to_dict() for skip in lasting))
        print(
            f"{len(lasting)} items have no answer because their pictures cannot be used: {skips_path(path)}"
        )
    else:
        skips_path(path).unlink(missing_ok=True)
    if failed:
        raise UserError(
            f"{len(failed)} requests failed, the first, {failed[0].where!r}, because: {failed[0].detail}",
            where=str(path),
            fix="run the same command again: the answers that came are kept, only the rest is asked for",
        )


def _check(config: AnswerSettings) -> None:
    """Settings out of range are told before anything is loaded."""
    checks = {
        "batch_size": config.batch_size >= 1,
        "temperature": config.temperature >= 0,
        "top_p": 0 < config.top_p <= 1,
        "max_new_tokens": config.max_new_tokens is None or config.max_new_tokens >= 1,
        "concurrency": config.concurrency >= 1,
    }
    for name, fits in checks.items():
        if not fits:
            raise UserError("out of range", where=f"--{name} {getattr(config, name)}")
    if config.engine == "openai":
        from mfpo.evaluation.servers.chat import server_key

        # Before the address is written beside the answers.
        server_key(config.base_url, config.api_key_env)
    if config.engine == "vllm" and Processes.launched().count > 1:
        raise UserError(
            "vLLM starts its processes itself: each of these would take all GPUs",
            where="--engine vllm",
            fix="start mfpo without a launcher, or one command for each GPU with CUDA_VISIBLE_DEVICES and"
            " an --output_file of its own",
        )
    if config.decoding != "greedy" and config.engine != "local":
        raise UserError(
            f"only the local engine decodes by {config.decoding}",
            where=f"--engine {config.engine}",
            fix="use --engine local",
        )
    if config.decoding == "opera" and config.temperature > 0:
        raise UserError(
            "OPERA is a beam search and does not sample", where="--temperature", fix="leave it out"
        )
