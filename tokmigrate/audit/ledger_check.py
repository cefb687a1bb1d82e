"""Checking a ledger: its hash chain, those of imported ledgers, and the runs that the stamps of models name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from blake3 import blake3

from tokmigrate.apply.undo_record import list_objects
from tokmigrate.errors import DriftError, UndoError
from tokmigrate.files import read_file
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import Stamp, read_stamp
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.ledger import State
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.transfer import find_broken_import


@dataclass(frozen=True)
class UnknownRun:
    """A model whose last run the ledger does not have: it was migrated elsewhere, or the ledger is another one.

    Args:
        model: The model.
        revision: The revision that its stamp names, None at `base`.
    """

    model: str
    revision: str | None

    def __str__(self) -> str:
        return f"the ledger does not have the run that left {self.model} at {self.revision or 'base'}"


def check_ledger(workspace: Workspace, state: State) -> tuple[UnknownRun, ...]:
    """Check the ledger of a workspace, and return the runs of its models that it does not have.

    Raises:
        DriftError: A hash chain is broken, or a run of this workspace is missing.
    """
    broken = state.verify_chain()
    if broken is not None:
        raise DriftError(
            f"the hash chain is broken at {broken}",
            where=state.place,
            hint="put a backup of the state in its place; an earlier `log --export` shows what the rows were",
        )
    imported = find_broken_import(state)
    if imported is not None:
        source, broken = imported
        raise DriftError(
            f"the hash chain of the ledger imported from {source} is broken at {broken}",
            where=state.place,
            hint="put a backup of the state in its place",
        )
    return tuple(_unknown_runs(workspace, state))


def _unknown_runs(workspace: Workspace, state: State) -> Iterator[UnknownRun]:
    objects = ObjectStore(workspace.objects)
    for entry in workspace.models.values():
        try:
            stamp = read_stamp(entry.path)
        except DriftError:
            # That is for `check` to report.
            continue
        if _is_accounted_for(state, entry, stamp):
            continue
        found = UnknownRun(entry.name, stamp.revision if stamp else None)
        # The undo data of a run holds the very stamp that it left.
        if (
            stamp is not None
            and not state.has_run_to(stamp.generation)
            and objects.has(blake3(read_file(entry.path / STAMP)).hexdigest())
        ):
            raise DriftError(
                f"{found}, and it was one of this workspace: its undo data is here",
                where=state.place,
                hint="the ledger was emptied or recreated: put a backup of the state in its place",
            )
        yield found


def _is_accounted_for(state: State, entry: ModelEntry, stamp: Stamp | None) -> bool:
    """Return whether the ledger leaves a model at the revisions that its stamp has."""
    model = state.model_at(entry.path, stamp.generation if stamp else None)
    if model is None:
        return stamp is None or state.has_run_to(stamp.generation)
    # Of a run that is in progress or was interrupted `status` and `recover` report.
    known = [(row.record.revision, row.record.checksum) for row in state.list_applied(model)]
    return state.active(model) is not None or known == list(stamp.applied if stamp else ())


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
    rows = state.list_applied(model) if state and model else ()
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
