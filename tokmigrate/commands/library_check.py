"""Verification of a change by the libraries, while weights are staged.

Of several models all are verified before the first is changed; what was accepted then is verified again only where the
files came out differently.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tokmigrate.apply.build_downgrade import restore_documents
from tokmigrate.apply.candidate import Change, Documents
from tokmigrate.apply.library_check import collect_inputs, verify_adapter_documents, verify_documents
from tokmigrate.commands.models import adapters_of, downgrades_of_adapters
from tokmigrate.events import OnProgress, report_activity
from tokmigrate.memo import Memo
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.plan.plan import Plan
from tokmigrate.revision.migration import Check
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.objects import ObjectStore

Outcome = Sequence[tuple[Snapshot, Documents]]
"""A model and, after it, its adapters, each with its files after a change."""


@dataclass(frozen=True)
class Accepted:
    """What the libraries accepted: the files of a model and its adapters after the change, and notes for the user.

    `bytes_to_write` is about how much the change writes beside the model; `predictions` is what the checks that run the
    model depended on, where they held.
    """

    documents: tuple[Documents, ...]
    notes: tuple[str, ...]
    bytes_to_write: int = 0
    predictions: object = None


def outcome_of_plan(plan: Plan) -> Outcome:
    """Return what an upgrade leaves."""
    return [(each.snapshot, Documents.of_plan(each)) for each in (plan, *plan.adapters)]


def outcome_of_changes(changes: Sequence[Change]) -> Outcome:
    """Return what changes that are ready to be published leave."""
    return [(change.snapshot, change.candidate.documents) for change in changes]


def outcome_of_records(workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, records: Sequence[str]) -> Outcome:
    """Return what a downgrade leaves, by the undo records of the model, the latest migration's first."""
    objects = ObjectStore(workspace.objects)
    beside = downgrades_of_adapters(adapters_of(entry, snapshot), records, objects)
    return [(each, restore_documents(each, own, objects)) for each, own in ((snapshot, records), *beside)]


def verify_outcome(workspace: Workspace, outcome: Outcome, checks: Sequence[Check]) -> Accepted:
    """Have the libraries load a model, and its adapters, as a change leaves them; `checks` are those of its migrations.

    Raises:
        TokmigrateError: A library would load something else than the files say.
    """
    (snapshot, documents), *adapters = outcome
    notes = verify_documents(snapshot, documents, checks, workspace.verify)
    for adapter, own in adapters:
        verify_adapter_documents(adapter, own)
    return Accepted(tuple(each for _, each in outcome), notes)


Verifications = Memo[Accepted]
"""What the libraries accepted of the models of a command, by all that they read of each."""


def accept_outcome(
    workspace: Workspace,
    model: str,
    outcome: Outcome,
    checks: Sequence[Check],
    on_progress: OnProgress,
    verifications: Verifications,
) -> Accepted:
    """Do what `verify_outcome` does before any of several models is changed, once for those that are alike."""
    with report_activity(on_progress, model, "verifying"):
        inputs = (tuple(checks), [tuple(collect_inputs(*each)) for each in outcome])
        return verifications.get(inputs, lambda: verify_outcome(workspace, outcome, checks))


def verify_once(
    workspace: Workspace, outcome: Outcome, checks: Sequence[Check], accepted: Accepted | None
) -> Sequence[str]:
    """Return the notes of `verify_outcome`, which is not called where the libraries accepted the same files before."""
    if accepted is None or accepted.documents != tuple(documents for _, documents in outcome):
        accepted = verify_outcome(workspace, outcome, checks)
    return accepted.notes
