"""What the processor prepares while an accelerator computes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")


def prefetch(
    make: Callable[[Item], Made], items: Iterable[Item], *, ahead: int
) -> Generator[Made, None, None]:
    """What ``map(make, items)`` gives, made in a thread while the caller is at an earlier one.

    What ``make`` raises is raised where its result would have come. Close the generator if it may not come to
    its end: the thread ends with it, once it is done with what it is at.

    Args:
        make: Makes one; all of them in the same thread, one after the other.
        items: What they are made of.
        ahead: How many are made before they are asked for; 0 makes each when it is, in the caller's thread.
    """
    if not ahead:
        for item in items:
            yield make(item)
        return
    waiting: deque[Future[Made]] = deque()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        for item in items:
            waiting.append(thread.submit(make, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
