"""Work that is done ahead of time: how far, in what order, and what becomes of errors and of the thread."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from mfpo.difficulty.prefetch import prefetch

TIMEOUT = 20


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) == before


@pytest.mark.parametrize("ahead", [0, 1, 2, 9])
def test_it_is_map(ahead: int) -> None:
    assert list(prefetch(str, range(5), ahead=ahead)) == ["0", "1", "2", "3", "4"]
    assert list(prefetch(str, [], ahead=ahead)) == []


def test_the_next_is_made_while_one_is_used() -> None:
    """Neither side can go on without the other: this ends only if both run at once."""
    begun = [threading.Event() for _ in range(4)]
    used = [threading.Event() for _ in range(4)]

    def make(number: int) -> int:
        begun[number].set()
        assert number == 0 or used[number - 1].wait(TIMEOUT)
        return number

    for number in prefetch(make, range(4), ahead=1):
        assert number == 3 or begun[number + 1].wait(TIMEOUT)
        used[number].set()
    assert all(event.is_set() for event in used)


@pytest.mark.parametrize("ahead", [0, 1, 2])
def test_no_more_are_made_than_asked_for(ahead: int) -> None:
    made: list[int] = []
    with closing(prefetch(made.append, range(9), ahead=ahead)) as numbers:
        next(numbers)
    # The thread has come to its end.
    assert made == [*range(1 + ahead)]


def test_nothing_is_made_in_another_thread_unless_ahead() -> None:
    idents = set(prefetch(lambda _: threading.get_ident(), range(3), ahead=0))
    assert idents == {threading.get_ident()}
    (ident,) = set(prefetch(lambda _: threading.get_ident(), range(3), ahead=1))
    assert ident != threading.get_ident()


@pytest.mark.parametrize("ahead", [0, 1, 2])
@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, StopIteration])
def test_an_error_comes_where_its_result_would(ahead: int, error: type[BaseException]) -> None:
    def make(number: int) -> int:
        if number == 2:
            raise error("here")
        return number

    numbers = prefetch(make, range(9), ahead=ahead)
    assert [next(numbers), next(numbers)] == [0, 1]
    with pytest.raises((error, RuntimeError)) as raised:
        next(numbers)
    # A generator may not let a StopIteration out.
    assert raised.type is error or isinstance(raised.value.__cause__, error)


def test_an_error_of_the_caller_ends_the_thread() -> None:
    with pytest.raises(KeyError), closing(prefetch(str, range(9), ahead=1)) as numbers:
        raise KeyError(next(numbers))
