"""Checking a ledger: its hash chain, those of imported ledgers, and the runs that the stamps of models name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from blake3 import blake3

from tokmigrate.apply.undo_record import list_objects
from tokmigrate.errors import DriftError, FileProblems, UndoError
from tokmigrate.files import read_file
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import Stamp, read_stamp
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.revision.yaml_file import YamlHeader, python_checksum, read_contents, yaml_checksum
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state import transfer
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.rows import AppliedRow, MigrationText
from tokmigrate.strict_yaml.reading import parse

if TYPE_CHECKING:
    from tokmigrate.state.ledger import State


@dataclass(frozen=True)
class UnknownRun:
    """A model whose last run the ledger does not have: it was migrated elsewhere, or the ledger is another one."""

    model: str
    revision: str | None

    def __str__(self) -> str:
        return f"the ledger does not have the run that left {self.model} at {self.revision or 'base'}"


def check_ledger(workspace: Workspace, state: State) -> tuple[UnknownRun, ...]:
    """Return the runs of models that the ledger does not have.

    Raises DriftError where a hash chain is broken, or a run of this workspace is missing.
    """
    for ledger in chain([state], transfer.read_imported(state)):
        broken = ledger.verify_chain()
        if broken is not None:
            raise DriftError(
                f"the hash chain is broken at {broken}",
                where=ledger.place,
                hint="put a backup of the state in its place; an earlier `log --export` shows what the rows were",
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
        if stamp is not None and not state.has_run_to(stamp.generation) and _has_stamp(objects, entry.path):
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


def refuse_edited_text(text: MigrationText, attachments: Mapping[str, bytes]) -> None:
    """Raise DriftError where the text of a migration, which the hash chain leaves out, has not the recorded checksum.

    `attachments` is what the files held that it refers to, by name.
    """
    checksum: str | None
    try:
        if text.file.endswith(".py"):
            checksum = python_checksum(text.text, attachments)
        else:
            tree = parse(text.text, text.file)
            header, _ = read_contents(YamlHeader, tree, [])
            down = header.down_revision if header else None
            checksum = yaml_checksum({**tree.value, "down_revision": down}, attachments)
    except (FileProblems, TypeError):
        # It is no migration any more.
        checksum = None
    if checksum != text.checksum:
        raise DriftError(
            f"the text of {text.revision} on record was edited: its checksum is not the recorded one",
            where=text.file,
            hint="take the file from Git, or put a backup of the state in its place",
        )


@dataclass(frozen=True)
class UndoData:
    """The undo data of a model in this workspace.

    Args:
        lost: By migration whose recorded undo data is missing or damaged, what is wrong with it.
        not_undoable: The migrations that no downgrade can undo here, those below a lost one included, in order.
        ledger: What is wrong with the ledger, None where nothing is.
    """

    lost: Mapping[str, str] = field(default_factory=dict)
    not_undoable: tuple[str, ...] = ()
    ledger: str | None = None

    @property
    def breaks(self) -> bool:
        """Whether something was lost; a model that was migrated elsewhere has no undo data here."""
        return bool(self.lost or self.ledger)


def list_applied(workspace: Workspace, snapshot: Snapshot) -> tuple[AppliedRow, ...]:
    """Return the revisions that the ledger has as applied to a model."""
    state = open_state_if_present(workspace.state, workspace.root)
    model = state.model_at(snapshot.directory, snapshot.generation) if state else None
    return state.list_applied(model) if state and model else ()


def undo_data(workspace: Workspace, snapshot: Snapshot) -> UndoData:
    """Check the undo data of a model in this workspace; every byte of it is read."""
    if snapshot.stamp is None:
        return UndoData()
    rows = list_applied(workspace, snapshot)
    records = {row.record.revision: row.record.undo for row in rows}
    objects = ObjectStore(workspace.objects)
    lost: dict[str, str] = {}
    stuck = 0
    check = cache(objects.check)
    for number, revision in enumerate(snapshot.revisions, 1):
        record = records.get(revision)
        try:
            for digest in list_objects(record, objects) if record is not None else ():
                check(digest)
        except UndoError as error:
            lost[revision] = error.message
        if record is None or revision in lost:
            stuck = number
    ledger = None
    if not rows and _has_stamp(objects, snapshot.directory):
        is_missing = open_state_if_present(workspace.state, workspace.root) is None
        what = "the state database is missing" if is_missing else "the ledger does not have the model"
        ledger = f"{what}, and its undo data is here: the model was migrated here"
    return UndoData(lost, snapshot.revisions[:stuck], ledger)


def _has_stamp(objects: ObjectStore, directory: Path) -> bool:
    """Return whether the undo data of a run, which holds the very stamp that it left, is here."""
    return objects.has(blake3(read_file(directory / STAMP)).hexdigest())
