"""Requests to an OpenAI-compatible server, repeated through whatever faults pass."""

from __future__ import annotations

import json
import math
import os
import random
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from mfpo.errors import UserError
from mfpo.records import row_seed

if TYPE_CHECKING:
    from openai import APIStatusError, OpenAI

MAX_REPLY_BYTES = 4 << 20
"""A reply of more bytes is a fault; the longest answers of today's models have a tenth of it."""

FAILURES_IN_VAIN = 10
"""Requests that fail without any success after which whoever sends them is to stop."""

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 60.0
_LONGEST_RETRY_AFTER = 600.0
_TRIES_UNREACHED = 3
_PASSING_STATUS = (408, 409, 425, 429)
_FATAL_STATUS = (401, 403, 404)
_LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class RequestFailed(Exception):  # noqa: N818 - what happened to a request, for the caller to count
    """One request got no usable reply; others may."""


class _Fault(Exception):  # noqa: N818 - passes, so the request is sent again
    """A try that failed and may work the next time.

    Args:
        what: What happened.
        wait: Seconds that the server asked to wait.
    """

    def __init__(self, what: str, wait: float | None = None) -> None:
        super().__init__(what)
        self.wait = wait


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """What is sent.

    Attributes:
        model: Name of the model at the server.
        messages: Messages of the protocol: JSON objects with ``role`` and ``content``.
        max_tokens: Tokens after which the reply is cut; the server's limit when None.
        temperature: 0 for the likeliest reply; the server's default when None.
        top_p: Share of the probability that is sampled from; the server's default when None.
        seed: Seed of the sampling, for servers that take one.
    """

    model: str
    messages: Sequence[Mapping[str, Any]]
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    seed: int | None = None

    def parameters(self) -> dict[str, Any]:
        """All but the messages, those that are not given left out."""
        names = ("model", "max_tokens", "temperature", "top_p", "seed")
        values = {name: getattr(self, name) for name in names}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, slots=True)
class ChatReply:
    """What came back.

    Attributes:
        text: The first choice's text; empty where the model wrote none.
        model: Name of the model that the server says has answered.
        prompt_tokens: Tokens of the request by the server's count, 0 if it gives none.
        completion_tokens: Tokens of the reply by the server's count, 0 if it gives none.
        finish_reason: Why the reply ended: ``stop``, ``length``, ``content_filter``, ...
    """

    text: str
    model: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    finish_reason: str = ""


