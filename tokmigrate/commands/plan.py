"""What an upgrade of a model would do: planned, and checked against what it would be refused for."""

from __future__ import annotations

from tokmigrate.apply.metadata_check import refuse_losses
from tokmigrate.audit.run_status import is_in_progress, refuse_in_progress
from tokmigrate.commands.plan_file import BoundPlan
from tokmigrate.commands.targets import plan_or_reuse
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.plan.plan import Plan
from tokmigrate.revision.conditions import Check
from tokmigrate.settings import ModelEntry, Workspace


def plan(workspace: Workspace, entry: ModelEntry, to: str = "head") -> Plan:
    """Return what an upgrade of a model would do; nothing is written.

    Args:
        workspace: The workspace.
        entry: The model.
        to: A revision by any of its names.
    """
    refuse_in_progress(entry)
    return plan_or_reuse(workspace, entry, take_snapshot(entry), to)


def preview_upgrade(
    workspace: Workspace,
    entry: ModelEntry,
    to: str = "head",
    bound: BoundPlan | None = None,
    *,
    keep_owner: bool = True,
) -> Plan | None:
    """Return what an upgrade would do, None if a change is in progress or has to be recovered first.

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


def checks_of(plan: Plan) -> list[Check]:
    """Return what the migrations of a plan say under `verify:`."""
    return [check for step in plan.steps for check in step.migration.checks]
