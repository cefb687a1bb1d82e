"""Which migrations a command means for a model."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace

from tokmigrate.commands.adapters import adapters_of
from tokmigrate.commands.records import refuse_drift
from tokmigrate.commands.stamp_hint import add_stamp_hint
from tokmigrate.commands.tag import list_tags
from tokmigrate.errors import (
    AlreadyThereError,
    FileProblems,
    HistoryError,
    OperationError,
    UndoError,
    UnknownNameError,
    UsageError,
)
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.plan.plan import Plan, plan_upgrade
from tokmigrate.plan.progress import Progress, check_progress, edited_revisions
from tokmigrate.plan.steps import check_pins, track_before
from tokmigrate.revision.history import History
from tokmigrate.revision.lock_file import read_lock
from tokmigrate.revision.migration import Migration
from tokmigrate.revision.names import RecordedName, resolve
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present


def plan_or_reuse(
    workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, to: str, earlier: Plan | None = None
) -> Plan:
    """Return the plan that brings a model up to a revision.

    Args:
        workspace: The workspace.
        entry: The model.
        snapshot: The model as it is.
        to: A revision by any of its names.
        earlier: A plan made before, whose steps are taken over where model and migrations are the same.

    Raises:
        DriftError: Its history does not fit, it is not what its migrations left, or an id would come out otherwise than
            the lock pins.
        OperationError: A migration cannot be applied; the hint says where the model seems to be at it already.
    """
    history = History.read(workspace)
    progress = progress_to(workspace, history, entry, snapshot, to)
    applied, pending = progress.applied, progress.pending
    accepted = refuse_drift(workspace, snapshot) if pending else ()
    adapters = adapters_of(entry, snapshot) if pending else ()
    try:
        plan = _reuse(earlier, snapshot, pending, adapters) or plan_upgrade(entry, snapshot, pending, adapters)
    except OperationError as error:
        error.hint = add_stamp_hint(workspace, entry, snapshot, progress, error.hint)
        raise
    if not pending:
        return plan
    drift = (f"accepted drift: {line}" for line in accepted)
    return replace(plan, remarks=(*drift, *_check_lock(workspace, history, applied, plan)))


def _check_lock(workspace: Workspace, history: History, applied: Sequence[Migration], plan: Plan) -> tuple[str, ...]:
    """Check the ids of a plan against the lock, and return what a user should know of it.

    A workspace without a lock has pinned nothing. A migration that is another one than the lock knows binds
    nothing either, but is reported: `validate` refuses it.

    Raises:
        DriftError: An id would not be the one that the lock pins.
        FileProblems: The lock is damaged, or has conflict markers.
    """
    lock = read_lock(workspace)
    if lock is None:
        return ()
    held = lock.holding(history.chain())
    known = {locked.revision for locked in held.revisions}
    strange = [step.migration.revision for step in plan.steps if step.migration.revision not in known]
    before = track_before(plan.snapshot, applied, held)
    unpinned = check_pins(held, before, plan.steps) if before else [s.migration.revision for s in plan.steps]
    if strange:
        return (f"the lock does not know {', '.join(strange)} as it is now: `tokmigrate lock` writes it",)
    if unpinned:
        return (f"the lock pins no ids for this tokenizer in {', '.join(unpinned)}: `tokmigrate lock` writes it",)
    return ()


def _reuse(
    earlier: Plan | None, snapshot: Snapshot, pending: Sequence[Migration], adapters: Sequence[Snapshot]
) -> Plan | None:
    """Return an earlier plan if it is of the same model and migrations: steps of a large vocabulary take seconds."""
    if earlier is None or adapters or earlier.adapters or earlier.snapshot is not snapshot:
        return None
    return replace(earlier, remarks=()) if [step.migration for step in earlier.steps] == list(pending) else None


def progress_to(workspace: Workspace, history: History, entry: ModelEntry, snapshot: Snapshot, to: str) -> Progress:
    """Return which migrations a model has, and which it lacks up to a revision.

    Raises:
        DriftError: One was edited since it was applied, or one that the model lacks stands before one that it has.
    """
    progress = check_progress(snapshot, history.chain_for(entry))
    target = history.resolve(to, snapshot.revision, list_tags(workspace))
    progress.check_order()
    wanted = {migration.revision for migration in history.lineage(target)}
    return replace(progress, chain=tuple(each for each in progress.chain if each.revision in wanted))


def way_down(
    workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, to: str
) -> tuple[str | None, tuple[str, ...]]:
    """Return the revision to go down to, and the revisions on the way, the latest first."""
    applied = snapshot.revisions
    target = _resolve_down(workspace, snapshot, to)
    if target is not None and target not in applied:
        raise UndoError(
            f"the model does not have revision {target}",
            where=entry.name,
            hint="`tokmigrate current` shows where it is",
        )
    kept = applied.index(target) + 1 if target is not None else 0
    revisions = tuple(reversed(applied[kept:]))
    if not revisions:
        # Without its stamp a model seems to be at base.
        refuse_drift(workspace, snapshot)
        raise nothing_to_downgrade(entry, to)
    return target, revisions


def _resolve_down(workspace: Workspace, snapshot: Snapshot, to: str) -> str | None:
    """Return the revision to go down to, by the record where the files do not hold together or are gone."""
    tags = list_tags(workspace)
    try:
        return History.read(workspace).resolve(to, snapshot.revision, tags)
    except (FileProblems, HistoryError, UnknownNameError):
        state = open_state_if_present(workspace.state, workspace.root)
        files = {text.revision: text.file for text in state.migration_texts()} if state else {}
        recorded = [RecordedName(revision, files.get(revision, revision)) for revision in snapshot.revisions]
        with suppress(UsageError):
            return resolve(to, recorded, lambda: recorded, snapshot.revision, tags)
        raise


def find_edited(workspace: Workspace, snapshot: Snapshot) -> frozenset[str]:
    """Return the revisions of a model whose files hold something else than was applied, as far as files tell."""
    with suppress(FileProblems):
        return edited_revisions(snapshot, History.read_files(workspace))
    return frozenset()


def nothing_to_downgrade(entry: ModelEntry, to: str) -> AlreadyThereError:
    """Return the error for a downgrade that would do nothing."""
    return AlreadyThereError(
        f"nothing to downgrade: the model is already at '{to}'", where=entry.name, hint="`tokmigrate current`"
    )
