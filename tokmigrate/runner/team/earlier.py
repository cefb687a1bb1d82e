"""A model as it was before migrations that it has, read from what was kept for the way back; nothing is written."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tokmigrate.change.build_downgrade import build_downgrade
from tokmigrate.errors import DriftError, UndoError
from tokmigrate.model.documents.reading import with_files
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.runner.records import list_changed_documents, list_undo_records
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.objects import ObjectStore
from tokmigrate.vocabulary.rows import RowEdit


@dataclass(frozen=True)
class Earlier:
    """A model at an earlier time.

    Args:
        state: Its documents and rows.
        base: The fingerprint of its base tokenizer, None where that was not written down.
    """

    state: ModelState
    base: str | None


def earlier(workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, first: str) -> Earlier | None:
    """Return a model as its migration `first` found it.

    Args:
        workspace: The workspace.
        entry: The model.
        snapshot: The model as it is.
        first: The id of a revision that it has.

    Returns:
        None where the way back is not on record here, or leads from other files than there are.
    """
    state = open_state_if_present(workspace.state, workspace.root)
    model = state.model_at(entry.path, snapshot.generation) if state else None
    if state is None or model is None or snapshot.stamp is None or list_changed_documents(snapshot):
        return None
    applied = snapshot.revisions
    revisions = tuple(reversed(applied[applied.index(first) :]))
    try:
        back = build_downgrade(
            snapshot, list_undo_records(state, model, revisions), ObjectStore(workspace.objects)
        ).candidate
    except (UndoError, DriftError):
        return None
    stamp = back.stamp
    rows = back.edit.new_rows
    found = replace(
        snapshot.state,
        documents=with_files(snapshot.state.documents, back.files),
        edit=RowEdit.identity(rows),
        lineage=stamp.rows if stamp else RowEdit.identity(rows),
        reshaped=bool(stamp and stamp.reshaped),
        init=stamp.init if stamp else None,
    )
    return Earlier(found, stamp.tokenizer if stamp else found.tokenizer.fingerprint)