class ChatServer:
    """An OpenAI-compatible server. Safe to use from several threads.

    Tries that fail with 429, 5xx, a timeout, a lost connection or a reply that is no JSON are repeated, after
    a pause that doubles, with jitter from a seeded generator, or after what ``Retry-After`` asks for.

    Args:
        base_url: Its address up to ``/v1``; that of the ``openai`` package (``OPENAI_BASE_URL``, else
            OpenAI's) when None.
        api_key_env: Environment variable that holds the key. A server on this machine may need none.
        timeout: Seconds for a whole reply.
        max_retries: Tries after the first one.
        seed: Seed of the jitter.

    Raises:
        UserError: The package is missing, there is no key, or the address holds one.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        api_key_env: str = "OPENAI_API_KEY",
        timeout: float = 300.0,
        max_retries: int = 8,
        seed: int = 0,
    ) -> None:
        self._given_url = given_address(base_url)
        self._key_env = api_key_env
        self._key = server_key(base_url, api_key_env)
        self.timeout, self.max_retries, self.seed = timeout, max_retries, seed
        self.retries = 0
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._reached = False
        self._fatal: UserError | None = None
        # Newer models of OpenAI refuse the older name of this parameter.
        self._limit_name = "max_tokens"
        _ = self._client

    @property
    def base_url(self) -> str:
        """The address that requests go to."""
        return str(self._client.base_url).rstrip("/")

    def close(self) -> None:
        """Close its connections."""
        self._client.close()

    def stop(self) -> None:
        """Let requests that wait for their next try fail at once."""
        self._stopped.set()

    def ask(self, request: ChatRequest, key: str = "") -> ChatReply:
        """The reply to a request.

        Args:
            request: What to send.
            key: What the jitter is derived from, together with the seed.

        Raises:
            UserError: No request can succeed: a wrong key or address, an unknown model, an empty account.
            RequestFailed: This request cannot, or not within the tries.
        """
        if self._fatal is not None:
            raise self._fatal
        try:
            reply = self._ask(request, random.Random(row_seed(self.seed, key)))
        except UserError as error:
            # Other threads need not find out by themselves.
            self._fatal = error
            self.stop()
            raise
        except RequestFailed:
            if self._fatal is not None:
                raise self._fatal from None
            raise
        self._reached = True
        return reply

    def _ask(self, request: ChatRequest, jitter: random.Random) -> ChatReply:
        tries = 0
        while True:
            try:
                return self._try(request)
            except _Fault as fault:
                tries += 1
                self._give_up(fault, tries)
                pause = min(_FIRST_PAUSE * 2 ** (tries - 1), _LONGEST_PAUSE) * jitter.uniform(0.5, 1.0)
                with self._lock:
                    self.retries += 1
                if self._stopped.wait(pause if fault.wait is None else fault.wait):
                    raise RequestFailed(f"stopped; the last fault was: {fault}") from None

    def _give_up(self, fault: _Fault, tries: int) -> None:
        if self._stopped.is_set():
            raise RequestFailed(f"stopped; the last fault was: {fault}")
        patience = min(_TRIES_UNREACHED, self.max_retries + 1)
        if isinstance(fault, _NoConnection) and not self._reached and tries >= patience:
            raise UserError(f"no server answers: {fault}", self.base_url, "start it, or check --base_url")
        if tries > self.max_retries:
            raise RequestFailed(f"{tries} tries failed, the last with: {fault}")

    def _try(self, request: ChatRequest) -> ChatReply:
        import openai

        parameters = request.parameters()
        limit_name = self._limit_name
        if "max_tokens" in parameters:
            parameters[limit_name] = parameters.pop("max_tokens")
        try:
            body = self._receive(parameters, request.messages)
        except openai.APITimeoutError:
            raise _Fault(f"no reply within {self.timeout:g} s") from None
        except openai.APIConnectionError as error:
            raise _NoConnection(self._clean(error.__cause__ or error)) from None
        except openai.APIStatusError as error:
            if error.status_code == 400 and _wants_other_limit(error) and limit_name == "max_tokens":
                self._limit_name = "max_completion_tokens"
                return self._try(request)
            raise self._status_problem(error) from None
        return _reply(body)

    def _receive(self, parameters: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]) -> bytes:
        """The body of the reply, not larger than allowed and within the time."""
        deadline = time.monotonic() + self.timeout
        create: Any = self._client.chat.completions.with_streaming_response.create
        with create(messages=list(messages), **parameters) as response:
            body = bytearray()
            chunks = response.iter_bytes(1 << 16)
            while True:
                try:
                    chunk = next(chunks, None)
                except Exception as error:
                    # The HTTP library behind `openai` differs by version, and so do its errors.
                    raise _Fault(f"the connection broke: {self._clean(error)}") from None
                if chunk is None:
                    return bytes(body)
                body += chunk
                if len(body) > MAX_REPLY_BYTES:
                    raise _Fault(f"a reply of more than {MAX_REPLY_BYTES >> 20} MiB")
                if time.monotonic() > deadline:
                    raise _Fault(f"no whole reply within {self.timeout:g} s")

    def _status_problem(self, error: APIStatusError) -> Exception:
        status = error.status_code
        told = f"{status} {self._clean(error)}"
        if status == 429 and error.code == "insufficient_quota":
            return UserError(f"the account is empty: {told}", self.base_url, "top it up, or use another key")
        if status in _PASSING_STATUS or status >= 500:
            return _Fault(told, _retry_after(error.response.headers))
        if status in _FATAL_STATUS:
            fix = {
                401: f"check the key in {self._key_env}",
                403: f"the key in {self._key_env} may not do this; check the account's rights",
                404: "check the model's name and --base_url, which usually ends in /v1",
            }[status]
            return UserError(f"the server refuses: {told}", self.base_url, fix)
        return RequestFailed(f"the server refuses: {told}")

    def _clean(self, error: object) -> str:
        """An error's text on one line, short and without the key."""
        text = " ".join(str(error).split()) or type(error).__name__
        if self._key:
            text = text.replace(self._key, "***")
        return text[:300]

    @cached_property
    def _client(self) -> OpenAI:
        try:
            import openai
        except ImportError as error:
            raise UserError(
                f"the package `openai` cannot be imported: {error}", fix='pip install "mfpo[judge]"'
            ) from None
        # Repeating is up to this class, which counts and can be stopped.
        return openai.OpenAI(
            base_url=self._given_url, api_key=self._key or "none", timeout=self.timeout, max_retries=0
        )


