"""Answers to a benchmark's questions: generated once, appended to a file as they come, scored later."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from tqdm import tqdm

from mfpo import __version__
from mfpo.data.files import append_jsonl, read_jsonl, save_config
from mfpo.errors import UserError
from mfpo.records import Prediction, user_message

if TYPE_CHECKING:
    from PIL.Image import Image

    from mfpo.evaluation.benchmarks.base import Benchmark, Item
    from mfpo.evaluation.config import AnswerSettings, GenerateConfig
    from mfpo.models.load import VLM


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the answers of a file come from; saved beside it as YAML.

    Answers of two provenances don't mix in one file. The name of the model may change, its weights may not.

    Attributes:
        model_name_or_path: What the user called the model.
        model: Fingerprint of its weights, see [`model_fingerprint`].
        benchmark: Name of the benchmark.
        split: Part of the benchmark.
        max_new_tokens: Tokens after which an answer was cut.
        temperature: 0 for greedy answers.
        top_p: Share of the probability that was sampled from.
        seed: Seed of the samples.
        mfpo_version: Version of this program.
    """

    model_name_or_path: str
    model: str
    benchmark: str
    split: str
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    mfpo_version: str = __version__

    def decisive(self) -> dict[str, Any]:
        """What must be equal for two answers to be of the same kind."""
        ignored = {"model_name_or_path", "mfpo_version"}
        if self.temperature == 0:
            ignored |= {"top_p", "seed"}
        return {name: value for name, value in asdict(self).items() if name not in ignored}


class OpenedImages(Sequence["Image"]):
    """The items' pictures, each opened when it is asked for.

    Args:
        benchmark: What the items belong to.
        items: The items.
    """

    def __init__(self, benchmark: Benchmark, items: Sequence[Item]) -> None:
        self.benchmark, self.items = benchmark, items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: Any) -> Any:
        """The picture of one item, or of a slice of them."""
        if isinstance(index, slice):
            return OpenedImages(self.benchmark, self.items[index])
        return self.benchmark.open_image(self.items[index])


def run_generate(config: GenerateConfig, vlm: VLM | None = None) -> Path:
    """Answer a benchmark's questions into ``config.output_file``; answers that are already there are kept.

    Args:
        config: Settings of ``mfpo generate``.
        vlm: The model, if it is loaded already; its ``name`` must be what ``model_name_or_path`` says.

    Returns:
        The answer file.

    Raises:
        UserError: The benchmark or the model cannot be loaded, or the file holds answers of another kind.
    """
    return generate_answers(config, Path(config.output_file), vlm)


def generate_answers(config: AnswerSettings, path: Path, vlm: VLM | None = None) -> Path:
    """As [`run_generate`], with the answer file given apart from the settings."""
    from mfpo.evaluation.benchmarks import load_benchmark
    from mfpo.evaluation.benchmarks.base import BenchmarkSettings

    _check(config)
    settings = BenchmarkSettings(data_dir=config.data_dir, split=config.split, num_samples=config.num_samples)
    benchmark = load_benchmark(config.benchmark, settings)
    items = benchmark.load()
    provenance = Provenance(
        model_name_or_path=config.model_name_or_path,
        model=model_fingerprint(config.model_name_or_path, config.revision),
        benchmark=config.benchmark,
        split=config.split,
        max_new_tokens=config.max_new_tokens or benchmark.max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=config.seed,
    )
    answered = _answered(path, provenance, overwrite=config.overwrite)
    remaining = [item for item in items if item.id not in answered]
    if config.dry_run:
        print(f"{path}: {len(remaining)} of {len(items)} questions of {config.benchmark} would be answered")
        return path
    if config.overwrite:
        path.unlink(missing_ok=True)
    save_config(provenance, provenance_path(path))
    if remaining:
        _answer(benchmark, remaining, provenance, path, vlm or _load(config), config.batch_size)
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
            raise UserError(f"the item {record['id']!r} is answered twice", where=where)
        fields = {name: str(record.get(name, "")) for name in ("id", "question", "answer", "image", "kind")}
        predictions[record["id"]] = Prediction(**fields)
    return list(predictions.values())


