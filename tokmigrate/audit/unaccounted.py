"""Models whose stamp names a run that the ledger does not have: they were migrated elsewhere, or it was made anew."""

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


@dataclass(frozen=True)
class Unaccounted:
    """A model whose run the ledger does not have.

    Args:
        model: The model.
        revision: The revision that its stamp names.
        kept_here: Whether the undo data of this workspace holds that very stamp, so that the run was one of this
            workspace.
    """

    model: str
    revision: str
    kept_here: bool

    def __str__(self) -> str:
        return f"the ledger does not have the run that left {self.model} at {self.revision}"


def unaccounted(workspace: Workspace, state: State) -> Iterator[Unaccounted]:
    """Yield the models of a workspace whose stamp the ledger cannot account for."""
    objects = ObjectStore(workspace.objects)
    for entry in workspace.models.values():
        try:
            stamp = read_stamp(entry.path)
        except DriftError:
            # That is for `check` to tell.
            continue
        if stamp is not None and not state.has_left(stamp.generation) and not _is_adopted(state, entry, stamp):
            digest = blake3(read_file(entry.path / STAMP)).hexdigest()
            yield Unaccounted(entry.name, stamp.revision, objects.has(digest))


def _is_adopted(state: State, entry: ModelEntry, stamp: Stamp) -> bool:
    model = state.model_at(entry.path, stamp.generation)
    known = [(row.record.revision, row.record.checksum) for row in state.applied_now(model)] if model else []
    return known == list(stamp.applied)
