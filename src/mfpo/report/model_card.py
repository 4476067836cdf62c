"""The README of a trained model, which the Hub shows as its model card."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from mfpo.data.files import write_atomic
from mfpo.report.runs import Run, load_runs
from mfpo.training.config import TrainConfig
from mfpo.version import __version__

_HIDDEN = frozenset(
    {
        *("dataset", "model_name_or_path", "output_dir", "objective", "dry_run", "report_to", "plot_every"),
        *("resume_from_checkpoint", "push_to_hub", "dataloader_num_workers", "trainer"),
    }
)
_SHOWN = (
    ("loss", "loss"),
    ("rewards/margins", "text margin"),
    ("rewards/accuracies", "text accuracy"),
    ("rewards/image_margins", "image margin"),
    ("rewards/image_accuracies", "image accuracy"),
    ("rewards/modality_balance", "image margin / text margin"),
)
_CARD = """\
---
{metadata}
---

# {name}

{base} trained by preference optimisation with the objective `{objective}` on the dataset `{dataset}`, with
`mfpo` {version}.

{loading}
{sections}"""
_LOADING = {
    "transformers": """\
```python
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("{name}")
processor = AutoProcessor.from_pretrained("{name}")
```
""",
    "peft": """\
This is a LoRA adapter. `mfpo export` merges it into a plain checkpoint; to open it as it is:

```python
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained("{base}")
model = PeftModel.from_pretrained(model, "{name}")
processor = AutoProcessor.from_pretrained("{base}")
```
""",
}


def write_model_card(folder: str | Path) -> Path:
    """Write ``README.md`` into the folder of a training, from its settings, metrics and scores.

    Args:
        folder: Run folder with ``config.yaml``.

    Raises:
        UserError: The folder or a file in it cannot be read.
    """
    (run,) = load_runs([folder])
    path = Path(folder) / "README.md"
    write_atomic(path, model_card(run))
    return path


def model_card(run: Run) -> str:
    """The card of a training. Names of local folders are given without the folders above them.

    Args:
        run: The run.
    """
    config = run.config
    base, dataset = (_public(config.get(name), run.path) for name in ("model_name_or_path", "dataset"))
    library = "peft" if (run.path / "adapter_config.json").is_file() else "transformers"
    objective = str(config.get("objective", "mfpo"))
    data = ModelCardData(
        model_name=run.label,
        library_name=library,
        pipeline_tag="image-text-to-text",
        tags=["mfpo", "preference", *({objective} if ":" not in objective else ())],
        base_model=base if _on_hub(config.get("model_name_or_path"), run.path) else None,
        datasets=[dataset] if _on_hub(config.get("dataset"), run.path) else None,
        eval_results=_results(run) or None,
    )
    sections = [
        _table("Evaluation", ("benchmark", "metric", "value", "95% interval"), _scores(run)),
        _table("Last metrics of training", ("metric", "value"), _last_metrics(run)),
        _table("Settings", ("setting", "value"), _settings(config)),
        f"Settings left out have their defaults; all of them are in `config.yaml`. Trained with torch"
        f" {version('torch')}, transformers {version('transformers')}, peft {version('peft')}.\n",
    ]
    return _CARD.format(
        metadata=data.to_yaml().strip(),
        name=run.label,
        base=f"`{base}`",
        objective=objective,
        dataset=dataset,
        version=__version__,
        loading=_LOADING[library].format(name=run.label, base=base),
        sections="\n".join(section for section in sections if section),
    )


def _on_hub(name: Any, run: Path) -> bool:
    """Whether a name is one of the Hub's, ``organisation/name``, and no folder.

    A training names folders as seen from where it was started, which is most often a folder above the run,
    and not always the one in which the card is written.
    """
    text = str(name or "")
    if text.count("/") != 1 or text.startswith((".", "/", "~")):
        return False
    return not any((folder / text).exists() for folder in (Path(), *run.resolve().parents))


def _public(name: Any, run: Path) -> str:
    text = str(name or "unknown")
    return text if _on_hub(text, run) else Path(text).name


def _finite(run: Run) -> list[tuple[str, str, float, tuple[float, float] | None]]:
    return [
        (name, metric, value, result.intervals.get(metric))
        for name, result in run.scores.items()
        for metric, value in result.metrics.items()
        if math.isfinite(value)
    ]


def _results(run: Run) -> list[EvalResult]:
    return [
        EvalResult(
            task_type="image-text-to-text",
            dataset_type=name,
            dataset_name=name,
            metric_type=metric,
            metric_value=round(value, 4),
        )
        for name, metric, value, _ in _finite(run)
    ]


def _scores(run: Run) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for name, metric, value, interval in _finite(run):
        known = interval is not None and all(math.isfinite(end) for end in interval)
        ends = f"{interval[0]:.2f} to {interval[1]:.2f}" if known and interval else ""
        rows.append((name, metric, f"{value:.2f}", ends))
    return rows


def _last_metrics(run: Run) -> list[tuple[str, ...]]:
    steps = [line for line in run.log if "loss" in line]
    if not steps:
        return []
    last = steps[-1]
    found = [(name, f"{last[key]:.4f}") for key, name in _SHOWN if key in last]
    return [("step", str(last.get("step", ""))), *found]


def _settings(config: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """What differs from the defaults."""
    defaults = TrainConfig()
    changed: list[tuple[str, ...]] = [
        (item.name, str(config[item.name]))
        for item in fields(TrainConfig)
        if item.name in config
        and item.name not in _HIDDEN
        and config[item.name] != getattr(defaults, item.name)
    ]
    trainer = config.get("trainer") or {}
    return changed + [(f"trainer.{name}", str(value)) for name, value in trainer.items()]


def _table(title: str, head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [f"## {title}\n", f"| {' | '.join(head)} |", "| " + " | ".join("---" for _ in head) + " |"]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"
