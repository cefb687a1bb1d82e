"""Checking a ledger: its hash chain, those of imported ledgers, and the runs that the stamps of models name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from blake3 import blake3

from tokmigrate.errors import DriftError
from tokmigrate.files import read_file
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import Stamp, read_stamp
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.ledger import State
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.transfer import find_broken_import


@dataclass(frozen=True)
class UnknownRun:
    """A model whose last run the ledger does not have: it was migrated elsewhere, or the ledger is another one.

    Args:
        model: The model.
        revision: The revision that its stamp names.
    """

    model: str
    revision: str

    def __str__(self) -> str:
        return f"the ledger does not have the run that left {self.model} at {self.revision}"


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
        if stamp is None or state.has_run_to(stamp.generation) or _is_adopted(state, entry, stamp):
            continue
        found = UnknownRun(entry.name, stamp.revision)
        # The undo data of a run holds the very stamp that it left.
        if objects.has(blake3(read_file(entry.path / STAMP)).hexdigest()):
            raise DriftError(
                f"{found}, and it was one of this workspace: its undo data is here",
                where=state.place,
                hint="the ledger was emptied or recreated: put a backup of the state in its place",
            )
        yield found


def _is_adopted(state: State, entry: ModelEntry, stamp: Stamp) -> bool:
    model = state.model_at(entry.path, stamp.generation)
    known = [(row.record.revision, row.record.checksum) for row in state.applied_now(model)] if model else []
    return known == list(stamp.applied)
