"""Answers by an OpenAI-compatible server, a commercial one or your own."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import TYPE_CHECKING, Any

from mfpo.errors import RowError, Skip, UserError
from mfpo.evaluation.engines.base import REQUEST_FAILED, Outcome, Question, Sampling
from mfpo.evaluation.servers.chat import FAILURES_IN_VAIN, ChatRequest, ChatServer, RequestFailed
from mfpo.records import row_seed

if TYPE_CHECKING:
    from PIL.Image import Image

    from mfpo.evaluation.config import AnswerSettings

_LARGEST_PNG = 10 << 20


class ServerEngine:
    """A model behind a server.

    Args:
        server: The server.
        model: The model's name there.
        sampling: How answers are drawn.
        concurrency: Requests under way at once.
    """

    def __init__(self, server: ChatServer, model: str, sampling: Sampling, concurrency: int = 8) -> None:
        self.server, self.model, self.sampling, self.concurrency = server, model, sampling, concurrency
        self._answered_by: set[str] = set()

    @classmethod
    def open(cls, config: AnswerSettings, sampling: Sampling) -> ServerEngine:
        """Nothing is sent yet."""
        server = ChatServer(config.base_url, api_key_env=config.api_key_env)
        return cls(server, config.model_name_or_path, sampling, config.concurrency)

    @property
    def answered_by(self) -> set[str]:
        """Names of the models that the server says have answered."""
        return self._answered_by

    def answer(self, questions: Sequence[Question]) -> Iterator[list[Outcome]]:
        """Outcomes one by one, as they come; the connections are closed at the end.

        Raises:
            UserError: No request can succeed, or the first ten have all failed.
        """
        pool = ThreadPoolExecutor(self.concurrency, thread_name_prefix="server")
        done, failures = 0, 0
        try:
            # Some at a time, so that pictures and answers don't pile up.
            for start in range(0, len(questions), 64 * self.concurrency):
                part = questions[start : start + 64 * self.concurrency]
                for future in as_completed([pool.submit(self._ask, question) for question in part]):
                    outcome = future.result()
                    failed = outcome.skip is not None and outcome.skip.reason == REQUEST_FAILED
                    done, failures = done + (not failed), failures + failed
                    yield [outcome]
                    if outcome.skip is not None and not done and failures >= FAILURES_IN_VAIN:
                        raise UserError(
                            f"{failures} requests failed one after the other, the last with: "
                            f"{outcome.skip.detail}",
                            where=self.server.base_url,
                        )
        except BaseException:
            self.server.stop()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            self.server.close()

    def _ask(self, question: Question) -> Outcome:
        sampled = self.sampling.temperature > 0
        try:
            content = [
                {"type": "image_url", "image_url": {"url": data_uri(question.open_image())}},
                {"type": "text", "text": question.text},
            ]
            request = ChatRequest(
                self.model,
                [{"role": "user", "content": content}],
                max_tokens=self.sampling.max_new_tokens,
                temperature=self.sampling.temperature,
                top_p=self.sampling.top_p if sampled else None,
                # 31 bits: some servers take no larger seed.
                seed=row_seed(self.sampling.seed, question.id) >> 32 if sampled else None,
            )
            reply = self.server.ask(request, question.id)
        except RowError as error:
            return Outcome(question.id, skip=Skip(question.id, error.reason, error.detail))
        except RequestFailed as error:
            return Outcome(question.id, skip=Skip(question.id, REQUEST_FAILED, str(error)))
        self._answered_by.add(reply.model)
        return Outcome(question.id, reply.text.strip())


def data_uri(image: Image) -> str:
    """The picture in a data URI: as PNG, without loss, or as JPEG (quality 95) if that takes over 10 MiB."""
    kind, data = "png", _encoded(image, "PNG")
    if len(data) > _LARGEST_PNG:
        kind, data = "jpeg", _encoded(image, "JPEG", quality=95)
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _encoded(image: Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()