class _NoConnection(_Fault):
    """Nothing came back at all."""


def given_address(base_url: str | None) -> str | None:
    """The server's address from the settings, else from ``OPENAI_BASE_URL``; None for OpenAI's own."""
    return base_url or os.environ.get("OPENAI_BASE_URL") or None


def server_key(base_url: str | None, variable: str) -> str:
    """The key for a server, from the environment; empty for a server on this machine that has none.

    Args:
        base_url: The address as given, see [`given_address`].
        variable: Environment variable that holds the key.

    Raises:
        UserError: There is no key, the address holds one, or it is no address.
    """
    base_url = given_address(base_url)
    parts = urlsplit(base_url or "https://api.openai.com")
    if parts.username or parts.password or parts.query:
        raise UserError(
            "the address holds a name, a key or a query, which would end up in files",
            where="--base_url",
            fix=f"give the plain address, and the key in the environment variable {variable}",
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UserError(
            "this is no address",
            where=f"--base_url {base_url}",
            fix="write it like http://localhost:8000/v1",
        )
    key = os.environ.get(variable, "").strip()
    if not key and parts.hostname not in _LOCAL_HOSTS:
        raise UserError(
            "no key for the server",
            where=f"the environment variable {variable}",
            fix=f"export {variable}=..., or name another variable with --api_key_env",
        )
    return key


def _reply(body: bytes) -> ChatReply:
    try:
        content = json.loads(body)
        choice = content["choices"][0]
        text = choice["message"].get("content")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        raise _Fault(f"the reply is no chat completion: {body[:100]!r}") from None
    if text is not None and not isinstance(text, str):
        raise _Fault(f"the reply's text is of the type {type(text).__name__}")
    usage = content.get("usage") or {}
    return ChatReply(
        # Half a surrogate pair is valid in JSON, but can be written to no file.
        text=(text or "").encode("utf-8", "replace").decode("utf-8"),
        model=str(content.get("model") or ""),
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
        finish_reason=str(choice.get("finish_reason") or ""),
    )


def _count(usage: Any, name: str) -> int:
    value = usage.get(name) if isinstance(usage, dict) else None
    return value if isinstance(value, int) and value >= 0 else 0


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait, by number or date; None if it asks for nothing sensible."""
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        value = headers.get(name, "")
        try:
            seconds = float(value) * unit
        except ValueError:
            try:
                seconds = parsedate_to_datetime(value).timestamp() - time.time()
            except (ValueError, TypeError):
                continue
        if math.isfinite(seconds):
            return min(max(seconds, 0.0), _LONGEST_RETRY_AFTER)
    return None


def _wants_other_limit(error: APIStatusError) -> bool:
    return error.param == "max_tokens" or "max_completion_tokens" in str(error)
