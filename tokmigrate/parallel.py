"""Calls on all cores, for work that releases Python's lock: reading, digests, and arithmetic of numpy."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def count_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_in_order(
    work: Callable[[Item], Result],
    items: Sequence[Item],
    done: Callable[[Item, Result], None],
    *,
    alone: bool,
    stopped: Event | None = None,
) -> None:
    """Call `work` for each item on all cores, and `done` with each result in this thread, in the order of the items.

    The first error ends it: what was not started is not, and what runs has ended when it is raised.

    Args:
        work: Called by several threads at once.
        items: What it is called with.
        done: Called when an item and all before it are done; few results wait for it.
        alone: Whether this thread calls `work` itself, for too little work for several.
        stopped: Set at the first error, for calls that take long.
    """
    cores = count_cores()
    if alone or len(items) < 2 or cores < 2:
        for item in items:
            done(item, work(item))
        return
    with ThreadPoolExecutor(cores) as pool:
        started: deque[tuple[Item, Future[Result]]] = deque()
        try:
            for item in items:
                started.append((item, pool.submit(work, item)))
                if len(started) > 2 * cores:
                    first, result = started.popleft()
                    done(first, result.result())
            for item, result in started:
                done(item, result.result())
        except BaseException:
            if stopped is not None:
                stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
