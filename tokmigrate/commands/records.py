"""What a run records in the ledger, and what the ledger has for a downgrade."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from tokmigrate.apply.build_upgrade import AppliedStep
from tokmigrate.apply.undo_record import Left, read_left
from tokmigrate.audit.drift import Drift, document_drift, drift_of, each_line, remedy, stamp_trouble
from tokmigrate.audit.ledger_check import list_applied
from tokmigrate.commands.models import format_model
from tokmigrate.errors import DriftError, UndoError
from tokmigrate.formatting import format_list
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import parse_stamp, read_stamp
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.objects import ObjectStore
from tokmigrate.state.rows import (
    AppliedRecord,
    AppliedRow,
    Direction,
    ModelRow,
    MoveRow,
    Outcome,
    TokenEvent,
    TokenEventType,
    TokenRow,
    TokensMoved,
)

if TYPE_CHECKING:
    from tokmigrate.state.ledger import State

Found = TypeVar("Found")


def build_upgrade_outcome(applied_steps: tuple[AppliedStep, ...], already: int) -> Outcome:
    """Return what finishing an upgrade records."""
    records = (
        AppliedRecord(step.revision, position, step.checksum, step.message, step.undo, step.before, step.after)
        for position, step in enumerate(applied_steps, already)
    )
    return Outcome(applied=tuple(records), tokens=tuple(event for step in applied_steps for event in _events(step)))


def _events(step: AppliedStep) -> Iterator[TokenEvent | TokensMoved]:
    for new in step.tokens:
        kind = TokenEventType(new.kind)
        yield TokenEvent(
            step.revision, kind, new.token, new.id, new.old_id, new.old_token, new.init, new.row_fingerprint
        )
    for token, number in step.removed.items():
        yield TokenEvent(step.revision, TokenEventType.REMOVED, token, None, number)
    for move in step.moved:
        yield TokensMoved(step.revision, TokenEventType.MOVED, move)


def build_reverted_events(
    state: State, model: ModelRow, revisions: tuple[str, ...]
) -> tuple[TokenEvent | TokensMoved, ...]:
    """Return the token events of a downgrade: those of each revision, the latest first, reversed."""
    places = {revision: place for place, revision in enumerate(revisions)}
    events = [row.event for row in list_events_in_force(state, model) if row.event.revision in places]
    return tuple(map(_revert, sorted(events, key=lambda event: places[event.revision])))


def _revert(event: TokenEvent | TokensMoved) -> TokenEvent | TokensMoved:
    if isinstance(event, TokensMoved):
        return TokensMoved(event.revision, TokenEventType.REVERTED, event.move.reverse)
    return TokenEvent(
        event.revision,
        TokenEventType.REVERTED,
        token=event.old_token or event.token,
        token_id=event.old_id,
        old_id=event.token_id,
        old_token=event.token if event.old_token else None,
    )


def list_events_in_force(state: State, model: ModelRow) -> tuple[TokenRow | MoveRow, ...]:
    """Return the token events of the revisions that a model has, as recorded when an upgrade applied them.

    A model that is stamped again records no events that its ledger has: the earlier ones hold.
    """
    records = state.token_records(model)
    rows = [row for row in records if row.event.event is not TokenEventType.TRAINED]
    last = {row.event.revision: row for row in rows}
    runs = {revision: row.run_id for revision, row in last.items() if row.event.event is not TokenEventType.REVERTED}
    holding: set[tuple[str, str]] = set()
    for applied in state.list_applied(model):
        recorded = runs.get(applied.record.revision)
        by = state.run(applied.run_id) if recorded not in (None, applied.run_id) else None
        if recorded == applied.run_id or (by and by.direction is not Direction.UPGRADE):
            holding.add((applied.record.revision, str(recorded)))
    return tuple(row for row in rows if (row.event.revision, row.run_id) in holding)


def find_undo_records(
    workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, revisions: tuple[str, ...]
) -> list[str]:
    """Return the undo records of applied revisions, in their order; raises UndoError where one is not on record."""
    known = {row.record.revision: row.record.undo for row in list_applied(workspace, snapshot)}
    records: list[str] = []
    for revision in revisions:
        undo = known.get(revision)
        if undo is None:
            raise UndoError(
                f"the undo data of {revision} is missing in this workspace",
                where=entry.name,
                hint=_hint_without_undo_data(workspace, snapshot, revision),
            )
        records.append(undo)
    return records


def _hint_without_undo_data(workspace: Workspace, snapshot: Snapshot, revision: str) -> str:
    state = open_state_if_present(workspace.state, workspace.root)
    for other in workspace.models.values() if state else ():
        model = state.model_at(other.path, None) if state else None
        rows = state.list_applied(model) if state and model else ()
        with suppress(DriftError):
            stamp = read_stamp(other.path)
            is_same = stamp is not None and stamp.generation == snapshot.generation
            if is_same and any(row.record.revision == revision and row.record.undo for row in rows):
                name = shlex.quote(format_model(workspace, snapshot.directory))
                command = f"`tokmigrate stamp --from {other.name} --model {name}`"
                return f"it is a copy of {other.name}: remove its {STAMP}, then {command} takes the undo data along"
    return "downgrade it where it was upgraded, or take the baseline from its source"


def drift_on_record(workspace: Workspace, snapshot: Snapshot) -> Drift:
    """Return what happened to a model since it was migrated, by its stamp and by what this workspace has on record."""
    return _compare_with_record(workspace, snapshot, lambda left: drift_of(snapshot, tuple(left)))


def refuse_drift(workspace: Workspace, snapshot: Snapshot) -> tuple[str, ...]:
    """Return what a user accepts of drift of a model; its weights are not read, since training them is none.

    Raises DriftError where the model is not what its migrations left, and the workspace does not accept that.
    """
    found = _compare_with_record(workspace, snapshot, lambda left: document_drift(snapshot, left))
    lines = tuple(each_line(found))
    if lines and workspace.drift == "refuse":
        raise _build_drift_error(workspace, snapshot, found, lines)
    return lines


def refuse_lost_stamp(workspace: Workspace, snapshot: Snapshot) -> None:
    """Raise DriftError where a model has no stamp, and the ledger has migrations of it."""
    found = drift_on_record(workspace, snapshot) if snapshot.stamp is None else Drift()
    if found.stamp_at:
        raise _build_drift_error(workspace, snapshot, found, tuple(each_line(found)))


def _build_drift_error(workspace: Workspace, snapshot: Snapshot, found: Drift, lines: Sequence[str]) -> DriftError:
    hint = (
        "put it back as it was, or, if the change is intended, continue with --accept-drift "
        "(`drift: accept` in tokmigrate.yaml); `tokmigrate check` lists everything"
    )
    message = f"the model is not what its migrations left: {format_list(lines, separator='; ')}"
    hint = remedy(found, format_model(workspace, snapshot.directory)) if found.stamp else hint
    return DriftError(message, where=str(snapshot.directory), hint=hint)


def _compare_with_record(workspace: Workspace, snapshot: Snapshot, compare: Callable[[Iterable[Left]], Drift]) -> Drift:
    """Return what is wrong with a stamp; where nothing is, how the model differs from what its migrations left."""
    rows = list_applied(workspace, snapshot)
    stamps = read_left_behind(workspace, rows[::-1], lambda left: left.files.get(STAMP))
    last = next((stamp for stamp in stamps if stamp is not None), None)
    lineage = parse_stamp(last, STAMP).lineage if last else ""
    trouble = stamp_trouble(snapshot, lineage, [row.record.revision for row in rows])
    if trouble or snapshot.stamp is None:
        lost = snapshot.stamp is None and rows
        return Drift(stamp=trouble, stamp_at=rows[-1].record.revision if lost else None)
    return compare(read_left_behind(workspace, rows, lambda left: left))


def read_left_behind(
    workspace: Workspace, rows: Sequence[AppliedRow], read: Callable[[Left], Found]
) -> Iterator[Found]:
    """Yield what is read of what migrations left, in the order of the rows, as far as the undo data is here."""
    objects = ObjectStore(workspace.objects)
    for row in rows:
        if row.record.undo is not None:
            # `undo_data` reports what is lost of it.
            with suppress(UndoError):
                yield read(read_left(row.record.undo, objects))
