"""From a text preference source to a dataset folder (paper 3.1): ``mfpo build``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path, PurePath
from typing import Any

from tqdm import tqdm

from mfpo import __version__
from mfpo.data.cache import default_cache
from mfpo.data.columns import extra_types
from mfpo.data.files import save_config
from mfpo.data.folder import DatasetWriter, check_writable, open_dataset, read_manifest
from mfpo.data.sources import image_root, read_source, source_files
from mfpo.errors import Skip, UserError
from mfpo.preferences.assemble import Finding, Job
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.engine import open_engine
from mfpo.preferences.keywords import KeywordExtractor
from mfpo.preferences.noise import check_noise
from mfpo.preferences.search import RegionSearch
from mfpo.preferences.store import FORMAT, RegionStore
from mfpo.preferences.stream import Made, RowStream
from mfpo.preferences.summary import Summary, show_row, show_summary
from mfpo.records import ImageSource, Noise, PreferencePair, Sample

INSPECTED_ROWS = 5
HASHED_BYTES = 256 * 2**20

_FREE = (
    "output_dir",
    "num_workers",
    "max_workers",
    "engine",
    "inspect",
    "dry_run",
    "overwrite",
    "check_regions",
)
"""Settings that do not change the rows."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What a first pass over the source found.

    Attributes:
        items: Its rows, unusable ones included.
        extra: Further columns and their types.
        rejected_images: Whether a row brings rejected images along.
    """

    items: int
    extra: dict[str, type]
    rejected_images: bool


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
    if config.inspect:
        return _inspect(config)
    if config.dry_run:
        return _count(config)
    check_writable(config.output_dir)
    fingerprint = _fingerprint(config)
    manifest = read_manifest(config.output_dir)
    if manifest is not None and manifest["fingerprint"] == fingerprint and not config.overwrite:
        title = f"{config.output_dir} was built before, with these settings"
    else:
        _build(config, fingerprint)
        title = config.output_dir
    summary = Summary.of_folder(config.output_dir)
    show_summary(summary, title=title)
    if config.check_regions:
        _check_regions(config)
    return summary


def _check(config: BuildConfig) -> None:
    """What can be wrong before anything is read."""
    if not config.dataset:
        raise UserError("no source is given", where="--dataset", fix="give a file, a folder or a Hub name")
    if not config.output_dir and not (config.inspect or config.dry_run):
        raise UserError("no folder is given", where="--output_dir", fix="say where the dataset should be")
    check_noise(Noise(config.noise_scope, config.noise_schedule, config.noise_step, 0, config.noise_fraction))
    config.keyword_config()
    for name in ("num_workers", "max_workers", "limit"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UserError(f"must be at least 1, not {value}", where=f"--{name}")
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


def _build(config: BuildConfig, fingerprint: str) -> None:
    """Write the folder, after what an earlier run with the same fingerprint finished."""
    scan = _scan(config)
    writer = DatasetWriter(
        config.output_dir,
        extra_columns=scan.extra,
        rejected_images=config.materialize or scan.rejected_images,
        fingerprint=fingerprint,
        overwrite=config.overwrite,
        info={"mfpo": __version__},
    )
    root = image_root(config.dataset, config.image_dir)
    seen = {identifier for shard in writer.finished for identifier in shard.ids}
    items = islice(enumerate(_items(config)), writer.position, None)
    bar = tqdm(total=scan.items, initial=writer.position, desc="build", unit="row", disable=None)
    with (
        writer,
        _row_stream(config, KeywordExtractor(config.keyword_config()), writer.scratch) as stream,
        bar,
    ):
        for made in stream.rows(items, seen):
            writer.position = made.position + 1
            if made.job is not None and isinstance(made.outcome, Finding):
                writer.write(_pair(made.job, made.outcome, root))
            elif isinstance(made.outcome, Skip):
                writer.skip(made.outcome)
            bar.update()
    save_config(config, Path(config.output_dir) / "config.yaml")


@contextmanager
def _row_stream(
    config: BuildConfig, extractor: KeywordExtractor | None, scratch: Path | None
) -> Iterator[RowStream]:
    """What makes the rows.

    Args:
        config: The settings.
        extractor: Finds the keywords.
        scratch: Folder for what an interrupted build of this dataset needs again; None for none.
    """
    with open_engine(config) as engine:
        fingerprint = None if extractor is None else next(iter(engine.map("describe", [None])))
        if fingerprint is not None:
            path: Path | str = default_cache() / "regions" / f"{fingerprint}-{FORMAT}.sqlite"
        else:
            path = ":memory:" if scratch is None else scratch / "regions.sqlite"
        with RegionStore(path) as store:
            search = RegionSearch(engine, store, by_name=fingerprint is None)
            yield RowStream(config, engine, search, extractor)


def _check_regions(config: BuildConfig) -> None:
    from mfpo.data.annotations import load_annotations
    from mfpo.preferences.regions.check import check_regions

    assert config.annotations is not None, "checked before anything is read"
    folder = Path(config.output_dir) / "region_check"
    annotations = load_annotations(config.annotations, config.box_format)
    report = check_regions(open_dataset(config.output_dir), annotations, folder)
    low, high = report.interval
    print(
        f"regions checked: {report.keywords} keywords have given boxes, {report.found} were found, "
        f"{report.right} of them right ({report.share:.0%}, 95% interval {low:.0%} to {high:.0%}); "
        f"the worst are in {folder / 'worst'}"
    )


def _inspect(config: BuildConfig) -> Summary:
    items = list(islice(_items(config), INSPECTED_ROWS))
    with _row_stream(config, KeywordExtractor(config.keyword_config()), None) as stream:
        for made in stream.rows(enumerate(items), set()):
            show_row(items[made.position].where, made.job, made.outcome)
    return Summary()


def _count(config: BuildConfig) -> Summary:
    summary = Summary()
    with (
        _row_stream(replace(config, materialize=False), None, None) as stream,
        tqdm(desc="dry run", unit="row", disable=None) as bar,
    ):
        for made in stream.rows(enumerate(_items(config)), set()):
            _tally(summary, made)
            bar.update()
    show_summary(summary, title=f"{config.dataset} (dry run, nothing is written)")
    return summary


def _tally(summary: Summary, made: Made) -> None:
    if isinstance(made.outcome, Skip):
        summary.skipped[made.outcome.reason] += 1
    else:
        summary.rows += 1


def _items(config: BuildConfig) -> Iterator[Sample | Skip]:
    return islice(read_source(config.dataset, config.image_dir), config.limit)


def _scan(config: BuildConfig) -> Scan:
    """Count the rows and learn the types of the further columns, which all shards must share."""
    items, rejected_images = 0, False

    def extras() -> Iterator[dict[str, Any]]:
        nonlocal items, rejected_images
        for item in _items(config):
            items += 1
            if isinstance(item, Sample):
                rejected_images = rejected_images or bool(item.rejected_images)
                yield item.extra

    types = extra_types(extras())
    return Scan(items, types, rejected_images)


def _pair(job: Job, finding: Finding, root: Path) -> PreferencePair:
    sample = job.sample
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
        extra=sample.extra,
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


def _fingerprint(config: BuildConfig) -> str:
    """Identifies the rows that a configuration makes of its files as they are now."""
    settings = {name: value for name, value in asdict(config).items() if name not in _FREE}
    settings["regions"] = config.backend
    files = source_files(config.dataset)
    if files:
        # What is in the files counts, not where they lie.
        settings["dataset"] = [_file_stamp(path) for path in files]
    if config.annotations is not None:
        settings["annotations"] = _file_stamp(Path(config.annotations))
    text = json.dumps([__version__, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _file_stamp(path: Path) -> str:
    """Identifies a file's content; for a large file its size and time of change must do."""
    try:
        status = path.stat()
        if status.st_size > HASHED_BYTES:
            return f"{path.name} {status.st_size} {status.st_mtime_ns}"
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"the file cannot be read: {error.strerror}", where=str(path)) from None
