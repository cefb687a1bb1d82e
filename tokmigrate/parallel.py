"""Calls on all cores, for work that releases Python's lock: reading, digests, and arithmetic of numpy.

And one call beside other work: the first of the two that fails stops the other.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, Future, ThreadPoolExecutor, wait
from contextvars import ContextVar
from threading import Event
from typing import Generic, Self, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

_SIGNAL_S = 0.2
"""How often a waiting thread wakes up: the system may give a signal to another one, and Python handles it in the main
one."""
_stopped: ContextVar[Event | None] = ContextVar("stopped", default=None)


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
        stopped: Set at the first error, for calls that take long; where another thread sets it, nothing more is done.

    Raises:
        CancelledError: Another thread set `stopped`.
    """

    def finish(item: Item, result: Result) -> None:
        if stopped is not None and stopped.is_set():
            raise CancelledError
        done(item, result)

    cores = count_cores()
    if alone or len(items) < 2 or cores < 2:
        for item in items:
            finish(item, work(item))
        return
    with ThreadPoolExecutor(cores) as pool:
        started: deque[tuple[Item, Future[Result]]] = deque()
        try:
            for item in items:
                started.append((item, pool.submit(work, item)))
                if len(started) > 2 * cores:
                    first, result = started.popleft()
                    finish(first, result.result())
            for item, result in started:
                finish(item, result.result())
        except BaseException:
            if stopped is not None:
                stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


class BackgroundCall(Generic[Result]):
    """A call in a thread of its own, beside work that is stopped if it fails, and that stops it."""

    def __init__(self, work: Callable[[], Result]) -> None:
        self.stopped = Event()
        """Set when the call failed, or is to end: for the work beside it, and for `is_stopped` in the call."""
        self._pool = ThreadPoolExecutor(1)
        self._future = self._pool.submit(self._run, work)

    def _run(self, work: Callable[[], Result]) -> Result:
        _stopped.set(self.stopped)
        try:
            return work()
        except BaseException:
            self.stopped.set()
            raise

    def is_done(self) -> bool:
        """Return whether it has ended."""
        return self._future.done()

    def result(self) -> Result:
        """Wait for the result, or raise the error of the call, or CancelledError where the waiting call is stopped."""
        while not wait([self._future], timeout=_SIGNAL_S).done:
            if is_stopped():
                raise CancelledError
        return self._future.result()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Let it end, and wait until it has."""
        self.stopped.set()
        self._pool.shutdown()

    def raise_error(self) -> None:
        """Raise the error of a call that has ended by itself, if there is one."""
        error = self._future.exception() if self._future.done() else None
        if error is not None and not isinstance(error, CancelledError):
            raise error


def run_together(works: Sequence[Callable[[], Result]]) -> list[Result]:
    """Call all at once, each in a thread of its own, and return their results in order.

    The first error stops the others: `is_stopped` is true in them, and it is raised when all have ended.
    """
    if len(works) < 2:
        return [work() for work in works]
    stopped = Event()

    def run(work: Callable[[], Result]) -> Result:
        _stopped.set(stopped)
        return work()

    with ThreadPoolExecutor(len(works)) as pool:
        futures = [pool.submit(run, work) for work in works]
        try:
            while (found := wait(futures, timeout=_SIGNAL_S, return_when=FIRST_EXCEPTION)).not_done:
                for future in found.done:
                    future.result()
                if is_stopped():
                    raise CancelledError
        finally:
            stopped.set()
        return [future.result() for future in futures]


def is_stopped() -> bool:
    """Return whether nobody waits any more for the call in the background that this thread is."""
    stopped = _stopped.get()
    return stopped is not None and stopped.is_set()
