"""Downgrade one model, under its lock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from tokmigrate.apply.build_downgrade import build_downgrade
from tokmigrate.apply.known_files import find_known
from tokmigrate.apply.metadata_check import refuse_losses
from tokmigrate.apply.publish import RecoveryOutcome
from tokmigrate.audit.copies import describe_stale_copies
from tokmigrate.audit.run_status import is_in_progress
from tokmigrate.audit.training import list_trained_events, training_on_record
from tokmigrate.commands.library_check import (
    Accepted,
    Verifications,
    accept_outcome,
    outcome_of_records,
)
from tokmigrate.commands.models import (
    adapters_of,
    change_down,
    changes_down,
    check_copies_down,
    copies_down,
)
from tokmigrate.commands.records import build_reverted_events, find_undo_records, refuse_drift
from tokmigrate.commands.session import NewRun, model_session, publish_run, sync_with_stamp
from tokmigrate.commands.targets import find_edited, way_down
from tokmigrate.errors import UndoError
from tokmigrate.events import ActivityStarted, OnProgress, Warned, no_progress
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.rows import Direction, Outcome


@dataclass(frozen=True)
class Downgraded:
    """What a downgrade did.

    `reverted` are the migrations that were undone, the latest first; `semantic_undo` the files that were trained or
    rewritten since: without any, every byte is back.
    """

    model: str
    before: str | None
    after: str | None
    reverted: tuple[str, ...]
    semantic_undo: tuple[str, ...]
    recovered: RecoveryOutcome


def accept_downgrade(
    workspace: Workspace,
    entry: ModelEntry,
    to: str,
    on_progress: OnProgress = no_progress,
    *,
    verifications: Verifications,
    keep_owner: bool = True,
) -> Accepted | None:
    """Find the way of a downgrade and have the libraries load what it leaves, as `accept_upgrade` does for an upgrade.

    Raises:
        AlreadyThereError: There is nothing to downgrade.
        TokmigrateError: The model cannot go there.
    """
    if is_in_progress(entry):
        return None
    snapshot, records = _find_records(workspace, entry, to, keep_owner=keep_owner)
    outcome = outcome_of_records(workspace, entry, snapshot, records)
    accepted = accept_outcome(workspace, entry.name, outcome, (), on_progress, verifications)
    written = snapshot.stamp.shards if snapshot.stamp else ()
    size = sum(each.size for each in snapshot.weights.shards if each.file in written)
    beside = check_copies_down(entry, snapshot, records, ObjectStore(workspace.objects))
    return replace(accepted, bytes_to_write=size + beside)


def _find_records(workspace: Workspace, entry: ModelEntry, to: str, *, keep_owner: bool) -> tuple[Snapshot, list[str]]:
    """Return a model and the undo records that lead down to a revision; nothing is written."""
    snapshot = take_snapshot(entry)
    _, revisions = way_down(workspace, entry, snapshot, to)
    refuse_drift(workspace, snapshot)
    records = find_undo_records(workspace, entry, snapshot, revisions)
    if keep_owner and revisions:
        for each in (snapshot, *adapters_of(entry, snapshot)):
            refuse_losses(each.directory, {*each.stamp.files, *each.stamp.shards} if each.stamp else ())
    return snapshot, records


def downgrade(
    workspace: Workspace,
    entry: ModelEntry,
    to: str,
    lock_timeout_s: float = 0.0,
    on_progress: OnProgress = no_progress,
    *,
    keep_owner: bool = True,
    accepted: Accepted | None = None,
) -> Downgraded:
    """Undo migrations down to a revision: byte for byte, or semantically if the model was trained since.

    The arguments are those of `upgrade`.

    Raises:
        UndoError: The undo data is missing here.
        DriftError: The model was changed since it was migrated.
    """
    first = None if is_in_progress(entry) else _find_records(workspace, entry, to, keep_owner=keep_owner)[0]
    with model_session(workspace, entry, lock_timeout_s, on_progress) as (state, recovered):
        snapshot = take_snapshot(entry, first)
        target, revisions = way_down(workspace, entry, snapshot, to)
        refuse_drift(workspace, snapshot)
        stamp = snapshot.stamp
        if stamp is None:
            hint = "if it has migrations, `tokmigrate stamp` records which"
            raise UndoError("the model has no stamp", where=str(entry.path), hint=hint)
        edited = find_edited(workspace, snapshot)
        for revision in revisions:
            if revision in edited:
                message = f"{revision} was edited since it was applied; it is undone as it was applied"
                on_progress(Warned(entry.name, message))
        model = sync_with_stamp(state, entry, snapshot)
        objects = ObjectStore(workspace.objects)
        records = find_undo_records(workspace, entry, snapshot, revisions)
        for line in describe_stale_copies(entry.copies):
            on_progress(Warned(entry.name, line))
        on_progress(ActivityStarted(entry.name, "reading"))
        back = build_downgrade(snapshot, records, objects, find_known(snapshot, state.known_files(model)))
        beside = changes_down(entry.name, adapters_of(entry, snapshot), records, objects, on_progress)
        changes = (change_down(snapshot, back), *beside)
        trained = list_trained_events(training_on_record(state, snapshot, objects))
        events = (*trained, *build_reverted_events(state, model, revisions))
        outcome = partial(Outcome, reverted=revisions, tokens=events)
        run = NewRun(state, model, snapshot, Direction.DOWNGRADE, target, revisions, outcome)
        publish_run(
            workspace,
            entry,
            run,
            changes,
            on_progress,
            keep_owner=keep_owner,
            copies=copies_down(entry, snapshot, back, records, objects, on_progress),
            accepted=accepted,
        )
        return Downgraded(entry.name, stamp.revision, target, revisions, back.semantic_undo, recovered)
