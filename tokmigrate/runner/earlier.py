"""A model as it was before migrations that it has, read from what was kept for the way back; nothing is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tokmigrate.change.undo import way_back
from tokmigrate.errors import DriftError, UndoError
from tokmigrate.model.documents import JSON_FILES, TEXT_FILES
from tokmigrate.model.json_text import Json, parse
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.stamp import FILE as STAMP
from tokmigrate.model.stamp import decoded
from tokmigrate.model.state import MODULE_CONFIG, ModelState
from tokmigrate.runner.records import changed_documents, undo_records
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
    known = {model.path: model for model in state.known_models()} if state else {}
    model = known.get(str(entry.path.resolve()))
    if state is None or model is None or snapshot.stamp is None or changed_documents(snapshot):
        return None
    applied = [revision for revision, _ in snapshot.stamp.applied]
    revisions = tuple(reversed(applied[applied.index(first) :]))
    try:
        back = way_back(snapshot, undo_records(state, model, revisions), ObjectStore(workspace.objects)).candidate
    except (UndoError, DriftError):
        return None
    held = back.files.get(STAMP)
    stamp = decoded(held.decode("utf-8"), STAMP) if held is not None else None
    rows = back.edit.new_rows
    found = replace(
        snapshot.state,
        documents=_documents(snapshot.state.documents, back.files),
        edit=RowEdit.identity(rows),
        lineage=stamp.rows if stamp else RowEdit.identity(rows),
        reshaped=bool(stamp and stamp.reshaped),
        init=stamp.init if stamp else None,
    )
    return Earlier(found, stamp.tokenizer if stamp else found.tokenizer.fingerprint)


def _documents(now: Mapping[str, Json], before: Mapping[str, bytes | None]) -> dict[str, Json]:
    documents = dict(now)
    for name, data in before.items():
        if data is None:
            documents.pop(name, None)
        elif name != STAMP:
            documents[name] = _value(name, data, now.get(name))
    return documents


def _value(name: str, data: bytes, now: Json) -> Json:
    if name in JSON_FILES or name.endswith(MODULE_CONFIG) or isinstance(now, dict):
        return parse(data.decode("utf-8"), name)
    return data.decode("utf-8") if name in TEXT_FILES or name.endswith(".jinja") else data
