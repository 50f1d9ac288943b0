"""Run work in threads, with results that do not depend on their number."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0))


def map_ahead(function: Callable[[Item], Result], items: Iterable[Item], threads: int) -> Iterator[Result]:
    """Yield `function` of each item, in order, while the next ones are computed in threads.

    A caller that takes no more results ends the work: what has not begun is dropped, and what has begun is
    waited for.

    Parameters
    ----------
    function
        Spends its time where the interpreter lock is released, as in compiled loops.
    items
        Taken one by one, up to `threads` ahead.
    threads
        Largest number of items that are computed at a time. With 1, the thread of the caller computes them.

    Yields
    ------
    Result
        What `function` returns; what it raises is raised in its place.
    """
    if threads == 1:
        yield from map(function, items)
        return
    executor, ahead = ThreadPoolExecutor(threads), deque[Future[Result]]()
    try:
        for item in items:
            ahead.append(executor.submit(function, item))
            if len(ahead) == threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    finally:
        executor.shutdown(cancel_futures=True)
