"""What a run records in the ledger, and what the ledger has for a downgrade."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blake3 import blake3

from tokmigrate.change.build_upgrade import Passage
from tokmigrate.errors import UndoError
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.ledger import State
from tokmigrate.state.rows import (
    AppliedRecord,
    Direction,
    ModelRow,
    MoveRow,
    Outcome,
    TokenEvent,
    TokenEventType,
    TokenRow,
    TokensMoved,
)
from tokmigrate.vocabulary.token_delta import moves_of


def build_upgrade_outcome(passages: tuple[Passage, ...], already: int) -> Outcome:
    """Return what finishing an upgrade records."""
    records = [
        AppliedRecord(
            revision=passage.revision,
            position=already + number,
            checksum=passage.checksum,
            message=passage.message,
            undo=passage.undo,
            digests_before=passage.before,
            digests_after=passage.after,
        )
        for number, passage in enumerate(passages)
    ]
    events = [event for passage in passages for event in _events(passage)]
    return Outcome(applied=tuple(records), tokens=tuple(events))


def _events(passage: Passage) -> Iterator[TokenEvent | TokensMoved]:
    for begun in passage.tokens:
        yield TokenEvent(
            passage.revision,
            TokenEventType(begun.kind),
            begun.token,
            begun.id,
            begun.old_id,
            begun.old_token,
            begun.init,
            begun.row_fingerprint,
        )
    for token, number in passage.removed.items():
        yield TokenEvent(passage.revision, TokenEventType.REMOVED, token, None, number)
    for move in passage.moved:
        yield TokensMoved(passage.revision, TokenEventType.MOVED, move)


def build_reverted_events(
    state: State, model: ModelRow, revisions: tuple[str, ...]
) -> tuple[TokenEvent | TokensMoved, ...]:
    """Return the token events of a downgrade: those of each revision, reversed.

    Args:
        state: The state, which has the events of each revision.
        model: The model.
        revisions: The revisions that are undone, the latest first.
    """
    told: dict[str, list[TokenEvent | TokensMoved]] = {}
    for row in list_events_in_force(state, model):
        told.setdefault(row.event.revision, []).append(row.event)
    return tuple(event for revision in revisions for event in _reverted(revision, told.get(revision, ())))


def _reverted(revision: str, told: Sequence[TokenEvent | TokensMoved]) -> Iterator[TokenEvent | TokensMoved]:
    # Ledgers of older versions have a row for each token that moved.
    single: list[tuple[str, int, int]] = []
    for event in told:
        if isinstance(event, TokensMoved):
            yield TokensMoved(revision, TokenEventType.REVERTED, event.move.reverse)
        elif event.event is TokenEventType.MOVED and event.token_id is not None and event.old_id is not None:
            single.append((event.token, event.token_id, event.old_id))
        else:
            yield TokenEvent(
                revision,
                TokenEventType.REVERTED,
                token=event.old_token or event.token,
                token_id=event.old_id,
                old_id=event.token_id,
                old_token=event.token if event.old_token else None,
            )
    yield from (TokensMoved(revision, TokenEventType.REVERTED, move) for move in moves_of(single))


def list_events_in_force(state: State, model: ModelRow) -> tuple[TokenRow | MoveRow, ...]:
    """Return the token events of the revisions that a model has, as recorded when an upgrade applied them.

    A model that is stamped again records no events that its ledger has: the earlier ones hold.
    """
    told: dict[str, list[tuple[int, TokenRow | MoveRow]]] = {}
    for place, row in enumerate(state.token_records(model)):
        revision = row.event.revision
        if row.event.event is TokenEventType.REVERTED:
            told.pop(revision, None)
        elif row.event.event is not TokenEventType.TRAINED:
            before = told.setdefault(revision, [])
            if before and before[0][1].run_id != row.run_id:
                before.clear()
            before.append((place, row))
    holding = [
        placed
        for row in state.applied_now(model)
        if (found := told.get(row.record.revision)) and _hold(state, found[0][1].run_id, row.run_id)
        for placed in found
    ]
    return tuple(row for _, row in sorted(holding, key=lambda placed: placed[0]))


def _hold(state: State, told_by: str, run_id: str) -> bool:
    """Return whether the events that a run recorded of a revision hold after the run that applied it last."""
    by = state.run(run_id)
    return told_by == run_id or (by is not None and by.direction is not Direction.UPGRADE)


def list_undo_records(state: State, model: ModelRow, revisions: tuple[str, ...]) -> list[str]:
    """Return the undo records of applied revisions, the latest first.

    Raises:
        UndoError: One is not on record.
    """
    known = {row.record.revision: row.record for row in state.applied_now(model)}
    records: list[str] = []
    for revision in revisions:
        record = known.get(revision)
        if record is None or record.undo is None:
            raise no_undo_error(revision, model.name)
        records.append(record.undo)
    return records


def find_undo_records(
    workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, revisions: tuple[str, ...]
) -> list[str]:
    """Return the undo records of applied revisions, the latest first, as this workspace has them; writes nothing.

    Args:
        workspace: The workspace.
        entry: The model.
        snapshot: The model as it is.
        revisions: The revisions, the latest first.

    Raises:
        UndoError: One is not on record.
    """
    state = open_state_if_present(workspace.state, workspace.root)
    model = state.model_at(snapshot.directory, snapshot.generation) if state else None
    if state is not None and model is not None:
        return list_undo_records(state, model, revisions)
    if revisions:
        raise no_undo_error(revisions[0], entry.name)
    return []


def no_undo_error(revision: str, model: str) -> UndoError:
    """Return the error for a revision whose undo data this workspace does not have."""
    return UndoError(
        f"the way back from {revision} is not on record in this workspace",
        where=model,
        hint="downgrade it where it was upgraded; of a copy of a model that was upgraded here, remove tokmigrate.json "
        "and take it on with `tokmigrate stamp --from`; or take the baseline from its source",
    )


def list_changed_documents(snapshot: Snapshot) -> tuple[str, ...]:
    """Return the documents that have other bytes than the stamp says."""
    changed: list[str] = []
    for name, file in (snapshot.stamp.files if snapshot.stamp else {}).items():
        data = snapshot.texts.get(name)
        if (blake3(data).hexdigest() if data is not None else None) != file.digest:
            changed.append(name)
    return tuple(sorted(changed))
