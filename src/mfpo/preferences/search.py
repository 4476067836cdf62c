"""The search for keywords in the pictures of many rows: each picture once, whatever was found before kept."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TypeAlias

from mfpo.errors import UserError
from mfpo.preferences.engine import Engine
from mfpo.preferences.pool import WorkerDied
from mfpo.preferences.store import Picture, RegionStore
from mfpo.preferences.worker import Request
from mfpo.records import ImageSource

FAILURES_BEFORE_GIVING_UP = 10
"""Pictures in a row on which a backend may fail before it counts as broken."""

Wait: TypeAlias = Callable[[], None]
"""Returns when a search has ended."""


class RegionSearch:
    """Has pictures searched, those that the store does not know and only for keywords that are new.

    Args:
        engine: Does the work.
        store: Keeps the results.
        by_name: Whether results depend on the picture's name too, as with annotations.
    """

    def __init__(self, engine: Engine, store: RegionStore, *, by_name: bool) -> None:
        self._engine, self._store, self._by_name = engine, store, by_name
        self._asked: defaultdict[str, set[str]] = defaultdict(set)
        self._failed: dict[str, tuple[str, str]] = {}
        self._unreadable: dict[str, Picture] = {}
        self._failures_in_a_row = 0

    def key(self, image: ImageSource) -> str:
        """What identifies a picture in the store."""
        digest = hashlib.sha256(image.read())
        if self._by_name:
            digest.update(f"\0{image.path}".encode())
        return digest.hexdigest()[:32]

    def submit(self, requests: Sequence[Request]) -> Wait:
        """Begin a search; the result waits for its end, after which [`picture`] knows what was found.

        Requests for one picture are done together. What an earlier call has begun is not begun again, so the
        ends must be waited for in the order of the calls.

        Args:
            requests: Pictures and keywords; the same picture may come several times.
        """
        wanted = _together(requests)
        missing = [request for request in map(self._missing, wanted.values()) if request is not None]
        for request in missing:
            self._asked[request.key].update(request.keywords)
        results = self._engine.map("search", missing)

        def finish() -> None:
            for request, result in zip(missing, results, strict=True):
                self._keep(request, result)

        return finish

    def picture(self, request: Request) -> Picture:
        """What is known of a request's picture and keywords once its search has ended."""
        if request.key in self._unreadable:
            return self._unreadable[request.key]
        known = self._store.get(request.key, request.keywords)
        failure = self._failed.get(request.key)
        if known is None:
            return Picture(request.key, failure=failure)
        incomplete = any(word not in known.regions for word in request.keywords)
        return replace(known, failure=failure) if incomplete and failure is not None else known

    def _missing(self, request: Request) -> Request | None:
        """What of a request is neither known nor on its way."""
        if request.key in self._unreadable:
            return None
        asked = self._asked.get(request.key)
        known = self._store.get(request.key, request.keywords)
        found = known.regions if known is not None else {}
        keywords = tuple(w for w in request.keywords if w not in found and w not in (asked or ()))
        if not keywords and (known is not None or asked is not None):
            return None
        return replace(request, keywords=keywords)

    def _keep(self, request: Request, result: Picture | WorkerDied) -> None:
        self._asked[request.key].difference_update(request.keywords)
        if not self._asked[request.key]:
            del self._asked[request.key]
        if isinstance(result, WorkerDied):
            result = Picture(
                request.key,
                failure=("worker-died", "its worker process died each time, out of memory perhaps"),
            )
        if result.failure is None:
            self._failures_in_a_row = 0
        else:
            self._failed[request.key] = result.failure
            self._count_failure(request, result.failure)
        if result.problem is not None:
            self._unreadable[request.key] = result
        elif result.size is not None:
            self._store.put(result)

    def _count_failure(self, request: Request, failure: tuple[str, str]) -> None:
        """A backend that fails on picture after picture has another problem than the pictures."""
        reason, detail = failure
        if reason not in ("region-error", "worker-died"):
            return
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= FAILURES_BEFORE_GIVING_UP:
            raise UserError(
                f"the region backend failed on {self._failures_in_a_row} pictures in a row; "
                f"the last: {detail}",
                where=request.image.path or "an embedded image",
                fix="with one worker and --limit 1 the cause is easier to see; what was finished is kept",
            )


def _together(requests: Iterable[Request]) -> dict[str, Request]:
    """One request for each picture, with the keywords of all."""
    merged_requests: dict[str, Request] = {}
    for request in requests:
        known = merged_requests.setdefault(request.key, request)
        keywords = tuple(dict.fromkeys((*known.keywords, *request.keywords)))
        merged_requests[request.key] = replace(known, keywords=keywords)
    return merged_requests
