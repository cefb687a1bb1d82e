"""What became of a model since it was migrated, by what this workspace has on record, and whether a change goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

from tokmigrate.audit.drift import Drift, document_drift, drift_of, each_line, remedy, stamp_trouble
from tokmigrate.change.undo_record import Left, read_left
from tokmigrate.errors import DriftError, UndoError
from tokmigrate.formatting import format_list
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import parse_stamp
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.runner.records import list_changed_documents
from tokmigrate.settings import Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.rows import AppliedRow


def drift_on_record(workspace: Workspace, snapshot: Snapshot) -> Drift:
    """Return what became of a model since it was migrated, by its stamp and by what this workspace has on record."""
    rows = _applied_rows(workspace, snapshot)
    trouble = _stamp_trouble(workspace, snapshot, rows)
    if trouble or snapshot.stamp is None:
        return _stamp_drift(trouble, snapshot, rows)
    return drift_of(snapshot, tuple(_left(workspace, rows)))


def refuse_drift(workspace: Workspace, snapshot: Snapshot) -> tuple[str, ...]:
    """Return what a user accepts of drift of a model; its weights are not read, since training them is none.

    Raises:
        DriftError: The model is not what its migrations left, and the workspace does not accept that.
    """
    found = _document_drift(workspace, snapshot)
    lines = tuple(each_line(found))
    if lines and workspace.drift == "refuse":
        raise _refusal(workspace, snapshot, found, lines)
    return lines


def refuse_lost_stamp(workspace: Workspace, snapshot: Snapshot) -> None:
    """Raise DriftError where a model has no stamp, and the ledger has migrations of it."""
    found = _document_drift(workspace, snapshot) if snapshot.stamp is None else Drift()
    if found.stamp_at:
        raise _refusal(workspace, snapshot, found, tuple(each_line(found)))


def _refusal(workspace: Workspace, snapshot: Snapshot, found: Drift, lines: Sequence[str]) -> DriftError:
    hint = (
        "put it back as it was, or, where the change is meant, go on from it with --accept-drift "
        "(`drift: accept` in tokmigrate.yaml); `tokmigrate check` tells all of it"
    )
    return DriftError(
        f"the model is not what its migrations left: {format_list(lines, separator='; ')}",
        where=str(snapshot.directory),
        hint=remedy(found, _name(workspace, snapshot)) if found.stamp_at else hint,
    )


def _name(workspace: Workspace, snapshot: Snapshot) -> str:
    names = (name for name, entry in workspace.models.items() if entry.path == snapshot.directory)
    return next(names, str(snapshot.directory))


def _stamp_drift(trouble: str | None, snapshot: Snapshot, rows: Sequence[AppliedRow]) -> Drift:
    recorded = rows[-1].record.revision if trouble and snapshot.stamp is None and rows else None
    return Drift(stamp=trouble, stamp_at=recorded)


def _document_drift(workspace: Workspace, snapshot: Snapshot) -> Drift:
    rows = _applied_rows(workspace, snapshot)
    trouble = _stamp_trouble(workspace, snapshot, rows)
    if trouble or not list_changed_documents(snapshot):
        return _stamp_drift(trouble, snapshot, rows)
    return document_drift(snapshot, tuple(_left(workspace, rows)))


def _applied_rows(workspace: Workspace, snapshot: Snapshot) -> tuple[AppliedRow, ...]:
    """Return the revisions that the ledger has as applied to a model."""
    state = open_state_if_present(workspace.state, workspace.root)
    model = state.model_at(snapshot.directory, snapshot.generation) if state else None
    return state.applied_now(model) if state and model else ()


def _stamp_trouble(workspace: Workspace, snapshot: Snapshot, rows: Sequence[AppliedRow]) -> str | None:
    stamps = (left.files[STAMP] for left in _left(workspace, rows[::-1]) if STAMP in left.files)
    last = next((stamp for stamp in stamps if stamp is not None), None)
    lineage = parse_stamp(last.decode("utf-8"), STAMP).lineage if last else ""
    return stamp_trouble(snapshot, lineage, [row.record.revision for row in rows])


def _left(workspace: Workspace, rows: Sequence[AppliedRow]) -> Iterator[Left]:
    """Yield what migrations left, in the order of the rows, as far as the undo data is here."""
    objects = ObjectStore(workspace.objects)
    for row in rows:
        if row.record.undo is not None:
            # What is lost of it is told by `undo_data`.
            with suppress(UndoError):
                yield read_left(row.record.undo, objects)
