"""From a text preference source to a dataset folder (paper 3.1): ``mfpo build``."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePath

from tqdm import tqdm

from mfpo.data.annotation_files import load_annotations
from mfpo.data.annotations import Annotations
from mfpo.data.card import CardNotes, is_complete_card, licence_of, write_card
from mfpo.data.files import save_config, write_json
from mfpo.data.folder import open_dataset, read_manifest
from mfpo.data.push import push_dataset
from mfpo.data.sources import Outline, Source
from mfpo.data.writer import SETTINGS, DatasetWriter, check_free, check_writable
from mfpo.errors import Skip, UserError
from mfpo.preferences.assemble import Finding, Job
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.engine import open_engine
from mfpo.preferences.identity import build_fingerprint, row_settings
from mfpo.preferences.inspect import inspect_source
from mfpo.preferences.keywords import KeywordExtractor, no_keywords_given
from mfpo.preferences.noise import check_noise, check_step_range
from mfpo.preferences.pipeline import LoadedEngine, open_loaded_engine, open_row_stream
from mfpo.preferences.regions.base import check_backend
from mfpo.preferences.stream import Made
from mfpo.preferences.summary import Summary, show_summary, why_none_found
from mfpo.records import ImageSource, Noise, PreferencePair
from mfpo.version import __version__


def run(config: BuildConfig) -> None:
    """``mfpo build``, see [`build_dataset`]."""
    build_dataset(config)


def build_dataset(config: BuildConfig) -> Summary:
    """Build the dataset; an interrupted run goes on where it was when it is started again.

    Args:
        config: The settings.

    Returns:
        The counts, which are also printed; empty with ``inspect``.

    Raises:
        UserError: A setting or the source is wrong, the folder cannot be written or holds something else, or
            no row was usable.
    """
    _check(config)
    source = Source(config)
    if config.inspect:
        inspect_source(config, source)
        return Summary()
    if config.dry_run:
        return _count(config, source)
    check_writable(config.output_dir, keep=False)
    given = _boxes_to_compare_with(config)
    outline = source.outline()
    if config.keywords == "given" and not outline.keywords:
        raise no_keywords_given()
    fingerprint = build_fingerprint(config, source, outline)
    manifest = read_manifest(config.output_dir)
    if manifest is not None and manifest["fingerprint"] == fingerprint and not config.overwrite:
        title = f"{config.output_dir} was built before, with these settings"
    else:
        _build(config, source, outline, fingerprint)
        title = config.output_dir
    summary = Summary.of_folder(config.output_dir)
    if not is_complete_card(Path(config.output_dir)):
        write_card(Path(config.output_dir), _notes(config, source, outline, summary))
    show_summary(summary, title=title, hint=_hint(config, summary))
    if given is not None:
        _check_regions(config, given, source.images.root)
    if config.push_to_hub is not None:
        address = push_dataset(config.output_dir, config.push_to_hub, private=config.hub_private_repo)
        print(f"uploaded to {address}")
    return summary


def _check(config: BuildConfig) -> None:
    """What can be wrong before anything is read."""
    if not config.dataset:
        raise UserError("no source is given", where="--dataset", fix="give a file, a folder or a Hub name")
    if not config.output_dir and not (config.inspect or config.dry_run):
        raise UserError("no folder is given", where="--output_dir", fix="say where the dataset should be")
    check_noise(
        Noise(
            config.noise_scope,
            config.noise_schedule,
            config.noise_step,
            fraction=config.noise_fraction,
            feather=config.noise_feather,
        )
    )
    check_step_range(config.noise_step, config.noise_step_max)
    config.keyword_config()
    _check_numbers(config)
    check_backend(config.backend, config.region_options())
    if config.check_regions and config.annotations is None:
        raise UserError(
            "there are no boxes to compare with", where="--check_regions", fix="pass --annotations FILE"
        )
    if config.materialize and config.model_name_or_path is None:
        raise UserError(
            "rejected images are drawn at the resolution of a model, and none is named",
            where="--materialize",
            fix="name it with --model_name_or_path",
        )


def _check_numbers(config: BuildConfig) -> None:
    for name in ("num_workers", "max_workers", "limit"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"must be at least 1, not {value}", where=f"--{name}")
    for name in ("min_region", "max_region", "dilate", "box_threshold", "mask_threshold"):
        value = getattr(config, name)
        if value is not None and not 0 <= value <= 1:
            raise UserError(f"must be from 0 to 1, not {value}", where=f"--{name}")
    if config.mask_threshold in (0, 1):
        raise UserError(
            f"with {config.mask_threshold} all pixels or none belong to a mask",
            where="--mask_threshold",
            fix="give a probability between 0 and 1",
        )
    if config.min_region > config.max_region:
        raise UserError(
            f"no region is at least {config.min_region} and at most {config.max_region} of the picture",
            where="--min_region, --max_region",
        )


def _build(config: BuildConfig, source: Source, outline: Outline, fingerprint: str) -> None:
    """Write the folder, after what an earlier run with the same fingerprint finished.

    What can fail at once does so before there is a folder or a bar.
    """
    check_free(config.output_dir, fingerprint, overwrite=config.overwrite)
    extractor = KeywordExtractor(config.keyword_config())
    with (
        open_loaded_engine(config) as loaded,
        DatasetWriter(
            config.output_dir,
            extra_columns=outline.extra,
            rejected_images=config.materialize or outline.rejected_images,
            fingerprint=fingerprint,
            overwrite=config.overwrite,
            info={"mfpo": __version__, "region_backend": loaded.fingerprint},
        ) as writer,
        open_row_stream(config, loaded, extractor, writer.scratch) as stream,
        tqdm(total=outline.items, initial=writer.position, desc="build", unit="row") as bar,
    ):
        _note_backend(config, writer, loaded.fingerprint)
        seen = {identifier for shard in writer.finished for identifier in shard.ids}
        items = islice(enumerate(source.items()), writer.position, None)
        for made in stream.rows(items, seen):
            writer.position = made.position + 1
            if made.job is not None and isinstance(made.outcome, Finding):
                writer.write(_pair(made.job, made.outcome, source.images.root, outline))
            elif isinstance(made.outcome, Skip):
                writer.skip(made.outcome)
            bar.update()
    save_config(config, Path(config.output_dir) / SETTINGS)


def _note_backend(config: BuildConfig, writer: DatasetWriter, backend: str | None) -> None:
    """Let one backend find all regions of a dataset.

    ``auto`` may stand for another one where a build goes on, and a backend for other weights.

    Raises:
        UserError: Shards that are finished are another one's.
    """
    note = writer.scratch / "region_backend.json"
    if writer.finished and note.is_file():
        before = json.loads(note.read_text(encoding="utf-8"))
        if before != backend:
            raise UserError(
                f"{len(writer.finished)} shards have regions of {before or 'a backend without a name'}, and"
                f" --regions {config.backend} is {backend or 'one without a name'} here",
                where=f"--output_dir {config.output_dir}",
                fix="go on where the first one can run, or name one with --regions and give --overwrite",
            )
    write_json(note, backend)


def _boxes_to_compare_with(config: BuildConfig) -> Annotations | None:
    """The boxes of ``--check_regions``, read before a build that may take days."""
    if not config.check_regions:
        return None
    assert config.annotations is not None, "checked before anything is read"
    return load_annotations(config.annotations, config.box_format)


def _hint(config: BuildConfig, summary: Summary) -> str:
    """Why no row has a region, where none has."""
    if not summary.keywords or summary.without_region < summary.rows:
        return ""
    given = None
    if config.backend == "annotations" and config.annotations is not None:
        given = load_annotations(config.annotations, config.box_format)
    return why_none_found(config.output_dir, given)


def _check_regions(config: BuildConfig, annotations: Annotations, image_dir: Path) -> None:
    from mfpo.preferences.regions.check import check_regions, told

    folder = Path(config.output_dir) / "region_check"
    report = check_regions(open_dataset(config.output_dir), annotations, folder, image_dir=image_dir)
    print(told(report, folder), file=sys.stdout if report.keywords else sys.stderr)


def _count(config: BuildConfig, source: Source) -> Summary:
    summary = Summary()
    config = replace(config, materialize=False)
    with (
        open_engine(config) as engine,
        open_row_stream(config, LoadedEngine(engine), None, None) as stream,
        tqdm(desc="dry run", unit="row") as bar,
    ):
        for made in stream.rows(enumerate(source.items()), set()):
            _tally(summary, made)
            bar.update()
    show_summary(summary, title=f"{config.dataset} (dry run, nothing is written)")
    return summary


def _tally(summary: Summary, made: Made) -> None:
    if isinstance(made.outcome, Skip):
        summary.skipped[made.outcome.reason] += 1
    else:
        summary.rows += 1


def _notes(config: BuildConfig, source: Source, outline: Outline, summary: Summary) -> CardNotes:
    """What the dataset card says of this build; names of files without this machine's folders."""
    path = Path(config.dataset)
    settings = {
        name: Path(value).name if isinstance(value, str) and "/" in value and Path(value).exists() else value
        for name, value in row_settings(config).items()
        if value is not None and value != {} and name not in ("dataset", "image_dir", "limit")
    }
    settings["regions"] = _backend_name(config)
    counts = {
        "rows": summary.rows,
        "keywords": summary.keywords,
        "keywords with a region": f"{summary.found} ({summary.found_share:.0%})",
        "rows without a region": summary.without_region,
        **{f"noise scope {scope}": count for scope, count in summary.scopes.most_common()},
    }
    return CardNotes(
        source=path.name if path.exists() else config.dataset,
        kind=f"{source.kind}, layout {outline.layout}",
        licence=source.licence or licence_of(path if path.is_dir() else path.parent),
        counts=counts,
        skipped=summary.skipped,
        settings=settings,
    )


