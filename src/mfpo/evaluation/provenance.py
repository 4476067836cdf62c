"""Where answers come from, so that answers of two kinds never mix in one file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from mfpo.errors import UserError
from mfpo.evaluation.decoding import decoding_options
from mfpo.evaluation.servers.chat import given_address
from mfpo.version import __version__

if TYPE_CHECKING:
    from mfpo.evaluation.config import AnswerSettings

_PROCESSOR_FILES = (
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "chat_template*",
    "additional_chat_templates/*",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
)


@dataclass(frozen=True, slots=True)
class Provenance:
    """Where the answers of a file come from; saved beside it as YAML.

    Answers of two provenances don't mix in one file. The name of the model may change, its weights may not.

    Attributes:
        model_name_or_path: What the user called the model.
        model: Fingerprint of its weights, see [`model_fingerprint`]; for a server, its name there.
        processor: Fingerprint of its configuration, tokenizer, image processor and chat template.
        engine: What ran it.
        base_url: The server, if one ran it.
        dtype: Precision as it was asked for.
        benchmark: Name of the benchmark.
        split: Part of the benchmark.
        variant: Version of the benchmark; empty where there is one only.
        max_new_tokens: Tokens after which an answer was cut.
        temperature: 0 for greedy answers.
        top_p: Share of the probability that was sampled from.
        seed: Seed of the samples, and of the noise of ``vcd``.
        decoding: How tokens were chosen.
        decoding_options: All options of the decoding.
        answered_by: Names of the models that a server says have answered.
        mfpo_version: Version of this program.
    """

    model_name_or_path: str
    model: str
    processor: str
    engine: str
    base_url: str | None
    dtype: str
    benchmark: str
    split: str
    variant: str
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    decoding: str = "greedy"
    decoding_options: dict[str, Any] = field(default_factory=dict)
    answered_by: list[str] = field(default_factory=list)
    mfpo_version: str = __version__

    def decisive(self) -> dict[str, Any]:
        """What must be equal for two answers to be of the same kind."""
        ignored = {"model_name_or_path", "mfpo_version", "answered_by"}
        if self.temperature == 0:
            ignored |= {"top_p"} if self.decoding == "vcd" else {"top_p", "seed"}
        return {name: value for name, value in asdict(self).items() if name not in ignored}

    def with_models(self, names: Iterable[str]) -> Provenance:
        """With the names of more models that have answered."""
        return replace(self, answered_by=sorted({*self.answered_by, *names}))


def provenance_of(config: AnswerSettings, max_new_tokens: int, variant: str = "") -> Provenance:
    """What a configuration's answers come from.

    Args:
        config: The settings.
        max_new_tokens: The limit, the benchmark's own where the settings give none.
        variant: The benchmark's version, its first where the settings give none.

    Raises:
        UserError: An option of the decoding is wrong.
    """
    at_server = config.engine == "openai"
    name, revision = config.model_name_or_path, config.revision
    return Provenance(
        model_name_or_path=name,
        model=name if at_server else model_fingerprint(name, revision),
        processor="" if at_server else processor_fingerprint(name, revision),
        engine=config.engine,
        base_url=given_address(config.base_url) if at_server else None,
        dtype="" if at_server else config.dtype,
        benchmark=config.benchmark,
        split=config.split,
        variant=variant,
        max_new_tokens=max_new_tokens,
        temperature=config.temperature,
        top_p=config.top_p,
        seed=config.seed,
        decoding=config.decoding,
        decoding_options=decoding_options(config.decoding, config.decoding_options),
    )


def provenance_path(path: str | Path) -> Path:
    """The YAML file beside an answer file that says where its answers come from."""
    return beside(path, ".yaml")


def beside(path: str | Path, ending: str) -> Path:
    """The file beside an answer file that has another ending.

    Args:
        path: The answer file; what follows the last dot of its name is an ending only if it is ``.jsonl``.
        ending: The ending, with its dot.
    """
    path = Path(path)
    return path.with_suffix(ending) if path.suffix == ".jsonl" else path.with_name(path.name + ending)


def check_same(path: Path, now: Provenance) -> Provenance:
    """Make sure that new answers may join those of a file.

    Args:
        path: The answer file, which exists.
        now: Where the new answers come from.

    Returns:
        ``now`` with the models that have answered before.

    Raises:
        UserError: They may not; the message names what has changed.
    """
    fix = "name another file, or give --overwrite to drop these answers"
    source = provenance_path(path)
    try:
        known = Provenance(**yaml.safe_load(source.read_text(encoding="utf-8")))
    except (OSError, TypeError, ValueError, yaml.YAMLError):
        raise UserError(
            f"nothing says where these answers come from ({source} is needed)", str(path), fix
        ) from None
    before, wanted = known.decisive(), now.decisive()
    changed = [
        f"{name} was {before.get(name)!r}, is {wanted[name]!r}"
        for name in wanted
        if before.get(name) != wanted[name]
    ]
    if changed:
        raise UserError(f"these answers were made otherwise: {'; '.join(changed)}", str(path), fix)
    return now.with_models(known.answered_by)


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
        # Rank and scale change an adapter as its weights do; where its base model is does not.
        adapter = json.loads((folder / "adapter_config.json").read_text())
        adapter.pop("base_model_name_or_path")
        digest.update(json.dumps(adapter, sort_keys=True).encode())
        digest.update(model_fingerprint(base, revision or adapter.get("revision")).encode())
    return digest.hexdigest()[:16]


def processor_fingerprint(model_name_or_path: str, revision: str | None = None) -> str:
    """What tells how a checkpoint reads pictures and text, and where its answers end.

    For a folder: 16 hex digits of the SHA-256 over the files of configuration, tokenizer, image processor and
    chat template, of the base model for an adapter. For a Hub name: the name and the revision.
    """
    from mfpo.models.load import plain_model

    name, revision = plain_model(model_name_or_path, revision)
    folder = Path(name)
    if not folder.is_dir():
        return f"{name}@{revision or 'main'}"
    digest = hashlib.sha256()
    files = {file for pattern in _PROCESSOR_FILES for file in folder.glob(pattern) if file.is_file()}
    for file in sorted(files):
        digest.update(file.relative_to(folder).as_posix().encode() + b"\0")
        digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()[:16]
