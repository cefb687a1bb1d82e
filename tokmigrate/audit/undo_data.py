"""Check whether the migrations of a model can still be undone: read the ledger and the undo data."""

from __future__ import annotations

from dataclasses import dataclass

from blake3 import blake3

from tokmigrate.change.undo_record import list_objects
from tokmigrate.errors import UndoError
from tokmigrate.files import read_file
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.settings import Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.objects import ObjectStore


@dataclass(frozen=True)
class LostUndo:
    """A migration whose recorded undo data is missing or damaged."""

    revision: str
    reason: str


@dataclass(frozen=True)
class UndoData:
    """The undo data of a model in this workspace.

    Args:
        lost: The migrations whose undo data is missing or damaged.
        not_undoable: The migrations that no downgrade can undo here, those below a lost one included, in order.
        ledger: What is wrong with the ledger, None where nothing is.
    """

    lost: tuple[LostUndo, ...] = ()
    not_undoable: tuple[str, ...] = ()
    ledger: str | None = None

    @property
    def breaks(self) -> bool:
        """Whether something was lost; a model that was migrated elsewhere has no undo data here."""
        return bool(self.lost or self.ledger)


def undo_data(workspace: Workspace, snapshot: Snapshot) -> UndoData:
    """Check the undo data of a model in this workspace; every byte of it is read."""
    if snapshot.stamp is None:
        return UndoData()
    state = open_state_if_present(workspace.state, workspace.root)
    model = state.model_at(snapshot.directory, snapshot.generation) if state else None
    rows = state.applied_now(model) if state and model else ()
    records = {row.record.revision: row.record.undo for row in rows}
    objects = ObjectStore(workspace.objects)
    applied = snapshot.revisions
    lost: list[LostUndo] = []
    stuck = 0
    whole: set[str] = set()
    for number, revision in enumerate(applied, 1):
        record = records.get(revision)
        if record is None:
            stuck = number
            continue
        try:
            _check(record, objects, whole)
        except UndoError as error:
            lost.append(LostUndo(revision, error.message))
            stuck = number
    ledger = None
    # The undo data of the last run holds the very stamp that it left.
    if not rows and objects.has(blake3(read_file(snapshot.directory / STAMP)).hexdigest()):
        what = "the state database is missing" if state is None else "the ledger does not have the model"
        ledger = f"{what}, and its undo data is here: the model was migrated here"
    return UndoData(tuple(lost), tuple(applied[:stuck]), ledger)


def _check(record: str, objects: ObjectStore, whole: set[str]) -> None:
    """Read the undo data of a migration, but for objects that are known to be whole; raises UndoError."""
    for digest in list_objects(record, objects):
        if digest not in whole:
            objects.check(digest)
            whole.add(digest)
