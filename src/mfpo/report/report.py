"""``mfpo report``: runs side by side in one HTML file."""

from __future__ import annotations

import math
import platform
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

from markupsafe import Markup

from mfpo.data.files import write_atomic
from mfpo.errors import UserError
from mfpo.evaluation.comparison import Comparison
from mfpo.report import plots, probes
from mfpo.report.config import DEFAULT_TITLE, NUM_PICTURES, ReportConfig
from mfpo.report.figures import in_words
from mfpo.report.items.page import item_blocks
from mfpo.report.items.records import ItemSection
from mfpo.report.items.sections import item_section
from mfpo.report.model_card import write_model_card
from mfpo.report.page import embedded_json, render, tell_written
from mfpo.report.radar import radar, type_scores
from mfpo.report.rows import RowView, dataset_rows, default_image_processor
from mfpo.report.runs import Run, load_runs, settings_table
from mfpo.report.tables import compare_all, result_tables
from mfpo.version import __version__

AGAINST = (("CHAIR_i", "Cover"), ("CHAIR", "Cover"))
GALLERY_ROWS = 6


def run(config: ReportConfig) -> None:
    """Write the report that the settings describe.

    Raises:
        UserError: A setting is out of range, or a run folder, the dataset or the model cannot be opened.
    """
    if config.num_pictures < 0:
        raise UserError("out of range", where=f"--num_pictures {config.num_pictures}", fix="0 shows none")
    dataset = Path(config.dataset) if config.dataset else None
    path = write_report(
        config.output_file,
        [Path(folder) for folder in config.runs],
        title=config.title,
        dataset=dataset,
        model_name_or_path=config.model_name_or_path,
        num_pictures=config.num_pictures,
        data_dir=config.data_dir,
        reproduce=[_command(config)],
    )
    tell_written(path)
    if config.model_cards:
        for folder in config.runs:
            if (Path(folder) / "config.yaml").is_file():
                print(f"written to {write_model_card(folder)}")


def _command(config: ReportConfig) -> str:
    """What was typed, with the settings that are not left as they are by default."""
    words = ["mfpo", "report", *config.runs]
    for field in fields(config):
        value = getattr(config, field.name)
        if field.name == "runs" or (value == field.default and field.name != "output_file"):
            continue
        words += [f"--{field.name}"] if value is True else [f"--{field.name}", str(value)]
    return shlex.join(words)


def write_report(
    output_file: str | Path,
    runs: Sequence[Path],
    *,
    title: str = DEFAULT_TITLE,
    labels: Sequence[str] | None = None,
    dataset: Path | None = None,
    model_name_or_path: str | None = None,
    num_pictures: int = NUM_PICTURES,
    data_dir: str | None = None,
    notes: Sequence[str] = (),
    reproduce: Sequence[str] = (),
) -> Path:
    """Write one self-contained page about several runs. What a run doesn't have is left out.

    Args:
        output_file: The page.
        runs: Run folders; the others are compared with the first.
        title: Heading.
        labels: Names of the runs; those of their folders when None.
        dataset: Dataset folder to show rows of; the one that the runs were trained on, if there, when None.
        model_name_or_path: Model whose image processor renders the rejected images; the one that the runs
            started from, if it is there, when None, and CLIP's at 336 px otherwise.
        num_pictures: Items of each benchmark, the worst ones, whose pictures come onto the page.
        data_dir: Where benchmarks' pictures are looked for first; only in each score file's folder when None.
        notes: Paragraphs that stand under the heading.
        reproduce: Commands that make it all again.

    Returns:
        The page's path.

    Raises:
        UserError: A folder is not there, or a file in it cannot be read; but for a dataset or a model that
            only the settings of a run name, about which the page has a note.
    """
    if not runs:
        raise UserError("nothing to report", where="mfpo report", fix="name run folders")
    found = load_runs(runs, labels)
    comparisons = compare_all(found)
    different, shared = settings_table(found)
    logs = [one.training for one in found]
    rows, total, lost = _gallery(found, dataset, model_name_or_path)
    sections = _item_sections(
        found, [comparison.benchmark for comparison in comparisons], num_pictures, data_dir
    )
    page = render(
        "report.html.j2",
        {
            "title": title,
            "version": __version__,
            "runs": found,
            "notes": [*notes, *lost],
            "tables": result_tables(comparisons, found),
            "against": _against(comparisons, found),
            "radar": _radar(found),
            "distortion": probes.distortion(found),
            "attention": probes.attention_maps(found),
            "overlays": probes.overlays(found),
            "overlay_note": probes.overlay_note(found),
            "margins": plots.reward_margins(logs),
            "rewards": plots.rewards(logs),
            "losses": plots.losses(logs),
            "gallery": rows,
            "gallery_total": total,
            "sections": sections,
            "item_blocks": [item_blocks(section) for section in sections],
            "item_runs": Markup(embedded_json([one.label for one in found])),
            "different": different,
            "shared": shared,
            "reproduce": reproduce,
            "environment": _environment(),
        },
    )
    write_atomic(output_file, page)
    return Path(output_file)


