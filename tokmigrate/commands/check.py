"""Is a model where its migrations say? For CI: training and saving again are no drift."""

from __future__ import annotations

from dataclasses import dataclass, field

from tokmigrate.audit.copies import CopyStatus, compare_copies, list_outdated
from tokmigrate.audit.drift import Drift
from tokmigrate.audit.ledger_check import UndoData, undo_data
from tokmigrate.audit.run_status import refuse_in_progress
from tokmigrate.audit.training import TokenTraining, training_on_record
from tokmigrate.commands.records import drift_on_record
from tokmigrate.commands.targets import describe_detected
from tokmigrate.errors import ModelError
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.model.references.references import ids_without_token
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.plan.progress import check_progress
from tokmigrate.revision.history import History
from tokmigrate.revision.migration import Migration
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.objects import ObjectStore

UP_TO_DATE, PENDING, DRIFTED = 0, 3, 4


@dataclass(frozen=True)
class Checked:
    """What `check` found of a model.

    Args:
        revision: Its revision, None at `base`.
        drift: How it changed since it was migrated.
        broken: Why it cannot be worked on any more, None where it can.
        undo: What of its undo data is here.
        detected: Which revision it looks like, by what and what to do, where that is a later one; else None.
        notes: Warnings about the model, which change no exit code.
        training: The tokens whose rows migrations initialised, and whether they were trained.
        copies: What was made from the model, and whether it is stale.
    """

    name: str
    revision: str | None
    pending: tuple[Migration, ...]
    drift: Drift
    broken: str | None = None
    undo: UndoData = field(default_factory=UndoData)
    detected: str | None = None
    notes: tuple[str, ...] = ()
    training: tuple[TokenTraining, ...] = field(default=(), repr=False)
    copies: tuple[CopyStatus, ...] = ()

    @property
    def exit_code(self) -> int:
        """The exit code: 0 up to date, 3 pending, 4 drift."""
        if self.broken or self.drift.breaks or self.undo.breaks:
            return DRIFTED
        return PENDING if self.pending else UP_TO_DATE


def check(workspace: Workspace, entry: ModelEntry) -> Checked:
    """Return whether a model is at the head, and how it changed since it was migrated; nothing is written.

    Raises:
        DriftError: The stamp is damaged, or a migration that was applied was edited or is gone.
        BusyError: A process is changing it.
        RecoveryNeededError: A change of it was interrupted.
    """
    refuse_in_progress(entry)
    history = History.read(workspace)
    stamp = read_stamp(entry.path)
    try:
        snapshot = take_snapshot(entry)
    except ModelError as error:
        if stamp is None:
            raise
        # It was whole when it was migrated.
        return Checked(entry.name, stamp.revision, (), Drift(), str(error))
    progress = check_progress(snapshot, history.chain_for(entry))
    drift = drift_on_record(workspace, snapshot)
    state = open_state_if_present(workspace.state, workspace.root)
    training = training_on_record(state, snapshot, ObjectStore(workspace.objects))
    # What the ledger knows need not be read off the tokens.
    likely = None if drift.stamp else describe_detected(workspace, entry, snapshot, progress)
    copies = compare_copies(entry.copies, snapshot, state)
    return Checked(
        entry.name,
        snapshot.revision,
        progress.pending,
        drift,
        undo=undo_data(workspace, snapshot),
        detected=likely[1] if likely else None,
        notes=(*map(str, ids_without_token(snapshot.state)), *list_outdated(copies)),
        training=training,
        copies=copies,
    )
