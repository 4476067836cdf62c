"""A judge on a bad day: every item gets one reply, nothing is paid for twice, no key gets out."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from chat_server import FAULTS, ChatBackend, chat_server
from mfpo.errors import UserError
from mfpo.evaluation.benchmarks.base import JudgeRequest
from mfpo.evaluation.servers import chat
from mfpo.evaluation.servers.cache import CachedServer, ReplyCache
from mfpo.evaluation.servers.chat import ChatRequest, ChatServer, RequestFailed
from mfpo.evaluation.servers.judge import Judge, Price

SECRET = "sk-very-secret-0123456789"


@pytest.fixture
def backend() -> Iterator[ChatBackend]:
    with chat_server() as backend:
        yield backend
        while _opened:
            _opened.pop().close()


@pytest.fixture(autouse=True)
def _fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    monkeypatch.setattr(chat, "_FIRST_PAUSE", 0.002)
    monkeypatch.setattr(chat, "MAX_REPLY_BYTES", 1 << 19)


_opened: list[ChatServer | ReplyCache] = []


def open_server(url: str, **settings) -> ChatServer:
    server = ChatServer(url, **settings)
    _opened.append(server)
    return server


def make_judge(backend: ChatBackend, cache: Path, **settings) -> Judge:
    kept = ReplyCache(cache)
    _opened.append(kept)
    server = open_server(backend.url, timeout=1.5, **settings)
    return Judge(CachedServer(server, kept), "judge", concurrency=8)


def make_requests(count: int) -> list[JudgeRequest]:
    return [
        JudgeRequest(f"item-{n}", (("system", "Judge."), ("user", f"Rate answer {n}."))) for n in range(count)
    ]


def one_in_five(text: str, attempt: int) -> str | None:
    """A fault for a fifth of all tries, which kind depends on the text; spread by a hash, so repeatable."""
    draw = int.from_bytes(hashlib.sha256(f"{text}:{attempt}".encode()).digest()[:4], "big")
    # Slow replies are as many as the others, but too many of them make a slow test.
    return FAULTS[draw // 5 % len(FAULTS)] if draw % 5 == 0 else None


@pytest.mark.slow
def test_a_thousand_requests_through_a_fifth_of_faults(backend: ChatBackend, tmp_path: Path) -> None:
    backend.fault = one_in_five
    requests = make_requests(1000)
    judge = make_judge(backend, tmp_path / "replies.sqlite")
    replies = judge.ask(requests)
    assert replies == {f"item-{n}": f"reply to Rate answer {n}." for n in range(1000)}
    # Each got exactly one good reply, and faults of every kind stood in between.
    assert set(backend.served.values()) == {1} and len(backend.served) == 1000
    met = {one_in_five(text, n) for text, tries in backend.tries.items() for n in range(tries)}
    assert met == {None, *FAULTS}
    faults = len(backend.requests) - 1000
    assert 200 < faults < 300
    assert judge.server.server.retries == faults
    assert judge.spent == judge.used
    assert (judge.spent.replies, judge.spent.prompt_tokens, judge.spent.completion_tokens) == (
        1000,
        backend.prompt_tokens,
        backend.completion_tokens,
    )
    # The scores can be made again without a single request.
    before = len(backend.requests)
    again = make_judge(backend, tmp_path / "replies.sqlite")
    assert again.ask(requests) == replies
    assert len(backend.requests) == before
    assert again.spent.replies == 0
    assert again.used == judge.used


@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_passes(backend: ChatBackend, tmp_path: Path, fault: str) -> None:
    backend.fault = lambda text, attempt: fault if attempt == 0 else None
    judge = make_judge(backend, tmp_path / "replies.sqlite")
    assert judge.ask(make_requests(3)) == {f"item-{n}": f"reply to Rate answer {n}." for n in range(3)}
    assert len(backend.requests) == 6


def test_what_is_sent_is_what_the_benchmark_asks(backend: ChatBackend, tmp_path: Path) -> None:
    judge = make_judge(backend, tmp_path / "replies.sqlite")
    judge.ask([JudgeRequest("a", (("user", "Rate."),), max_tokens=7, temperature=0.2)])
    (request,) = backend.requests
    assert request["path"] == "/v1/chat/completions"
    assert {k.lower(): v for k, v in request["headers"].items()}["authorization"] == f"Bearer {SECRET}"
    del request["path"], request["headers"]
    assert request == {
        "model": "judge",
        "messages": [{"role": "user", "content": "Rate."}],
        "max_tokens": 7,
        "temperature": 0.2,
    }
    assert judge.returned_models == {"judge-2024"}


def test_repeats_other_models_and_other_parameters_are_asked_anew(
    backend: ChatBackend, tmp_path: Path
) -> None:
    judge = make_judge(backend, tmp_path / "replies.sqlite")
    request = JudgeRequest("a", (("user", "Rate."),), temperature=0.0)
    judge.ask([request])
    judge.ask([request], repeat=1)
    judge.model = "other"
    judge.ask([request])
    judge.temperature = 0.7
    judge.ask([request])
    judge.ask([request])
    assert len(backend.requests) == 4


def test_equal_requests_at_the_same_time_are_sent_once(backend: ChatBackend, tmp_path: Path) -> None:
    backend.delay = 0.05
    judge = make_judge(backend, tmp_path / "replies.sqlite")
    requests = [JudgeRequest(f"item-{n}", (("user", f"Rate {n % 3}."),)) for n in range(30)]
    replies = judge.ask(requests)
    assert len(replies) == 30
    assert sorted(backend.texts()) == ["Rate 0.", "Rate 1.", "Rate 2."]
    assert (judge.spent.replies, judge.used.replies) == (3, 30)


def test_replies_of_no_use_are_asked_for_again_and_kept_too(backend: ChatBackend, tmp_path: Path) -> None:
    backend.reply = lambda text: f"try {backend.tries[text]}"
    judge = make_judge(backend, tmp_path / "replies.sqlite")
    wanted = {"item-0": "try 3", "item-1": "try 5"}

    def accepts(reply: str) -> bool:
        return reply == "try 3" and "0" in backend.texts()[-1]

    judge.concurrency = 1
    assert judge.ask(make_requests(2), accepts=accepts) == wanted
    assert (len(backend.requests), judge.spent.replies) == (8, 8)
    again = make_judge(backend, tmp_path / "replies.sqlite")
    assert again.ask(make_requests(2), accepts=lambda reply: reply in wanted.values())["item-1"] == "try 3"
    assert len(backend.requests) == 8


def test_no_more_requests_at_once_than_allowed(backend: ChatBackend, tmp_path: Path) -> None:
    backend.delay = 0.02
    judge = make_judge(backend, tmp_path / "replies.sqlite")
    judge.concurrency = 3
    judge.ask(make_requests(20))
    assert backend.most_at_once == 3


def test_retry_after_is_honoured(backend: ChatBackend, tmp_path: Path, monkeypatch) -> None:
    waits: list[float] = []
    server = open_server(backend.url)
    monkeypatch.setattr(server._stopped, "wait", lambda seconds: waits.append(seconds) or False)
    backend.fault = lambda text, attempt: ("429", "500", "500", "500", None)[attempt]
    server.ask(ChatRequest("judge", [{"role": "user", "content": "Rate."}]))
    assert waits[0] == 0.05
    # Then pauses that double, each by up to half shorter.
    assert all(0.001 * 2**n <= wait <= 0.002 * 2**n for n, wait in zip((1, 2, 3), waits[1:], strict=True))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("3", 3.0),
        ("-1", 0.0),
        ("1e9", 600.0),
        ("Wed, 01 Jan 2020 00:00:00 GMT", 0.0),
        ("soon", None),
        ("nan", None),
    ],
)
def test_retry_after_in_all_its_forms(value: str, seconds: float | None) -> None:
    assert chat._retry_after({"retry-after": value}) == seconds


def test_some_failures_keep_the_rest_and_say_what_to_do(backend: ChatBackend, tmp_path: Path) -> None:
    bad = {"Rate answer 3.", "Rate answer 5."}
    backend.fault = lambda text, attempt: "500" if text in bad else None
    judge = make_judge(backend, tmp_path / "replies.sqlite", max_retries=2)
    with pytest.raises(
        UserError, match=r"2 of 8 requests to the judge failed, the first, 'item-[35]'.*3 tries"
    ):
        judge.ask(make_requests(8))
    backend.fault = lambda text, attempt: None
    backend.requests.clear()
    assert len(make_judge(backend, tmp_path / "replies.sqlite").ask(make_requests(8))) == 8
    assert set(backend.texts()) == bad


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (f"401 Incorrect API key provided: {SECRET}", "check the key in OPENAI_API_KEY"),
        ("403 no", "may not do this"),
        ("404 The model `judge` does not exist", "check the model's name"),
        ("429 You exceeded your current quota", "the account is empty"),
    ],
)
def test_what_cannot_succeed_stops_at_once(
    backend: ChatBackend, tmp_path: Path, fault: str, told: str
) -> None:
    backend.fault = lambda text, attempt: fault
    judge = make_judge(backend, tmp_path / "replies.sqlite")
    with pytest.raises(UserError, match=told) as error:
        judge.ask(make_requests(200))
    assert len(backend.requests) <= 8
    assert SECRET not in str(error.value)


def test_requests_that_are_refused_one_after_the_other_stop_the_run(
    backend: ChatBackend, tmp_path: Path
) -> None:
    backend.fault = lambda text, attempt: "400 no such parameter"
    judge = make_judge(backend, tmp_path / "replies.sqlite")
    with pytest.raises(UserError, match="no such parameter"):
        judge.ask(make_requests(200))
    assert len(backend.requests) < 40


def test_newer_models_get_the_newer_name_of_the_limit(backend: ChatBackend, tmp_path: Path) -> None:
    backend.fault = lambda text, attempt: (
        "400 Unsupported parameter: 'max_tokens'; use 'max_completion_tokens'"
        if "max_tokens" in backend.requests[-1]
        else None
    )
    judge = make_judge(backend, tmp_path / "replies.sqlite")
    judge.concurrency = 1
    judge.ask([JudgeRequest(str(n), (("user", str(n)),), max_tokens=5) for n in range(3)])
    assert ["max_tokens" in request for request in backend.requests] == [True, False, False, False]
    assert all(request["max_completion_tokens"] == 5 for request in backend.requests[1:])


def test_nobody_at_the_address(tmp_path: Path, backend: ChatBackend) -> None:
    server = open_server("http://127.0.0.1:9/v1", timeout=1)
    with pytest.raises(UserError, match="no server answers"):
        server.ask(ChatRequest("judge", [{"role": "user", "content": "Rate."}]))


def test_stopping_ends_requests_that_wait(backend: ChatBackend, monkeypatch) -> None:
    monkeypatch.setattr(chat, "_FIRST_PAUSE", 60.0)
    backend.fault = lambda text, attempt: "500"
    server = open_server(backend.url)
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(server.ask, ChatRequest("judge", [{"role": "user", "content": "Rate."}]))
        while not server.retries:
            pass
        server.stop()
        with pytest.raises(RequestFailed, match="stopped"):
            future.result(timeout=5)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://user:pass@host/v1", "would end up in files"),
        ("https://host/v1?key=abc", "would end up in files"),
        ("host:8000", "no address"),
        ("https://host/v1", "no key for the server"),
        (None, "no key for the server"),
    ],
)
def test_addresses_and_keys_that_are_refused(monkeypatch, url: str | None, told: str) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(UserError, match=told):
        ChatServer(url)


def test_a_server_on_this_machine_needs_no_key(backend: ChatBackend, monkeypatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    open_server(backend.url).ask(ChatRequest("judge", [{"role": "user", "content": "Rate."}]))
    assert len(backend.requests) == 1


def test_the_key_is_in_no_file_no_log_and_no_error(backend: ChatBackend, tmp_path: Path, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    backend.fault = lambda text, attempt: f"500 {SECRET}" if "answer 1" in text else None
    judge = make_judge(backend, tmp_path / "replies.sqlite", max_retries=1)
    with pytest.raises(UserError) as error:
        judge.ask(make_requests(3))
    told = str(error.value) + repr(error.value.__cause__) + repr(error.value.__context__) + caplog.text
    assert "***" in told and SECRET not in told
    assert SECRET not in json.dumps(judge.describe())
    assert all(SECRET.encode() not in file.read_bytes() for file in tmp_path.iterdir())


def test_replies_of_odd_text_come_back_the_same(backend: ChatBackend, tmp_path: Path) -> None:
    backend.reply = lambda text: "\ud83d half, ‮ and \0 and 日本"
    first = make_judge(backend, tmp_path / "replies.sqlite").ask(make_requests(1))
    assert make_judge(backend, tmp_path / "replies.sqlite").ask(make_requests(1)) == first
    assert first["item-0"].endswith("日本")


def test_a_damaged_cache_is_told(tmp_path: Path) -> None:
    path = tmp_path / "replies.sqlite"
    path.write_bytes(b"no database at all, but longer than a header of one would be" * 50)
    with pytest.raises(UserError, match=r"replies\.sqlite"):
        ReplyCache(path)


def test_prices() -> None:
    price = Price.parse("input=2.5, output=10")
    assert price == Price(2.5, 10.0)
    for wrong in ("2.5", "input=1", "input=a,output=1", "input=-1,output=1", "input=nan,output=1", ""):
        with pytest.raises(UserError, match="--judge_price"):
            Price.parse(wrong)


def test_cost_is_tokens_times_price(backend: ChatBackend, tmp_path: Path) -> None:
    judge = make_judge(backend, tmp_path / "replies.sqlite")
    judge.ask(make_requests(2))
    # "Rate answer 0." is 3 + 3 tokens by the server's count, "reply to Rate answer 0." is 5.
    described = judge.describe(Price(2.0, 10.0))
    assert described["this_run"] == {
        "replies": 2, "prompt_tokens": 12, "completion_tokens": 10, "cost": 124e-6, "retries": 0,
    }  # fmt: skip
    assert described["all_replies"]["cost"] == described["this_run"]["cost"]
