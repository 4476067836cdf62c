"""A headless Chromium over its debugging pipe: no driver, no port, no further package.

Messages are JSON objects that end with a zero byte; Chromium reads them from file descriptor 3 and answers
on 4 (``--remote-debugging-pipe``). Tests and ``benchmarks/browse.py`` use it.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--remote-debugging-pipe",
)


def find_chromium() -> str | None:
    """Path of an installed Chromium or Chrome."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass
class Browser:
    """One tab of a running browser.

    Attributes:
        console: What pages wrote to the console, exceptions, and what their policies refused.
        dialogs: Messages of the dialogs that pages opened; they are dismissed.
        requests: Addresses that pages asked for, other than ``data:`` and ``about:`` ones.
    """

    _write: int
    _read: int
    console: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    _next: int = 0
    _buffer: bytes = b""
    _session: str | None = None
    _profile: str = ""
    _loaded: bool = False

    def call(self, method: str, timeout: float = 60.0, **parameters: Any) -> dict[str, Any]:
        """Call a method of the DevTools protocol and wait for its result."""
        self._next += 1
        message: dict[str, Any] = {"id": self._next, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        end = time.monotonic() + timeout
        while True:
            answer = self._receive(end)
            if answer.get("id") == message["id"]:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def renew(self) -> None:
        """Take hold of a new tab in a profile of its own, and forget what was noticed."""
        if self._session:
            self._session = None
            self.call("Target.disposeBrowserContext", browserContextId=self._profile)
        self._profile = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=self._profile)
        attached = self.call("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.console, self.dialogs, self.requests = [], [], []

    def open(self, path: Path, fragment: str = "", timeout: float = 120.0) -> None:
        """Open a file and wait until it is loaded."""
        self._loaded = False
        # A new fragment alone loads nothing.
        self.call("Page.navigate", url="about:blank")
        self._wait_for_load(timeout)
        self._loaded = False
        self.call("Page.navigate", url=path.resolve().as_uri() + (f"#{fragment}" if fragment else ""))
        self._wait_for_load(timeout)

    def run(self, script: str, timeout: float = 60.0) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        result = self.call(
            "Runtime.evaluate", timeout, expression=script, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def wait(self, condition: str, timeout: float = 20.0) -> None:
        """Wait until an expression is true in the page."""
        end = time.monotonic() + timeout
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < end, f"never true: {condition}\n{self.console}"
            time.sleep(0.02)

    def press(self, key: str) -> None:
        """Press a key."""
        text = key if len(key) == 1 else ""
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, text=text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key)

    def size(self, width: int, height: int, *, dark: bool = False, media: str = "screen") -> None:
        """Size of the window, colour scheme, and medium."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def screenshot(self, path: Path, *, whole: bool = False) -> None:
        """Write what is seen, or the whole page, as PNG."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(shot["data"]))

    def _wait_for_load(self, timeout: float) -> None:
        end = time.monotonic() + timeout
        while not self._loaded:
            self._receive(end)

    def _receive(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"the browser does not answer\n{self.console}"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser has ended"
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        self._notice(message.get("method", ""), message.get("params", {}))
        return message

    def _notice(self, event: str, detail: dict[str, Any]) -> None:
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Page.javascriptDialogOpening":
            self.dialogs.append(detail["message"])
            self._next += 1
            message = {
                "id": self._next,
                "sessionId": self._session,
                "method": "Page.handleJavaScriptDialog",
                "params": {"accept": False},
            }
            os.write(self._write, json.dumps(message).encode() + b"\0")
        elif event == "Runtime.consoleAPICalled":
            self.console.append(" ".join(str(part.get("value", part)) for part in detail["args"]))
        elif event == "Runtime.exceptionThrown":
            thrown = detail["exceptionDetails"]
            self.console.append(thrown.get("exception", {}).get("description", thrown["text"]))
        elif event == "Log.entryAdded":
            self.console.append(detail["entry"]["text"])
        elif event == "Network.requestWillBeSent" and not detail["request"]["url"].startswith(
            ("data:", "about:")
        ):
            self.requests.append(detail["request"]["url"])


@contextmanager
def browser(executable: str | None = None) -> Iterator[Browser]:
    """Start Chromium with a fresh profile.

    Raises:
        FileNotFoundError: There is none.
    """
    executable = executable or find_chromium()
    if executable is None:
        raise FileNotFoundError("no Chromium is installed")
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # The shell puts the pipes where Chromium looks for them.
        command = f'exec "$0" "$@" 3<&{to_read} 4>&{from_write}'
        process = subprocess.Popen(
            ["bash", "-c", command, executable, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(to_read, from_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        tab = Browser(to_write, from_read)
        try:
            tab.renew()
            yield tab
        finally:
            os.close(to_write)
            os.close(from_read)
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
