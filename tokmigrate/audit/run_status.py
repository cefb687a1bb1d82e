"""Is a change of a model in progress, or was one interrupted? Asked without waiting for its lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tokmigrate.apply.lock import is_held, read_holder
from tokmigrate.apply.workarea import WorkArea
from tokmigrate.errors import BusyError, RecoveryNeededError, TokmigrateError
from tokmigrate.files import exists
from tokmigrate.settings import ModelEntry

if TYPE_CHECKING:
    from tokmigrate.model.snapshot import Snapshot


def is_in_progress(entry: ModelEntry) -> bool:
    """Return whether a change of a model has started and not ended, running or interrupted."""
    return _has_journal(WorkArea(entry.path))


def find_lock_holder(entry: ModelEntry) -> str | None:
    """Return the process that is changing a model now, None where none is."""
    area = WorkArea(entry.path)
    # Check the journal first: probing the lock would briefly block another process from taking it.
    if not _has_journal(area) or not is_held(area.lock):
        return None
    return read_holder(area.lock)


def refuse_in_progress(entry: ModelEntry) -> None:
    """Raise BusyError where a process is changing a model, RecoveryNeededError where that was interrupted."""
    holder = find_lock_holder(entry)
    if holder is not None:
        raise BusyError(f"locked by {holder}", where=entry.name, hint="retry when it has finished")
    refuse_interrupted(entry)


def refuse_interrupted(entry: ModelEntry) -> None:
    """Raise RecoveryNeededError where a change of a model was interrupted."""
    area = WorkArea(entry.path)
    # The process may end between the two questions, and then nothing is left.
    if _has_journal(area) and not is_held(area.lock) and _has_journal(area):
        raise RecoveryNeededError(
            "recovery needed: a change of the model was interrupted", where=entry.name, hint="run `tokmigrate recover`"
        )


@contextmanager
def guard_reading(entry: ModelEntry) -> Iterator[None]:
    """Let a model be read inside, which another process may be changing meanwhile.

    What is found wrong then is a BusyError: model and adapters may be out of step. An interrupted change is refused.
    """
    refuse_interrupted(entry)
    try:
        yield
    except TokmigrateError:
        refuse_in_progress(entry)
        raise


def read_snapshot(entry: ModelEntry) -> Snapshot:
    """Return a model, which another process may be changing meanwhile, as `guard_reading` lets it be read."""
    # `tokmigrate current` asks the rest of this module, and loads nothing that reads weights.
    from tokmigrate.model.snapshot import take_snapshot  # noqa: PLC0415

    with guard_reading(entry):
        return take_snapshot(entry)


def _has_journal(area: WorkArea) -> bool:
    return exists(area.root) and area.read_journal() is not None
