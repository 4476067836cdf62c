"""Put together what makes the rows of a build: the engine, kept regions, keywords."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mfpo.data.cache import default_cache
from mfpo.errors import UserError
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.engine import Engine, num_workers, open_engine
from mfpo.preferences.keywords import KeywordExtractor
from mfpo.preferences.pool import ATTEMPTS, WorkerDied
from mfpo.preferences.search import RegionSearch
from mfpo.preferences.store import FORMAT, RegionStore
from mfpo.preferences.stream import RowStream


@dataclass(frozen=True, slots=True)
class LoadedEngine:
    """An engine that is ready to work.

    Attributes:
        engine: The engine.
        fingerprint: That of its region backend; None if what it finds must not be kept for later builds, or
            if no keywords are searched.
    """

    engine: Engine
    fingerprint: str | None = None


@contextmanager
def open_loaded_engine(config: BuildConfig) -> Iterator[LoadedEngine]:
    """The engine that the settings name, after one of its workers has loaded the region backend.

    Raises:
        UserError: The backend or the engine cannot be had.
    """
    with open_engine(config) as engine:
        yield LoadedEngine(engine, _described(engine, config))


def _described(engine: Engine, config: BuildConfig) -> str | None:
    """Fingerprint of the region backend, see [`LoadedEngine`]."""
    fingerprint: str | WorkerDied | None = next(iter(engine.map("describe", [None])))
    if isinstance(fingerprint, WorkerDied):
        raise UserError(
            f"a worker died {ATTEMPTS} times while it loaded the region model; out of memory?",
            where=f"--regions {config.backend}, --num_workers {num_workers(config)}",
            fix="give fewer --num_workers, or a smaller model with --regions; with --num_workers 1, what ends"
            " the process shows itself",
        )
    return fingerprint


@contextmanager
def open_row_stream(
    config: BuildConfig, loaded: LoadedEngine, extractor: KeywordExtractor | None, scratch: Path | None
) -> Iterator[RowStream]:
    """What makes the rows.

    Args:
        config: The settings.
        loaded: Works on pictures.
        extractor: Finds the keywords.
        scratch: Folder for what an interrupted build of this dataset needs again; None for none.
    """
    if loaded.fingerprint is not None:
        path: Path | str = default_cache() / "regions" / f"{loaded.fingerprint}-{FORMAT}.sqlite"
    else:
        path = ":memory:" if scratch is None else scratch / "regions.sqlite"
    with RegionStore(path) as store:
        search = RegionSearch(loaded.engine, store, by_name=loaded.fingerprint is None)
        yield RowStream(config, loaded.engine, search, extractor, loaded.fingerprint)
