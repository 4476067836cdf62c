"""Replies kept on disk by what was asked, so that nothing is paid for twice."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from mfpo.data.cache import default_cache
from mfpo.errors import UserError
from mfpo.evaluation.servers.chat import ChatReply, ChatRequest, ChatServer

_TABLE = """
CREATE TABLE IF NOT EXISTS replies (
    key TEXT PRIMARY KEY, text TEXT NOT NULL, model TEXT NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, finish_reason TEXT NOT NULL, received REAL NOT NULL
) WITHOUT ROWID;
"""
_SECONDS_TO_WAIT = 120


def default_reply_cache() -> Path:
    """The file that all runs on this machine share."""
    return default_cache() / "replies.sqlite"


def reply_key(server: str, request: ChatRequest, repeat: int, attempt: int = 0) -> str:
    """SHA-256 of what decides about a reply: server, model, messages, parameters, repeat and attempt."""
    parts = [server, request.parameters(), [dict(message) for message in request.messages], repeat, attempt]
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


class ReplyCache:
    """A SQLite file of replies. It holds no requests and no keys; threads and processes may share it.

    Args:
        path: The file; created with its folder.

    Raises:
        UserError: The file cannot be opened, or is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._lock = threading.Lock()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(self.path, timeout=_SECONDS_TO_WAIT, check_same_thread=False)
            self._file.execute("PRAGMA journal_mode=WAL")
            # Replies cost money: they are to outlive a power cut too.
            self._file.execute("PRAGMA synchronous=FULL")
            self._file.executescript(_TABLE)
        except (sqlite3.Error, OSError) as error:
            raise self._unusable(error) from None

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._file.close()

    def get(self, key: str) -> ChatReply | None:
        """The reply kept under a key."""
        columns = "text, model, prompt_tokens, completion_tokens, finish_reason"
        try:
            with self._lock:
                row = self._file.execute(f"SELECT {columns} FROM replies WHERE key = ?", (key,)).fetchone()
        except sqlite3.Error as error:
            raise self._unusable(error) from None
        return None if row is None else ChatReply(*row)

    def put(self, key: str, reply: ChatReply) -> None:
        """Keep a reply; it is on the disk when this returns. The first one under a key stays."""
        tokens = reply.prompt_tokens, reply.completion_tokens
        row = (key, reply.text, reply.model, *tokens, reply.finish_reason, time.time())
        try:
            with self._lock, self._file:
                self._file.execute("INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        except sqlite3.Error as error:
            raise self._unusable(error) from None

    def _unusable(self, error: Exception) -> UserError:
        return UserError(
            f"the cache of replies cannot be used: {error}",
            where=str(self.path),
            fix="set MFPO_CACHE to a folder you may write to; if the file is damaged, move it away, "
            "what is in it will be asked and paid for again",
        )


@dataclass(frozen=True, slots=True)
class KeptReply:
    """A reply, and whether it had to be asked for.

    Attributes:
        reply: The reply.
        fresh: Whether this very call has sent the request.
    """

    reply: ChatReply
    fresh: bool


class CachedServer:
    """A server whose replies are kept; equal requests at the same time are sent once.

    Args:
        server: The server.
        cache: Where its replies are kept.
    """

    def __init__(self, server: ChatServer, cache: ReplyCache) -> None:
        self.server, self.cache = server, cache
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[ChatReply]] = {}

    def ask(self, request: ChatRequest, repeat: int = 0, attempt: int = 0) -> KeptReply:
        """The reply to a request, from the cache if it is there.

        Args:
            request: What to ask.
            repeat: Which of several independent replies to the same request.
            attempt: Which of several tries at a reply that is of use.

        Raises:
            UserError, RequestFailed: See [`ChatServer.ask`].
        """
        key = reply_key(self.server.base_url, request, repeat, attempt)
        with self._lock:
            under_way = self._under_way.get(key)
            if under_way is None:
                kept = self.cache.get(key)
                if kept is not None:
                    return KeptReply(kept, fresh=False)
                mine: Future[ChatReply] = Future()
                self._under_way[key] = mine
        if under_way is not None:
            return KeptReply(under_way.result(), fresh=False)
        try:
            reply = self.server.ask(request, key)
            self.cache.put(key, reply)
            mine.set_result(reply)
        except BaseException as error:
            mine.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._under_way[key]
        return KeptReply(reply, fresh=True)
