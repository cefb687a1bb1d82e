"""Is a model where its migrations say? For CI, with training and saving anew told from drift."""

from __future__ import annotations

from dataclasses import dataclass

from tokmigrate.audit.drift import Drift, drift_of, stamp_trouble
from tokmigrate.audit.under_way import refuse_under_way
from tokmigrate.change.undo_record import undo_of
from tokmigrate.errors import ModelError, OutOfStepError, TokenizerError
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import decoded, read_stamp
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.plan.upgrade import check_applied
from tokmigrate.revision.history import History
from tokmigrate.revision.migration import Migration
from tokmigrate.runner.seen_signs import looks_like
from tokmigrate.runner.targets import chain_for
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.objects import ObjectStore

UP_TO_DATE, PENDING, DRIFTED = 0, 3, 4


@dataclass(frozen=True)
class Checked:
    """What `check` found of a model.

    Args:
        name: The model.
        revision: Its revision, None at `base`.
        pending: The migrations that it lacks.
        drift: What became of it since it was migrated.
        broken: Why it cannot be worked on any more, None where it can.
        looks_like: Which revision it looks like, by what and what to do, where that is a later one; else None.
    """

    name: str
    revision: str | None
    pending: tuple[Migration, ...]
    drift: Drift
    broken: str | None = None
    looks_like: str | None = None

    @property
    def exit_code(self) -> int:
        """What CI is told: 0 up to date, 3 pending, 4 drift."""
        if self.broken or self.drift.breaks:
            return DRIFTED
        return PENDING if self.pending else UP_TO_DATE


def check(workspace: Workspace, entry: ModelEntry) -> Checked:
    """Return whether a model is at the head, and what became of it since it was migrated; nothing is written.

    Args:
        workspace: The workspace.
        entry: The model.

    Raises:
        DriftError: The stamp is damaged, or a migration that was applied was edited or is gone.
        BusyError: A process is changing it.
        RecoveryNeededError: A change of it was interrupted.
    """
    refuse_under_way(entry)
    chain = chain_for(History.read(workspace), entry)
    stamp = read_stamp(entry.path)
    try:
        snapshot = take_snapshot(entry)
    except (OutOfStepError, TokenizerError, ModelError) as error:
        if stamp is None:
            raise
        # It was whole when it was migrated.
        return Checked(entry.name, stamp.revision, (), Drift(), str(error))
    applied = check_applied(snapshot, chain)
    pending = tuple(migration for migration in chain if migration not in applied)
    drift = drift_on_record(workspace, snapshot)
    # What the ledger knows need not be read off the tokens.
    likely = None if drift.stamp else looks_like(workspace, entry, snapshot, applied, pending)
    return Checked(entry.name, snapshot.revision, pending, drift, looks_like=likely)


def drift_on_record(workspace: Workspace, snapshot: Snapshot) -> Drift:
    """Return what became of a model since it was migrated, by its stamp and by what this workspace has on record."""
    state = open_state_if_present(workspace.state, workspace.root)
    model = state.model_at(snapshot.directory, snapshot.generation) if state else None
    rows = state.applied_now(model) if state and model else ()
    objects = ObjectStore(workspace.objects)
    undone = {
        row.record.revision: undo_of(row.record.undo, objects)
        for row in rows
        if row.record.undo is not None and objects.has(row.record.undo)
    }
    left = [undo.left[STAMP] for undo in undone.values() if undo.left.get(STAMP) is not None]
    lineage = decoded((left[-1] or b"").decode("utf-8"), STAMP).lineage if left else ""
    trouble = stamp_trouble(snapshot, lineage, [row.record.revision for row in rows])
    if trouble or snapshot.stamp is None:
        return Drift(stamp=trouble)
    return drift_of(snapshot, [undone[revision] for revision, _ in snapshot.stamp.applied if revision in undone])
