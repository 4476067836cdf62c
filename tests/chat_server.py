"""A local server that speaks the chat protocol of OpenAI, and misbehaves when told to."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("429", "500", "503", "slow", "cut", "broken", "huge", "reset", "not a completion")


def no_fault(text: str, attempt: int) -> str | None:
    return None


class ChatBackend:
    """What the server does and has seen.

    Attributes:
        reply: The answer to the text of the last message.
        fault: Which fault the n-th try (from 0) of a text meets; None for none.
        requests: Every request as JSON, with its headers under "headers".
        served: How often each text got a whole, good reply.
        prompt_tokens, completion_tokens: What the good replies have cost.
    """

    def __init__(self) -> None:
        self.reply: Callable[[str], str] = lambda text: f"reply to {text}"
        self.fault: Callable[[str, int], str | None] = no_fault
        self.delay = 0.0
        self.requests: list[dict[str, Any]] = []
        self.tries: Counter[str] = Counter()
        self.served: Counter[str] = Counter()
        self.prompt_tokens = self.completion_tokens = 0
        self.most_at_once = self.at_once = 0
        self.lock = threading.Lock()
        self.url = ""

    def texts(self) -> list[str]:
        return [text_of(request) for request in self.requests]


def text_of(request: dict[str, Any]) -> str:
    content = request["messages"][-1]["content"]
    return content if isinstance(content, str) else next(p["text"] for p in content if p["type"] == "text")


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        backend: ChatBackend = self.server.backend  # type: ignore[attr-defined]
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = text_of(request)
        with backend.lock:
            backend.requests.append({**request, "headers": dict(self.headers), "path": self.path})
            attempt = backend.tries[text]
            backend.tries[text] += 1
            backend.at_once += 1
            backend.most_at_once = max(backend.most_at_once, backend.at_once)
        try:
            if backend.delay:
                time.sleep(backend.delay)
            self._answer(backend, request, text, backend.fault(text, attempt))
        finally:
            with backend.lock:
                backend.at_once -= 1

    def _answer(self, backend: ChatBackend, request: dict[str, Any], text: str, fault: str | None) -> None:
        reply = backend.reply(text)
        usage = {"prompt_tokens": len(text.split()) + 3, "completion_tokens": len(reply.split())}
        body = json.dumps(
            {
                "id": "x",
                "object": "chat.completion",
                "created": 0,
                "model": f"{request['model']}-2024",
                "choices": [
                    {
                        "index": 0,
                        "finish_reason": "stop",
                        "message": {"role": "assistant", "content": reply},
                    }
                ],
                "usage": usage,
            }
        ).encode()
        match fault:
            case None:
                with backend.lock:
                    backend.served[text] += 1
                    backend.prompt_tokens += usage["prompt_tokens"]
                    backend.completion_tokens += usage["completion_tokens"]
                self._send(200, body)
            case "slow":
                # Within the client's patience between two bytes, but not in all.
                self._start(200, 10_000)
                for _ in range(20):
                    time.sleep(0.15)
                    self.wfile.write(b" ")
                self.close_connection = True
            case "cut":
                self._start(200, len(body))
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            case "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                self.close_connection = True
                self.connection.close()
            case "broken":
                self._send(200, body[:-20])
            case "not a completion":
                self._send(200, b'{"choices": []}')
            case "huge":
                self._send(200, b'"' + b"x" * (1 << 20) + b'"')
            case "429":
                self._error(429, "slow down", {"Retry-After": "0.05"})
            case _:
                status, _, message = fault.partition(" ")
                self._error(int(status), message or "sorry", {})

    def _error(self, status: int, message: str, headers: dict[str, str]) -> None:
        code = "insufficient_quota" if "quota" in message else None
        param = "max_tokens" if "max_tokens" in message else None
        error = {"error": {"message": message, "type": "x", "code": code, "param": param}}
        self._send(status, json.dumps(error).encode(), headers)

    def _start(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self._start(status, len(body), headers)
        self.wfile.write(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients may go away


@contextmanager
def chat_server() -> Iterator[ChatBackend]:
    """A running server on this machine; its address is ``backend.url``."""
    backend = ChatBackend()
    server = _Server(("127.0.0.1", 0), _Handler)
    server.backend = backend  # type: ignore[attr-defined]
    backend.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield backend
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
