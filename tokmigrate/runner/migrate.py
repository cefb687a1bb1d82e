"""Upgrade, downgrade and recover one model, under its lock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tokmigrate.audit.run_status import is_in_progress, refuse_in_progress
from tokmigrate.audit.training import trained_events, training_on_record
from tokmigrate.change.build_downgrade import build_downgrade
from tokmigrate.change.build_upgrade import build_upgrade
from tokmigrate.change.metadata import refuse_losses
from tokmigrate.change.publish import Change, Found
from tokmigrate.change.workarea import WorkArea
from tokmigrate.errors import UndoError
from tokmigrate.events import ComputationStarted, Listener, Warned, ignore
from tokmigrate.files import exists
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.plan.upgrade import Plan
from tokmigrate.revision.conditions import Check
from tokmigrate.runner.adapters import adapters_of, changes_down, changes_up
from tokmigrate.runner.bound_plan import BoundPlan
from tokmigrate.runner.locked import follow_stamp, locked
from tokmigrate.runner.recorded_drift import refuse_drift
from tokmigrate.runner.records import (
    build_reverted_events,
    build_upgrade_outcome,
    find_undo_records,
    list_changed_documents,
    list_undo_records,
)
from tokmigrate.runner.restore import keep_texts
from tokmigrate.runner.run_recorder import Run, publish_run
from tokmigrate.runner.targets import edited_since_applied, nothing_back, planned_upgrade, way_down
from tokmigrate.runner.verification import (
    Accepted,
    outcome_of_plan,
    outcome_of_records,
    verify_outcome,
)
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import has_state
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.rows import Direction, Outcome


@dataclass(frozen=True)
class Upgraded:
    """What an upgrade did; a plan without steps means that nothing was pending."""

    plan: Plan
    recovered: Found


@dataclass(frozen=True)
class Downgraded:
    """What a downgrade did.

    Args:
        model: The model.
        before: The revision before.
        after: The revision afterwards, None for `base`.
        reverted: The migrations that were taken back, the latest first.
        semantic_undo: The files that were trained or written anew since; without any, every byte is back.
        recovered: What an earlier interruption had left.
    """

    model: str
    before: str | None
    after: str | None
    reverted: tuple[str, ...]
    semantic_undo: tuple[str, ...]
    recovered: Found


def plan(workspace: Workspace, entry: ModelEntry, to: str = "head") -> Plan:
    """Return what an upgrade of a model would do; nothing is written.

    Args:
        workspace: The workspace.
        entry: The model.
        to: A revision by any of its names.
    """
    refuse_in_progress(entry)
    return planned_upgrade(workspace, entry, take_snapshot(entry), to)


def foresee_upgrade(
    workspace: Workspace,
    entry: ModelEntry,
    to: str = "head",
    bound: BoundPlan | None = None,
    *,
    keep_owner: bool = True,
) -> Plan | None:
    """Return what an upgrade would do, None where a change is under way or has to be recovered first.

    Args:
        workspace: The workspace.
        entry: The model.
        to: A revision by any of its names.
        bound: A plan made before.
        keep_owner: Whether it is refused where owner, mode or attributes of files cannot be kept.

    Raises:
        TokmigrateError: What the upgrade would be refused for.
    """
    if is_in_progress(entry):
        return None
    planned = plan(bound.settings(workspace) if bound else workspace, entry, to)
    if bound is not None:
        bound.check(workspace, planned)
    if keep_owner and planned.steps:
        for each in (planned, *planned.adapters):
            shards = each.snapshot.vocabulary_shards if each.writes_rows else ()
            refuse_losses(each.snapshot.directory, {*each.touched, *shards})
    return planned


def accept_upgrade(
    workspace: Workspace,
    entry: ModelEntry,
    to: str = "head",
    listener: Listener = ignore,
    bound: BoundPlan | None = None,
    *,
    keep_owner: bool = True,
) -> Accepted | None:
    """Plan an upgrade and have the libraries load what it leaves, as is done for all of several models first.

    No weights are read, and nothing is written beside the model.

    Args:
        workspace: The workspace.
        entry: The model.
        to: A revision by any of its names.
        listener: Told when the libraries are asked.
        bound: A plan made before.
        keep_owner: Whether it is refused where owner, mode or attributes of files cannot be kept.

    Returns:
        What `upgrade` need not ask again; None where there is nothing to do, or where a change is under way or has to
        be recovered first.

    Raises:
        TokmigrateError: What the upgrade would be refused for.
    """
    planned = foresee_upgrade(workspace, entry, to, bound, keep_owner=keep_owner)
    if planned is None or not planned.steps:
        return None
    return verify_outcome(workspace, entry.name, outcome_of_plan(planned), checks_of(planned), listener)


def accept_downgrade(
    workspace: Workspace, entry: ModelEntry, to: str, listener: Listener = ignore, *, keep_owner: bool = True
) -> Accepted | None:
    """Find the way of a downgrade and have the libraries load what it leaves, as `accept_upgrade` does for an upgrade.

    Args:
        workspace: The workspace.
        entry: The model.
        to: A revision by any of its names.
        listener: Told when the libraries are asked.
        keep_owner: Whether it is refused where owner, mode or attributes of files cannot be kept.

    Raises:
        AlreadyThereError: There is nothing to downgrade.
        TokmigrateError: The model cannot go there.
    """
    if is_in_progress(entry):
        return None
    outcome = outcome_of_records(workspace, entry, *_recorded(workspace, entry, to, keep_owner=keep_owner))
    return verify_outcome(workspace, entry.name, outcome, (), listener)


def _recorded(workspace: Workspace, entry: ModelEntry, to: str, *, keep_owner: bool) -> tuple[Snapshot, list[str]]:
    """Return a model and the undo records that lead down to a revision; nothing is written."""
    snapshot = take_snapshot(entry)
    _, revisions = way_down(workspace, entry, snapshot, to)
    refuse_drift(workspace, snapshot)
    records = find_undo_records(workspace, entry, snapshot, revisions)
    if keep_owner and revisions:
        for each in (snapshot, *adapters_of(entry, snapshot)):
            refuse_losses(each.directory, {*each.stamp.files, *each.stamp.shards} if each.stamp else ())
    return snapshot, records


def checks_of(plan: Plan) -> list[Check]:
    """Return what the migrations of a plan say under `verify:`."""
    return [check for step in plan.steps for check in step.migration.checks]


def _nothing(plan: Plan) -> None:
    """Announce a plan to nobody."""


def upgrade(
    workspace: Workspace,
    entry: ModelEntry,
    to: str = "head",
    lock_timeout_s: float = 0.0,
    listener: Listener = ignore,
    bound: BoundPlan | None = None,
    announce: Callable[[Plan], None] = _nothing,
    *,
    keep_owner: bool = True,
    accepted: Accepted | None = None,
) -> Upgraded:
    """Bring a model up to a revision, or leave it as it is.

    Args:
        workspace: The workspace.
        entry: The model.
        to: A revision by any of its names.
        lock_timeout_s: How many seconds to wait for another process.
        listener: Told every step.
        bound: A plan made before; only what it says is done.
        announce: Given the plan before anything of it is done, also where nothing is pending.
        keep_owner: Whether it is refused where owner, mode or attributes of files cannot be kept.
        accepted: What the libraries accepted before.

    Raises:
        StalePlanError: That plan does not fit any more.
        RecoveryNeededError: It was changed, and what comes after that failed; the next command finishes it.
        TokmigrateError: Nothing was changed.
    """
    if bound is not None:
        workspace = bound.settings(workspace)
    # Planned once before the lock: most mistakes show here, and nothing is made beside the model for them.
    first = foresee_upgrade(workspace, entry, to, bound, keep_owner=keep_owner)
    if first is not None and not first.steps:
        announce(first)
        return Upgraded(first, Found.NOTHING)
    with locked(workspace, entry, lock_timeout_s, listener) as (_, state, recovered):
        snapshot = take_snapshot(entry, first.snapshot if first else None)
        planned = planned_upgrade(workspace, entry, snapshot, to, first)
        # Two plans of a large vocabulary are hundreds of megabytes.
        del first, snapshot
        if bound is not None:
            bound.check(workspace, planned)
        announce(planned)
        if not planned.steps:
            return Upgraded(planned, recovered)
        model = follow_stamp(state, entry, planned.snapshot)
        for name in list_changed_documents(planned.snapshot):
            listener(Warned(entry.name, f"{name} was changed since the last migration; it is migrated as it is now"))
        listener(ComputationStarted(entry.name))
        way = build_upgrade(planned, workspace.seed, ObjectStore(workspace.objects))
        applied = planned.snapshot.applied
        pending = [(step.migration.revision, step.migration.checksum) for step in planned.steps]
        keep_texts(workspace, state, [*applied, *pending])
        outcome = build_upgrade_outcome(way.passages, len(applied))
        trained = trained_events(training_on_record(state, planned.snapshot, ObjectStore(workspace.objects)))
        revisions = [revision for revision, _ in pending]
        run = Run(Direction.UPGRADE, planned.after, revisions, replace(outcome, tokens=(*trained, *outcome.tokens)))
        changes = (Change(planned.snapshot, way.candidate), *changes_up(planned, way))
        publish_run(
            workspace,
            entry,
            state,
            model,
            run,
            changes,
            listener,
            keep_owner=keep_owner,
            checks=checks_of(planned),
            accepted=accepted,
        )
        return Upgraded(planned, recovered)


def downgrade(
    workspace: Workspace,
    entry: ModelEntry,
    to: str,
    lock_timeout_s: float = 0.0,
    listener: Listener = ignore,
    *,
    keep_owner: bool = True,
    accepted: Accepted | None = None,
) -> Downgraded:
    """Take migrations back until a model is at a revision again: bit for bit, or by meaning where it was trained since.

    Args:
        workspace: The workspace.
        entry: The model.
        to: The revision to go back to, by any of its names.
        lock_timeout_s: How many seconds to wait for another process.
        listener: Told every step.
        keep_owner: Whether it is refused where owner, mode or attributes of files cannot be kept.
        accepted: What the libraries accepted before.

    Raises:
        UndoError: The way back is not on record here.
        DriftError: The model was changed since it was migrated.
    """
    first = None if is_in_progress(entry) else _recorded(workspace, entry, to, keep_owner=keep_owner)[0]
    with locked(workspace, entry, lock_timeout_s, listener) as (_, state, recovered):
        snapshot = take_snapshot(entry, first)
        target, revisions = way_down(workspace, entry, snapshot, to)
        if not revisions:
            raise nothing_back(entry, to)
        refuse_drift(workspace, snapshot)
        stamp = snapshot.stamp
        if stamp is None:
            raise UndoError("the model has no stamp", where=str(entry.path))
        edited = edited_since_applied(workspace, entry, snapshot)
        for revision in revisions:
            if revision in edited:
                told = f"{revision} was edited since it was applied; it is undone as it was applied"
                listener(Warned(entry.name, told))
        model = follow_stamp(state, entry, snapshot)
        objects = ObjectStore(workspace.objects)
        records = list_undo_records(state, model, revisions)
        listener(ComputationStarted(entry.name))
        back = build_downgrade(snapshot, records, objects)
        beside = changes_down(entry.name, adapters_of(entry, snapshot), records, objects, listener)
        changes = (Change(snapshot, back.candidate), *beside)
        trained = trained_events(training_on_record(state, snapshot, objects))
        events = (*trained, *build_reverted_events(state, model, revisions))
        run = Run(Direction.DOWNGRADE, target, revisions, Outcome(reverted=revisions, tokens=events))
        publish_run(workspace, entry, state, model, run, changes, listener, keep_owner=keep_owner, accepted=accepted)
        return Downgraded(entry.name, stamp.revision, target, revisions, back.semantic_undo, recovered)


def recover_model(
    workspace: Workspace, entry: ModelEntry, lock_timeout_s: float = 0.0, listener: Listener = ignore
) -> Found:
    """Finish what an interrupted change of a model left behind, and say what was found."""
    if not is_in_progress(entry):
        entry.here()
    if not exists(WorkArea(entry.path).root) and not has_state(workspace.state, workspace.root):
        return Found.NOTHING
    with locked(workspace, entry, lock_timeout_s, listener) as (_, _, found):
        return found
