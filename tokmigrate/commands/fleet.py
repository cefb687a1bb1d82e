"""Several models at a time: each in a thread, their results in the order of the models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from threading import Event as Flag
from threading import RLock
from typing import TypeVar

from tokmigrate.commands.resources import Admission
from tokmigrate.events import ActivityEnded, Event, OnProgress, Step, StepReached, Warned
from tokmigrate.settings import ModelEntry

T = TypeVar("T")
Work = Callable[[ModelEntry, OnProgress], T]

_COMMITTED = (Step.SWAPPED, Step.FOLLOWED, Step.APPLIED, Step.CLEANED)


def each_model(
    entries: Sequence[ModelEntry],
    work: Work[T],
    jobs: int,
    on_progress: OnProgress,
    *,
    keep_going: bool = True,
    bytes_to_write: Callable[[ModelEntry], int] = lambda _: 0,
) -> Iterator[tuple[ModelEntry, Callable[[], T]]]:
    """Yield the models in order, each with a function that returns the result of the work on it or raises its error.

    What is not yielded was not tried. An interrupt undoes the changes that are not committed, and waits for the others.

    Args:
        entries: The models.
        work: What is done for each; it reports to the function that it is given.
        jobs: How many models are worked on at a time; fewer, where memory or disk space do not suffice for them.
        on_progress: Called from one thread at a time; the warnings of a model come before its result.
        keep_going: Whether more models are started after one failed.
        bytes_to_write: About how much the work on a model writes beside it.
    """
    fleet = _Fleet(on_progress, keep_going)
    if jobs == 1 or len(entries) == 1:
        # Without a thread of its own: signals reach the main thread alone.
        for entry in entries:
            if fleet.stops:
                return
            yield entry, partial(fleet.run, entry, work, on_progress)
        return
    with ThreadPoolExecutor(min(jobs, len(entries))) as pool:
        reports = [_Report(fleet) for _ in entries]
        admission = Admission(lambda: fleet.stops)

        def run(entry: ModelEntry, report: _Report) -> T:
            with admission.admit(entry, bytes_to_write(entry)):
                return fleet.run(entry, work, report)

        started = [pool.submit(run, entry, report) for entry, report in zip(entries, reports, strict=True)]
        try:
            for entry, report, future in zip(entries, reports, started, strict=True):
                # The system may give a signal to another thread, and Python handles it when the main one wakes up.
                while not wait([future], timeout=0.2).done:
                    pass
                if isinstance(future.exception(), CancelledError):
                    return
                with fleet.lock:
                    on_progress(ActivityEnded(entry.name))
                    for warning in report.warnings:
                        on_progress(warning)
                    yield entry, future.result
        finally:
            fleet.interrupted.set()


@dataclass(frozen=True)
class _Fleet:
    """What threads that work on models share."""

    on_progress: OnProgress
    keep_going: bool
    lock: RLock = field(default_factory=RLock)
    failed: Flag = field(default_factory=Flag)
    interrupted: Flag = field(default_factory=Flag)

    @property
    def stops(self) -> bool:
        return self.interrupted.is_set() or (self.failed.is_set() and not self.keep_going)

    def run(self, entry: ModelEntry, work: Work[T], on_progress: OnProgress) -> T:
        if self.stops:
            raise CancelledError
        try:
            return work(entry, on_progress)
        except BaseException:
            self.failed.set()
            raise


@dataclass(frozen=True)
class _Report:
    """What a thread reports of its model; the place where an interrupt reaches it."""

    fleet: _Fleet
    warnings: list[Warned] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        is_committed = isinstance(event, StepReached) and event.step in _COMMITTED
        if self.fleet.interrupted.is_set() and not is_committed:
            raise KeyboardInterrupt
        if isinstance(event, Warned):
            self.warnings.append(event)
        else:
            with self.fleet.lock:
                self.fleet.on_progress(event)
