"""Which migrations a command means for a model."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from tokmigrate.errors import (
    AlreadyThereError,
    DriftError,
    FileProblems,
    HistoryError,
    OperationError,
    UndoError,
    UnknownNameError,
    UsageError,
)
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.plan.upgrade import Plan, check_applied, plan_upgrade
from tokmigrate.revision.history import History
from tokmigrate.revision.migration import Migration
from tokmigrate.revision.naming import RecordedName, resolve
from tokmigrate.runner.adapters import adapters_of
from tokmigrate.runner.promises import kept_promises
from tokmigrate.runner.recorded_drift import refuse_drift
from tokmigrate.runner.seen_signs import hint_with_signs
from tokmigrate.runner.tags import known_tags
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present


def chain_for(history: History, entry: ModelEntry) -> tuple[Migration, ...]:
    """Return the migrations that are for a model, from the first to the head."""
    return tuple(migration for migration in history.chain() if migration.applies_to(entry))


def planned_upgrade(workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, to: str) -> Plan:
    """Return the plan that brings a model up to a revision.

    Raises:
        DriftError: Its history does not fit, it is not what its migrations left, or an id would come out otherwise than
            the lock promises.
        OperationError: A migration cannot be applied; the hint says where the model seems to be at it already.
    """
    history = History.read(workspace)
    applied, pending = pending_for(workspace, history, entry, snapshot, to)
    accepted = refuse_drift(workspace, snapshot) if pending else ()
    adapters = adapters_of(entry, snapshot) if pending else ()
    try:
        plan = plan_upgrade(entry, snapshot, pending, adapters)
    except OperationError as error:
        error.hint = hint_with_signs(workspace, entry, snapshot, applied, pending, error.hint)
        raise
    if not pending:
        return plan
    drift = (f"accepted drift: {line}" for line in accepted)
    return replace(plan, remarks=(*drift, *kept_promises(workspace, history, applied, plan)))


def pending_for(
    workspace: Workspace, history: History, entry: ModelEntry, snapshot: Snapshot, to: str
) -> tuple[tuple[Migration, ...], tuple[Migration, ...]]:
    """Return the migrations that a model has, and those that bring it up to a revision."""
    chain = chain_for(history, entry)
    applied = check_applied(snapshot, chain)
    revisions = [migration.revision for migration in chain]
    target = history.resolve(to, snapshot.revision, known_tags(workspace))
    done = len(applied)
    if applied != chain[:done]:
        late = next(migration for migration, found in zip(chain, applied, strict=False) if migration != found)
        raise DriftError(
            f"migration {late.revision} stands before ones that the model has",
            where=late.shown,
            hint="put it behind the head: change its down_revision",
        )
    if target is not None and target not in revisions:
        wanted = [migration.revision for migration in history.chain()]
        position = wanted.index(target)
        pending = [m for m in chain[done:] if wanted.index(m.revision) <= position]
    else:
        stop = revisions.index(target) + 1 if target is not None else 0
        pending = list(chain[done:stop])
    return applied, tuple(pending)


def way_down(
    workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, to: str
) -> tuple[str | None, tuple[str, ...]]:
    """Return the revision to go down to, and the revisions on the way, the latest first."""
    applied = [revision for revision, _ in snapshot.stamp.applied] if snapshot.stamp else []
    target = _resolved_down(workspace, snapshot, to)
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
        raise nothing_back(entry, to)
    return target, revisions


def _resolved_down(workspace: Workspace, snapshot: Snapshot, to: str) -> str | None:
    """Return the revision to go down to, by the record where the files do not hold together or are gone."""
    tags = known_tags(workspace)
    try:
        return History.read(workspace).resolve(to, snapshot.revision, tags)
    except (FileProblems, HistoryError, UnknownNameError):
        state = open_state_if_present(workspace.state, workspace.root)
        files = {text.revision: text.file for text in state.migration_texts()} if state else {}
        recorded = [
            RecordedName(revision, files.get(revision, revision))
            for revision, _ in (snapshot.stamp.applied if snapshot.stamp else ())
        ]
        with suppress(UsageError):
            return resolve(to, recorded, lambda: recorded, snapshot.revision, tags)
        raise


def edited_since_applied(workspace: Workspace, snapshot: Snapshot) -> tuple[str, ...]:
    """Return the revisions of a model whose files hold something else than was applied."""
    try:
        migrations = History.read(workspace).by_revision
    except (FileProblems, HistoryError):
        return ()
    return tuple(
        revision
        for revision, checksum in (snapshot.stamp.applied if snapshot.stamp else ())
        if revision in migrations and not migrations[revision].replaces and migrations[revision].checksum != checksum
    )


def nothing_back(entry: ModelEntry, to: str) -> AlreadyThereError:
    """Return the error for a downgrade that would do nothing."""
    return AlreadyThereError(
        f"nothing to take back: the model is at '{to}' already", where=entry.name, hint="`tokmigrate current`"
    )
