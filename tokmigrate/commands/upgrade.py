"""Upgrade one model, under its lock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tokmigrate.apply.build_upgrade import UpgradeBuilder
from tokmigrate.apply.publish import RecoveryOutcome
from tokmigrate.audit.drift import list_changed_documents
from tokmigrate.audit.training import list_trained_events, training_on_record
from tokmigrate.commands.library_check import Accepted, Verifications, accept_outcome, outcome_of_plan
from tokmigrate.commands.plan import BoundPlan, bind_plan, checks_of, plan_or_reuse, preview_upgrade, runs_model
from tokmigrate.commands.records import build_upgrade_outcome
from tokmigrate.commands.restore import record_texts
from tokmigrate.commands.session import NewRun, model_session, publish_run, sync_with_stamp
from tokmigrate.commands.staged_model import open_later_model
from tokmigrate.events import OnProgress, Warned, no_progress
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.plan.plan import Plan
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.rows import Direction, Outcome

CheckPredictions = Callable[[Plan, Path, OnProgress], None]
"""Runs a model before and after: given its plan, and the directory with what the upgrade would leave.

Raises VerificationError where a check of its migrations does not hold.
"""


def leave_predictions(plan: Plan, directory: Path, on_progress: OnProgress) -> None:
    """Say that checks which need a model that runs are not made here."""
    del directory
    on_progress(Warned(plan.model, "`kl_at_most` is not checked here: `tokmigrate evaluate` measures it"))


@dataclass(frozen=True)
class Upgraded:
    """What an upgrade did; a plan without steps means that nothing was pending."""

    plan: Plan
    recovered: RecoveryOutcome


def accept_upgrade(
    workspace: Workspace,
    entry: ModelEntry,
    to: str = "head",
    on_progress: OnProgress = no_progress,
    bound: BoundPlan | None = None,
    *,
    verifications: Verifications,
    keep_owner: bool = True,
    check_predictions: CheckPredictions = leave_predictions,
) -> Accepted | None:
    """Plan an upgrade and have the libraries load what it leaves, as is done for all of several models first.

    No weights are read, and nothing is written beside the model, unless a check asks how far predictions move. `bound`
    is a plan made before; `keep_owner` refuses a loss of owner, mode or attributes; models of one command have
    `verifications` in common.

    Returns:
        What `upgrade` need not check again; None if there is nothing to do, or if a change is in progress or has to
        be recovered first.

    Raises:
        TokmigrateError: What the upgrade would be refused for.
    """
    planned = preview_upgrade(workspace, entry, to, bound, keep_owner=keep_owner)
    if planned is None or not planned.steps:
        return None
    outcome, checks = outcome_of_plan(planned), checks_of(planned)
    accepted = accept_outcome(workspace, entry.name, outcome, checks, on_progress, verifications)
    if runs_model(planned):
        with open_later_model(workspace, entry, planned) as staged:
            check_predictions(planned, staged.directory, on_progress)
        accepted = replace(accepted, predictions=bind_plan(workspace, planned))
    return replace(accepted, bytes_to_write=planned.bytes_to_write)


def ignore_plan(plan: Plan) -> None:
    """Ignore a plan."""


def upgrade(
    workspace: Workspace,
    entry: ModelEntry,
    to: str = "head",
    lock_timeout_s: float = 0.0,
    on_progress: OnProgress = no_progress,
    bound: BoundPlan | None = None,
    announce: Callable[[Plan], None] = ignore_plan,
    *,
    keep_owner: bool = True,
    accepted: Accepted | None = None,
    check_predictions: CheckPredictions = leave_predictions,
) -> Upgraded:
    """Bring a model up to a revision, or leave it as it is.

    Args:
        lock_timeout_s: How many seconds to wait for another process.
        bound: A plan made before; only what it says is done.
        announce: Given the plan before anything of it is done, also where nothing is pending.
        keep_owner: Whether it is refused where owner, mode or attributes of files cannot be kept.
        accepted: What the libraries accepted before.
        check_predictions: Runs the model, where a check of its migrations needs that.

    Raises:
        StalePlanError: That plan does not fit any more.
        RecoveryNeededError: It was changed, and what comes after that failed; the next command finishes it.
        TokmigrateError: Nothing was changed.
    """
    if bound is not None:
        workspace = bound.settings(workspace)
    # Planned once before the lock: most mistakes show here, and nothing is made beside the model for them.
    first = preview_upgrade(workspace, entry, to, bound, keep_owner=keep_owner)
    if first is not None and not first.steps:
        announce(first)
        return Upgraded(first, RecoveryOutcome.NOTHING)
    with model_session(workspace, entry, lock_timeout_s, on_progress) as (state, recovered):
        snapshot = take_snapshot(entry, first.snapshot if first else None)
        planned = plan_or_reuse(workspace, entry, snapshot, to, first)
        # Two plans of a large vocabulary are hundreds of megabytes.
        del first, snapshot
        if bound is not None:
            bound.check(workspace, planned)
        announce(planned)
        if not planned.steps:
            return Upgraded(planned, recovered)
        model = sync_with_stamp(state, entry, planned.snapshot)
        for name in list_changed_documents(planned.snapshot):
            on_progress(Warned(entry.name, f"{name} was changed since the last migration; it is migrated as it is now"))
        for warning in planned.warnings:
            on_progress(Warned(entry.name, warning))
        objects = ObjectStore(workspace.objects)
        builder = UpgradeBuilder(planned, workspace.seed, objects)
        applied = planned.snapshot.applied
        pending = [(step.migration.revision, step.migration.checksum) for step in planned.steps]
        record_texts(workspace, state, [*applied, *pending])
        trained = list_trained_events(training_on_record(state, planned.snapshot, objects))

        def outcome() -> Outcome:
            made = build_upgrade_outcome(builder.applied_steps, len(applied))
            return replace(made, tokens=(*trained, *made.tokens))

        revisions = [revision for revision, _ in pending]
        run = NewRun(state, model, planned.snapshot, Direction.UPGRADE, planned.after, revisions, outcome)
        own, *beside = builder.changes()
        if runs_model(planned) and not (accepted and accepted.predictions == bind_plan(workspace, planned)):

            def read(staged: Path, read_weights: Callable[[Path], object] = own.read) -> None:
                read_weights(staged)
                check_predictions(planned, staged, on_progress)

            own = replace(own, read=read)
        publish_run(
            workspace,
            entry,
            run,
            (own, *beside),
            on_progress,
            keep_owner=keep_owner,
            copies=[copy.change for copy in builder.copies],
            checks=checks_of(planned),
            accepted=accepted,
        )
        return Upgraded(planned, recovered)