@dataclass(frozen=True, slots=True)
class Tradeoff:
    """Hallucination against coverage in a benchmark.

    Attributes:
        plot: A point for each run that has both.
        missing: The other runs, each with the reason.
    """

    plot: Markup
    missing: tuple[str, ...]


def _against(comparisons: Sequence[Comparison], runs: Sequence[Run]) -> dict[str, Tradeoff]:
    """Hallucination against coverage, for each benchmark that measures both."""
    found = {}
    for comparison in comparisons:
        for fault, cover in AGAINST:
            if fault not in comparison.metrics or cover not in comparison.metrics:
                continue
            missing = {place: _why_missing(comparison, one, fault, cover) for place, one in enumerate(runs)}
            places = [place for place, reason in missing.items() if not reason]
            if places:
                labels = [runs[place].label for place in places]
                kept = [comparison.estimates[comparison.runs.index(label)] for label in labels]
                xs, ys = ([estimates[name] for estimates in kept] for name in (cover, fault))
                plot = plots.scatter(xs, ys, labels, cover, fault, places)
                reasons = (f"{runs[place].label}, {reason}" for place, reason in missing.items() if reason)
                found[comparison.benchmark] = Tradeoff(plot, tuple(reasons))
    return found


def _why_missing(comparison: Comparison, run: Run, fault: str, cover: str) -> str:
    """Why a run has no point in the plot of two metrics; empty if it has one."""
    if run.label not in comparison.runs:
        scored = comparison.benchmark in run.scores
        return "which shares no item with the others" if scored else "which is not scored on it"
    values = comparison.estimates[comparison.runs.index(run.label)]
    if math.isnan(values[fault].value):
        return f"whose answers name no object, so that {in_words(fault)} is not defined"
    if math.isnan(values[cover].value):
        return f"whose pictures have no object to name, so that {in_words(cover)} is not defined"
    return ""


def _gallery(
    runs: Sequence[Run], dataset: Path | None, model: str | None
) -> tuple[list[RowView], int, list[str]]:
    """Rows of the dataset, how many it has, and a note where what a run's settings name cannot be opened."""
    folder = dataset or _recorded(runs, "dataset")
    if folder is None:
        return [], 0, []
    try:
        processor = default_image_processor(model or _recorded_text(runs, "model_name_or_path"))
    except UserError as error:
        if model is not None:
            raise
        return [], 0, [_no_gallery("model", error)]
    try:
        return *dataset_rows(folder, processor, GALLERY_ROWS), []
    except UserError as error:
        if dataset is not None:
            raise
        return [], 0, [_no_gallery("dataset", error)]


def _no_gallery(what: str, error: UserError) -> str:
    flag = "--dataset" if what == "dataset" else "--model_name_or_path"
    where = error.where.removeprefix(f"{flag} ")
    return (
        f"Preference rows are not shown: the {what} that a run's settings name cannot be opened "
        f"({where}: {error.what}). {flag} names another one."
    )


def _recorded_text(runs: Sequence[Run], setting: str) -> str | None:
    folder = _recorded(runs, setting)
    return None if folder is None else str(folder)


def _recorded(runs: Sequence[Run], setting: str) -> Path | None:
    """A folder that a run's settings name, if it is there."""
    for one in runs:
        value = one.config.get(setting)
        if value and Path(str(value)).is_dir():
            return Path(str(value))
    return None


def _radar(runs: Sequence[Run]) -> Markup | None:
    """Question types of MMHal-Bench, a polygon per run; None where there are too few for one."""
    scores = type_scores([(one.label, one.scores["mmhal"]) for one in runs if "mmhal" in one.scores])
    return radar(scores, [one.label for one in runs]) if scores else None


def _item_sections(
    runs: Sequence[Run], benchmarks: Sequence[str], num_pictures: int, data_dir: str | None
) -> list[ItemSection]:
    """The benchmarks that have answers, in the order of the tables."""
    sections = (
        item_section(
            name,
            [one.scores.get(name) for one in runs],
            [one.label for one in runs],
            num_pictures=num_pictures,
            data_dir=data_dir,
        )
        for name in benchmarks
    )
    return [section for section in sections if section is not None]


def _environment() -> dict[str, Any]:
    packages = {}
    for name in ("torch", "transformers", "datasets", "peft"):
        try:
            packages[name] = package_version(name)
        except PackageNotFoundError:
            continue
    return {
        "mfpo": __version__,
        "Python": platform.python_version(),
        **packages,
        "machine": f"{platform.system()} {platform.machine()}",
        "written": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
