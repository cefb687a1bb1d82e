"""Carrying a change out: together or not at all.

The order of the steps is what makes a crash harmless; see docs/architecture.md, "How a change is published".
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from tokmigrate.change.candidate import Candidate
from tokmigrate.change.copying import seal_tree
from tokmigrate.change.durability import fsync_directory, fsync_tree_bottom_up
from tokmigrate.change.exchange import exchange, finish_two_step, two_step_exchange
from tokmigrate.change.room import check_room
from tokmigrate.change.stage import stage, write_file
from tokmigrate.change.storage import UnsupportedError, storage_errors
from tokmigrate.change.workarea import WorkArea
from tokmigrate.errors import RecoveryNeededError
from tokmigrate.events import BytesStreamed, Listener, Step, StepReached, StreamStarted
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.stamp import FILE as STAMP
from tokmigrate.model.stamp import read_stamp


class Books(Protocol):
    """The bookkeeping of one operation; every method may be called again after a crash."""

    def staging(self) -> str:
        """Write down the intent and return the operation's id."""
        ...

    def prepared(self) -> None:
        """Write down that the candidate is whole, with all that `applied` will need."""
        ...

    def applied(self) -> None:
        """Write down that the candidate is in place."""
        ...

    def failed(self, reason: str) -> None:
        """Write down that nothing was changed, and why."""
        ...


@dataclass(frozen=True)
class Intent:
    """What a change is about to do, as the journal beside the model holds it.

    Args:
        operation: The operation's id in the state.
        generation_before: The generation in place before, None at `base`.
        generation_after: The one afterwards.
    """

    operation: str
    generation_before: str | None
    generation_after: str | None

    def to_json(self) -> dict[str, Any]:
        """Return the journal's content."""
        return {
            "format": 1,
            "operation": self.operation,
            "generation_before": self.generation_before,
            "generation_after": self.generation_after,
        }

    @staticmethod
    def from_json(held: dict[str, Any]) -> Intent:
        """Return the intent that a journal holds."""
        return Intent(held["operation"], held["generation_before"], held["generation_after"])


class Found(StrEnum):
    """What a recovery found."""

    NOTHING = "nothing"
    BEFORE = "before"
    AFTER = "after"


def carry_out(
    model: str,
    area: WorkArea,
    snapshot: Snapshot,
    candidate: Candidate,
    generations: tuple[str | None, str | None],
    verify: Callable[[Path], None],
    books: Books,
    listener: Listener,
) -> None:
    """Make the model directory what `candidate` says, or leave it as it is.

    Args:
        model: The model's name, for events.
        area: The work area, whose lock the caller holds.
        snapshot: The model as it is.
        candidate: What it shall be.
        generations: The one in place before and the one afterwards; None is `base`.
        verify: Raises where the directory that it is given is not what was planned.
        books: The bookkeeping.
        listener: Told every step.

    Raises:
        RecoveryNeededError: The change was made, and what comes after it failed.
        TokmigrateError: Nothing was changed.
    """

    def reached(step: Step) -> None:
        listener(StepReached(model, step))

    check_room(area.root, candidate.bytes + (64 << 20 if candidate.shards else 1 << 20))
    intent = Intent(books.staging(), *generations)
    try:
        area.write_journal(intent.to_json())
        reached(Step.RECORDED)
        listener(StreamStarted(model, candidate.bytes))
        area.remove_stage()
        stage(snapshot, area.stage, candidate, lambda count: listener(BytesStreamed(model, count)))
        reached(Step.STAGED)
        verify(area.stage)
        reached(Step.VERIFIED)
        with storage_errors("writing the stamp", area.stage):
            stamp = candidate.files.get(STAMP)
            if stamp is not None:
                write_file(snapshot.directory, area.stage, STAMP, stamp, candidate)
        seal_tree(snapshot.directory, area.stage)
        fsync_tree_bottom_up(area.stage)
        reached(Step.STAMPED)
        books.prepared()
        reached(Step.PREPARED)
        _commit(area)
    except BaseException as error:
        if _is_untouched(area, intent):
            _undo_preparation(area, books, str(error) or type(error).__name__)
            raise
        raise _unfinished(area, error) from error
    try:
        reached(Step.EXCHANGED)
        books.applied()
        reached(Step.APPLIED)
        _clean(area)
        reached(Step.CLEANED)
    except BaseException as error:
        raise _unfinished(area, error) from error


def recover(area: WorkArea, books_for: Callable[[str], Books]) -> Found:
    """Finish what an interrupted change left: the generation in place decides, the bookkeeping follows.

    Args:
        area: The work area, whose lock the caller holds.
        books_for: The bookkeeping of an operation by its id.

    Raises:
        RecoveryNeededError: What is in place is neither the model before nor the one after.
    """
    held = area.read_journal()
    if held is None:
        _clean(area)
        return Found.NOTHING
    intent = Intent.from_json(held)
    if area.aside.exists() or not area.model.exists():
        finish_two_step(area.model, area.stage, area.aside)
    books = books_for(intent.operation)
    generation = _in_place(area.model)
    if generation == intent.generation_after:
        fsync_directory(area.model.parent)
        books.applied()
        _clean(area)
        return Found.AFTER
    if generation == intent.generation_before:
        _undo_preparation(area, books, "interrupted")
        return Found.BEFORE
    raise RecoveryNeededError(
        f"the model in place is of generation {generation}, neither the one before nor the one after",
        where=str(area.model),
        hint=f"someone changed it meanwhile; both versions are kept: compare it with {area.stage}",
    )


def needs_recovery(area: WorkArea) -> bool:
    """Return whether an interrupted change has left something."""
    return area.read_journal() is not None


def _commit(area: WorkArea) -> None:
    try:
        exchange(area.model, area.stage)
    except UnsupportedError:
        two_step_exchange(area.model, area.stage, area.aside)
    fsync_directory(area.model.parent)
    fsync_directory(area.root)


def _in_place(model: Path) -> str | None:
    stamp = read_stamp(model)
    return stamp.generation if stamp else None


def _is_untouched(area: WorkArea, intent: Intent) -> bool:
    # In the middle of a two-step exchange there is no model in place, and so no stamp, as at base.
    return area.model.exists() and not area.aside.exists() and _in_place(area.model) == intent.generation_before


def _unfinished(area: WorkArea, error: BaseException) -> RecoveryNeededError:
    return RecoveryNeededError(
        f"the change was made, but could not be finished: {str(error) or 'it was stopped'}",
        where=str(area.model),
        hint="run `tokmigrate recover`, which finishes it",
    )


def _undo_preparation(area: WorkArea, books: Books, reason: str) -> None:
    area.remove_stage()
    books.failed(reason)
    area.remove_journal()


def _clean(area: WorkArea) -> None:
    area.remove_stage()
    area.remove_journal()
