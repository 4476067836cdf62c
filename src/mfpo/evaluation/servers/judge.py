"""Judges: the questions of a benchmark put to a language model, all of them, each once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from typing import Any

from tqdm import tqdm

from mfpo.errors import UserError
from mfpo.evaluation.benchmarks.base import JudgeRequest
from mfpo.evaluation.servers.cache import CachedServer
from mfpo.evaluation.servers.chat import FAILURES_IN_VAIN, ChatReply, ChatRequest, RequestFailed

ATTEMPTS = 5
"""How often a request is sent until the benchmark can use the reply; the last one counts as it is."""


@dataclass(frozen=True, slots=True)
class Price:
    """What a model costs, in a currency per million tokens."""

    input: float
    output: float

    @classmethod
    def parse(cls, text: str) -> Price:
        """Read ``input=2.5,output=10``.

        Raises:
            UserError: It is written otherwise.
        """
        try:
            values = {name.strip(): float(value) for name, value in (p.split("=") for p in text.split(","))}
            price = cls(**values)
        except (TypeError, ValueError):
            price = cls(-1, -1)
        if not (0 <= price.input < float("inf") and 0 <= price.output < float("inf")):
            raise UserError(
                "no price",
                where=f"--judge_price {text}",
                fix="write input=2.5,output=10, per million tokens",
            )
        return price


@dataclass(frozen=True, slots=True)
class Spend:
    """What replies have taken, by the server's own count.

    Attributes:
        replies: Number of replies.
        prompt_tokens: Tokens of their requests.
        completion_tokens: Tokens of the replies.
    """

    replies: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, reply: ChatReply) -> Spend:
        """With one more reply."""
        return Spend(
            self.replies + 1,
            self.prompt_tokens + reply.prompt_tokens,
            self.completion_tokens + reply.completion_tokens,
        )

    def cost(self, price: Price) -> float:
        """What it comes to, in the currency of the price."""
        return (self.prompt_tokens * price.input + self.completion_tokens * price.output) / 1e6

    def describe(self, price: Price | None) -> dict[str, Any]:
        """As it stands with the scores."""
        return asdict(self) | ({} if price is None else {"cost": self.cost(price)})


class Judge:
    """A language model that judges answers.

    Args:
        server: Where it is asked.
        model: Its name there.
        concurrency: Requests under way at once.
        temperature: In place of the temperature of the benchmark's official script.

    Attributes:
        spent: What this run has asked for.
        used: All replies, those included that earlier runs have asked for.
    """

    def __init__(
        self, server: CachedServer, model: str, *, concurrency: int = 8, temperature: float | None = None
    ) -> None:
        self.server, self.model = server, model
        self.concurrency, self.temperature = concurrency, temperature
        self.spent = self.used = Spend()
        self.returned_models: set[str] = set()
        self._lock = threading.Lock()

    def ask(
        self,
        requests: Sequence[JudgeRequest],
        repeat: int = 0,
        accepts: Callable[[str], bool] = lambda reply: True,
    ) -> dict[str, str]:
        """The replies by the keys of the requests.

        Replies are on the disk as soon as they come. So after a run that was cut off, those that came are not
        asked for again.

        Args:
            requests: What is asked.
            repeat: Which of several independent replies to the same requests.
            accepts: Whether a reply is of use; if not, the request is sent again, [`ATTEMPTS`] times in all.

        Raises:
            UserError: The server refuses all requests, or some have no reply after all tries.
        """
        replies: dict[str, str] = {}
        failures: dict[str, str] = {}
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="judge")
        try:
            futures = {pool.submit(self._ask, request, repeat, accepts): request.key for request in requests}
            with tqdm(total=len(requests), desc=f"asking {self.model}", unit="reply") as progress:
                for future in as_completed(futures):
                    self._collect(future, futures[future], replies, failures)
                    progress.update()
        except BaseException:
            self.server.server.stop()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
        if failures:
            raise _failed(failures, len(requests))
        return {request.key: replies[request.key] for request in requests}

    def _ask(self, request: JudgeRequest, repeat: int, accepts: Callable[[str], bool]) -> str:
        temperature = request.temperature if self.temperature is None else self.temperature
        sent = ChatRequest(self.model, request.payload(), request.max_tokens, temperature)
        for attempt in range(ATTEMPTS):
            kept = self.server.ask(sent, repeat, attempt)
            with self._lock:
                self.used = self.used.add(kept.reply)
                if kept.fresh:
                    self.spent = self.spent.add(kept.reply)
                self.returned_models.add(kept.reply.model)
            if accepts(kept.reply.text):
                break
        return kept.reply.text

    def _collect(
        self, future: Future[str], key: str, replies: dict[str, str], failures: dict[str, str]
    ) -> None:
        try:
            replies[key] = future.result()
        except RequestFailed as failure:
            failures[key] = str(failure)
            if not replies and len(failures) >= FAILURES_IN_VAIN:
                raise _failed(failures, len(failures)) from None

    def describe(self, price: Price | None = None) -> dict[str, Any]:
        """What stands with the scores: who has judged, and what it took.

        Args:
            price: To count the cost as well.
        """
        return {
            "model": self.model,
            "returned_models": sorted(self.returned_models),
            "base_url": self.server.server.base_url,
            "temperature": self.temperature,
            "price": None if price is None else asdict(price),
            "all_replies": self.used.describe(price),
            "this_run": self.spent.describe(price) | {"retries": self.server.server.retries},
        }


def _failed(failures: dict[str, str], asked: int) -> UserError:
    key, why = next(iter(failures.items()))
    return UserError(
        f"{len(failures)} of {asked} requests to the judge failed, the first, {key!r}, because: {why}",
        fix="run the same command again: what came is kept, only the rest is asked for",
    )