def _backend_name(config: BuildConfig) -> str:
    """The backend that found the regions; its fingerprint says what ``auto`` stood for."""
    made_by = (read_manifest(config.output_dir) or {}).get("region_backend")
    return made_by.rpartition("-")[0] if config.backend == "auto" and made_by else config.backend


def _pair(job: Job, finding: Finding, root: Path, outline: Outline) -> PreferencePair:
    sample = job.sample
    # A stream may hold more than it declares.
    extra = {name: value for name, value in sample.extra.items() if name in outline.extra}
    return PreferencePair(
        id=job.id,
        images=tuple(_stored(source, root) for source in sample.images),
        prompt=sample.prompt,
        chosen=sample.chosen,
        rejected=sample.rejected,
        keywords=job.keywords,
        regions=finding.regions,
        noise=finding.noise,
        rejected_images=tuple(_stored(source, root) for source in finding.rejected_images),
        extra=extra,
        region_status=finding.status,
    )


def _stored(source: ImageSource, root: Path) -> ImageSource:
    """The image under its name relative to the image folder, without this machine's folders."""
    if source.path is None:
        return source
    path = PurePath(source.path)
    if path.is_relative_to(root):
        path = path.relative_to(root)
    if path.is_absolute() or ".." in path.parts:
        path = PurePath(path.name)
    return ImageSource(path.as_posix(), source.data)
