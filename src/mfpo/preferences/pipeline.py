"""Put together what makes the rows of a build: the engine, kept regions, keywords."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mfpo.data.cache import default_cache
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.engine import open_engine
from mfpo.preferences.keywords import KeywordExtractor
from mfpo.preferences.search import RegionSearch
from mfpo.preferences.store import FORMAT, RegionStore
from mfpo.preferences.stream import RowStream


@contextmanager
def open_row_stream(
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
            yield RowStream(config, engine, search, extractor, fingerprint)
