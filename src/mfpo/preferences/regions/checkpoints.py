"""Region models on this machine: which device and type, loading with clear errors, what identifies them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from mfpo.errors import UserError
from mfpo.models.hub import require_reachable
from mfpo.models.load import default_device, default_dtype, named_dtype
from mfpo.preferences.regions.base import RegionOptions

QUERIES_ON_GPU = 8
"""Keywords that go through a model together on a GPU; alone on a CPU, where a batch gains nothing."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A name on the Hub or a folder.

    Attributes:
        name: The name or folder.
        revision: Branch, tag or commit on the Hub.
        gate: Where access must be asked for; empty for an open checkpoint.
        family: All checkpoints of its backend, for messages.
    """

    name: str
    revision: str | None = None
    gate: str = ""
    family: tuple[Checkpoint, ...] = field(default=(), compare=False, repr=False)

    @property
    def is_path(self) -> bool:
        """Whether it is a folder, or the name of one that is not there."""
        return self.name.startswith(("/", ".", "~")) or Path(self.name).exists()

    def load(self, cls: Any, **options: Any) -> Any:
        """``cls.from_pretrained`` of this checkpoint; never code that comes with it.

        Raises:
            UserError: It is not here and cannot be had.
        """
        try:
            require_reachable(self.name, self.revision)
            return cls.from_pretrained(self.name, revision=self.revision, **options)
        except (OSError, ValueError, ImportError, KeyError) as error:
            raise _not_loadable(self, error) from None

    def model(self, cls: Any, device: torch.device, dtype: torch.dtype) -> Any:
        """A model in evaluation mode, from safetensors only."""
        model = self.load(cls, dtype=dtype, use_safetensors=True).to(device).eval()
        return model.requires_grad_(False)

    def settings(self, file: str = "preprocessor_config.json") -> dict[str, Any]:
        """A JSON file of the checkpoint; empty where it has none."""
        from transformers.utils.hub import cached_file

        path = cached_file(
            self.name,
            file,
            revision=self.revision,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        return {} if path is None else json.loads(Path(path).read_text(encoding="utf-8"))

    def identity(self, model: Any) -> str:
        """What tells its weights from others: the commit on the Hub, or the files of a folder."""
        folder = Path(self.name)
        if not folder.is_dir():
            return f"{self.name}@{getattr(model.config, '_commit_hash', None) or self.revision}"
        digest = hashlib.sha256()
        for file in sorted(path for path in folder.iterdir() if path.is_file()):
            status = file.stat()
            digest.update(f"{file.name} {status.st_size}".encode())
            digest.update(file.read_bytes() if file.suffix == ".json" else f"{status.st_mtime_ns}".encode())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, slots=True)
class Place:
    """Where and in what a model computes."""

    device: torch.device
    dtype: torch.dtype

    @property
    def queries(self) -> int:
        """Keywords of a batch; always full, so that a keyword's result does not depend on the others."""
        return 1 if self.device.type == "cpu" else QUERIES_ON_GPU


def place(options: RegionOptions, *, precise: bool = False) -> Place:
    """Device and type that the options name.

    Args:
        options: The options; ``auto`` is the first GPU if there is one, and bfloat16 where it can.
        precise: Let ``auto`` be float32 everywhere.

    Raises:
        UserError: There is no such device.
    """
    try:
        device = default_device() if options.device == "auto" else torch.device(options.device)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(
            f"the device cannot be used: {str(error).splitlines()[0]}",
            where=f"--device {options.device}",
            fix="use auto or cpu, or look at `mfpo doctor`",
        ) from None
    if options.dtype != "auto":
        return Place(device, named_dtype(options.dtype))
    return Place(device, torch.float32 if precise else default_dtype(device))


def checkpoints(options: RegionOptions, *defaults: Checkpoint) -> list[Checkpoint]:
    """The checkpoints of a backend, with names and revisions of the options in the place of its own.

    Raises:
        UserError: The options name more or fewer models than the backend has.
    """
    chosen = list(defaults)
    for value, flag in ((options.model, "--region_model"), (options.revision, "--region_revision")):
        parts = value.split(",") if value is not None else []
        if parts and len(parts) != len(defaults):
            raise UserError(
                f"{len(parts)} given, and the backend has {len(defaults)} models",
                where=f"{flag} {value}",
                fix="separate them by a comma: DETECTOR,SEGMENTER" if len(defaults) > 1 else "give one",
            )
        for index, part in enumerate(parts):
            old = chosen[index]
            chosen[index] = (
                Checkpoint(part, old.revision)
                if flag == "--region_model"
                else Checkpoint(old.name, part, old.gate)
            )
    return [replace(one, family=tuple(chosen)) for one in chosen]


def fingerprint(backend: str, version: int, at: Place, models: Mapping[str, str], **settings: object) -> str:
    """What the results of a backend depend on besides picture and keyword, for the store of regions.

    Args:
        backend: Name of the backend.
        version: Counts the changes of its code that change results.
        at: Where it computes.
        models: Identity of each of its models.
        settings: Thresholds and the like.
    """
    import transformers

    parts = [version, at.device.type, str(at.dtype), dict(models), settings]
    parts += [torch.__version__, transformers.__version__]
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
    return f"{backend}-{digest[:16]}"


def in_batches(keywords: list[str], size: int, find: Callable[[list[str]], list[Any]]) -> list[Any]:
    """Results of ``find`` for all keywords, asked in full batches; the last one repeats its first keyword."""
    results: list[Any] = []
    for start in range(0, len(keywords), size):
        batch = keywords[start : start + size]
        results += find(batch + batch[:1] * (size - len(batch)))[: len(batch)]
    return results


def _not_loadable(checkpoint: Checkpoint, error: Exception) -> UserError:
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    family = checkpoint.family or (checkpoint,)
    commands = [f"`{_download(one)}`" for one in family if not one.is_path]
    if checkpoint.is_path:
        fix = "name a folder with config.json, model.safetensors and the files of its processor"
    else:
        folders = ",".join("FOLDER" for _ in family)
        fix = f"{' and '.join(commands)} where there is a network (copies: --region_model {folders})"
    gates = dict.fromkeys(one.gate for one in family if one.gate)
    if gates:
        fix = f"ask for access at {' and '.join(gates)}, `hf auth login`, then {fix}"
    fix += "; or take boxes that you have: --regions annotations --annotations FILE"
    fix += "; or another backend: `mfpo doctor` says which are ready here"
    return UserError(
        f"the region model cannot be loaded: {first_line}", where=f"--region_model {checkpoint.name}", fix=fix
    )


def _download(checkpoint: Checkpoint) -> str:
    revision = f" --revision {checkpoint.revision}" if checkpoint.revision else ""
    return f"hf download {checkpoint.name}{revision}"
