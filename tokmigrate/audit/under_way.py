"""Is a change of a model under way, or was one interrupted? Asked without waiting for its lock."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tokmigrate.change.lock import SOMEBODY, is_held, read_holder
from tokmigrate.change.workarea import WorkArea
from tokmigrate.errors import BusyError, RecoveryNeededError, TokmigrateError
from tokmigrate.files import exists
from tokmigrate.settings import ModelEntry


def under_way(entry: ModelEntry) -> bool:
    """Return whether a change of a model has begun and not ended, at work or interrupted."""
    return _has_journal(WorkArea(entry.path))


def worked_on_by(entry: ModelEntry) -> str | None:
    """Return the process that is changing a model now, None where none is."""
    area = WorkArea(entry.path)
    # Before there is a journal nothing is changed, and only where there is one the lock is looked at: whoever wants to
    # take it in that instant would be refused.
    if not _has_journal(area) or not is_held(area.lock):
        return None
    return str(read_holder(area.lock) or SOMEBODY)


def interrupted(entry: ModelEntry) -> bool:
    """Return whether a change of a model was interrupted: it is to be finished, and no process is at it."""
    area = WorkArea(entry.path)
    # The process may end between the two questions, and then nothing is left.
    return _has_journal(area) and not is_held(area.lock) and _has_journal(area)


def refuse_under_way(entry: ModelEntry) -> None:
    """Raise BusyError where a process is changing a model, RecoveryNeededError where that was interrupted."""
    holder = worked_on_by(entry)
    if holder is not None:
        raise BusyError(f"{holder} works on this model", where=entry.name, hint="ask again when it is done")
    refuse_interrupted(entry)


def refuse_interrupted(entry: ModelEntry) -> None:
    """Raise RecoveryNeededError where a change of a model was interrupted."""
    if interrupted(entry):
        raise RecoveryNeededError(
            "recovery needed: a change of the model was interrupted", where=entry.name, hint="run `tokmigrate recover`"
        )


@contextmanager
def reading(entry: ModelEntry) -> Iterator[None]:
    """Let a model be read inside, which another process may be changing meanwhile.

    Raises:
        RecoveryNeededError: A change of it was interrupted.
        BusyError: What was found is wrong, and a process is changing the model: model and adapters may be out of step.
    """
    refuse_interrupted(entry)
    try:
        yield
    except TokmigrateError:
        refuse_under_way(entry)
        raise


def _has_journal(area: WorkArea) -> bool:
    return exists(area.root) and area.read_journal() is not None