def provenance_path(path: str | Path) -> Path:
    """The YAML file beside an answer file that says where its answers come from."""
    return Path(path).with_suffix(".yaml")


def model_fingerprint(model_name_or_path: str, revision: str | None = None) -> str:
    """What tells a checkpoint from another one of the same name.

    For a folder: 16 hex digits of the SHA-256 over the names, the sizes and 64 evenly spaced samples of the
    weight files, the base model of an adapter included. Training changes nearly every weight, so samples are
    enough, and reading all of a 7B model would take longer than loading it. For a Hub name: the name and the
    revision.
    """
    from mfpo.models.load import adapter_base

    folder = Path(model_name_or_path)
    if not folder.is_dir():
        return f"{model_name_or_path}@{revision or 'main'}"
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        size = file.stat().st_size
        digest.update(f"{file.name}:{size}".encode())
        with file.open("rb") as opened:
            for part in range(64):
                opened.seek(size * part // 64)
                digest.update(opened.read(4096))
    base = adapter_base(model_name_or_path)
    if base is not None:
        digest.update(model_fingerprint(base).encode())
    return digest.hexdigest()[:16]


def _answer(
    benchmark: Benchmark, items: Sequence[Item], provenance: Provenance, path: Path, vlm: VLM, batch_size: int
) -> None:
    from mfpo.models.generation import generate_batches

    batches = generate_batches(
        vlm,
        OpenedImages(benchmark, items),
        [user_message(item.question) for item in items],
        max_new_tokens=provenance.max_new_tokens,
        batch_size=batch_size,
        temperature=provenance.temperature,
        top_p=provenance.top_p,
        seed=provenance.seed,
        ids=[item.id for item in items],
    )
    with tqdm(total=len(items), desc=f"answering {benchmark.name}", unit="answer") as progress:
        for batch in batches:
            append_jsonl(path, _records(items, batch))
            progress.update(len(batch))


def _records(items: Sequence[Item], batch: Iterable[tuple[int, str]]) -> list[dict[str, Any]]:
    predictions = []
    for position, answer in batch:
        item = items[position]
        predictions.append(Prediction(item.id, item.question, answer, item.image, item.kind))
    return [prediction.to_dict() for prediction in predictions]


def _answered(path: Path, provenance: Provenance, *, overwrite: bool) -> set[str]:
    """Ids that need no answer any more.

    Raises:
        UserError: The file holds answers of another provenance.
    """
    if overwrite or not path.exists():
        return set()
    fix = "name another file, or give --overwrite to drop these answers"
    beside = provenance_path(path)
    try:
        known = Provenance(**yaml.safe_load(beside.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError, yaml.YAMLError):
        raise UserError(
            f"nothing says where these answers come from ({beside} is needed)", str(path), fix
        ) from None
    before, now = known.decisive(), provenance.decisive()
    changed = [
        f"{name} was {before.get(name)!r}, is {now.get(name)!r}"
        for name in now
        if before.get(name) != now[name]
    ]
    if changed:
        raise UserError(f"these answers were made otherwise: {'; '.join(changed)}", str(path), fix)
    return {prediction.id for prediction in read_answers(path)}


def _load(config: AnswerSettings) -> VLM:
    from mfpo.models.load import load_vlm

    return load_vlm(
        config.model_name_or_path,
        dtype=config.dtype,
        device=config.device,
        revision=config.revision,
        attn_implementation=config.attn_implementation,
        trust_remote_code=config.trust_remote_code,
    )


def _check(config: AnswerSettings) -> None:
    """Settings out of range are told before anything is loaded."""
    checks = {
        "batch_size": config.batch_size >= 1,
        "temperature": config.temperature >= 0,
        "top_p": 0 < config.top_p <= 1,
        "max_new_tokens": config.max_new_tokens is None or config.max_new_tokens >= 1,
    }
    for name, fits in checks.items():
        if not fits:
            raise UserError("out of range", where=f"--{name} {getattr(config, name)}")
