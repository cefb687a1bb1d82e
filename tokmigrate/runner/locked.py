"""Holding a model: its lock taken, what was interrupted recovered, the state following the stamp."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tokmigrate.change.journal import Journal
from tokmigrate.change.lock import ModelLock
from tokmigrate.change.publish import Found, recover
from tokmigrate.change.workarea import WorkArea
from tokmigrate.errors import BusyError, RecoveryNeededError, TokmigrateError
from tokmigrate.events import Listener, Step, StepReached, Warned
from tokmigrate.files import exists
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.runner.run_recorder import RecoveredRun
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state
from tokmigrate.state.ledger import State
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.rows import AppliedRecord, ModelRow, RunRow, Status


@contextmanager
def locked(
    workspace: Workspace, entry: ModelEntry, timeout_s: float, listener: Listener
) -> Iterator[tuple[WorkArea, State, Found]]:
    """Hold the locks of a model and its adapters, with whatever was interrupted recovered."""
    area = WorkArea(entry.path)
    area.create()
    with ModelLock(area.lock, timeout_s), ExitStack() as stack:
        journal = area.read_journal()
        interrupted = Journal.from_json(journal, area, workspace.root) if journal else None
        for adapter in _adapter_areas(entry, interrupted):
            adapter.create()
            stack.enter_context(ModelLock(adapter.lock, timeout_s))
        for other in interrupted.others if interrupted else ():
            message = f"it was copied while a change of it was interrupted: {other} belongs to the original"
            listener(Warned(entry.name, f"{message}, and stays as it is"))
        with _unfinished_recovery(area, interrupted):
            state = open_state(workspace.state, workspace.root)
            listener(StepReached(entry.name, Step.LOCKED))
            found = recover(area, lambda operation: _recovered_run(state, operation), workspace.root)
            stamp = read_stamp(area.model)
            lineage, generation = (stamp.lineage, stamp.generation) if stamp else ("", None)
            model = state.model_for(entry.name, area.model, lineage, generation)
            orphan = state.active(model)
            if orphan is not None:
                _close(state, orphan, generation)
            ObjectStore(workspace.objects).remove_unfinished()
        yield area, state, found


@contextmanager
def _unfinished_recovery(area: WorkArea, interrupted: Journal | None) -> Iterator[None]:
    """Say that recovery is needed where what is inside fails: the directories or the state may have changed by then."""
    try:
        yield
    except (RecoveryNeededError, BusyError):
        raise
    except TokmigrateError as error:
        if interrupted is None:
            raise
        raise RecoveryNeededError(
            f"an interrupted change could not be finished: {error}",
            where=str(area.model),
            hint=f"{f'{error.hint}; then ' if error.hint else ''}run `tokmigrate recover`, which goes on with it",
        ) from error


def _adapter_areas(entry: ModelEntry, interrupted: Journal | None) -> list[WorkArea]:
    """Return the work areas of the adapters that are listed, and of those that an interrupted change was about."""
    under_way = interrupted.areas[1:] if interrupted else ()
    areas = {each.model: each for each in (*map(WorkArea, entry.adapters), *under_way)}
    # One order for all, so that two processes never wait for each other.
    return [areas[path] for path in sorted(areas) if exists(path) or exists(areas[path].root)]


def _close(state: State, orphan: RunRow, generation: str | None) -> None:
    """Close an operation of which there is no journal, by the generation in place."""
    if orphan.status is Status.PREPARED and generation == orphan.generation_after:
        # It was recovered by another workspace that lists the model, or by a copy of this one.
        state.finish(orphan.id)
    else:
        state.fail(orphan.id, "interrupted before anything was changed")


def _recovered_run(state: State, operation: str) -> RecoveredRun:
    return RecoveredRun(state, state.run(operation) is not None, operation)


def follow_stamp(state: State, entry: ModelEntry, snapshot: Snapshot) -> ModelRow:
    """Return the model's row, with the state's revisions those of the stamp."""
    stamp = snapshot.stamp
    model = state.model_for(entry.name, snapshot.directory, stamp.lineage if stamp else "", snapshot.generation)
    applied = stamp.applied if stamp else ()
    records = [AppliedRecord(revision, place, checksum) for place, (revision, checksum) in enumerate(applied)]
    known = {row.record.revision for row in state.applied_now(model)}
    state.adopt(model, records, gone=known - {revision for revision, _ in applied})
    return model
