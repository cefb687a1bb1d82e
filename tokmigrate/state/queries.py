"""Rows as values, and the questions that are asked within an open transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, select

from tokmigrate.errors import UnknownNameError
from tokmigrate.state.rows import (
    AppliedRecord,
    AppliedRow,
    Direction,
    Happened,
    MoveRow,
    OperationRow,
    Origin,
    Status,
    TokenEvent,
    TokenRow,
    TokensMoved,
)
from tokmigrate.state.schema import applied, operations
from tokmigrate.state.who import Who
from tokmigrate.vocabulary.token_delta import Move


def find_operation_in(connection: Connection, operation_id: str) -> OperationRow | None:
    """Return an operation, or None where there is none of this id."""
    row = connection.execute(select(operations).where(operations.c.id == operation_id)).one_or_none()
    return None if row is None else operation_row(row)


def operation_in(connection: Connection, operation_id: str) -> OperationRow:
    """Return an operation; raises UnknownNameError where there is none of this id."""
    row = find_operation_in(connection, operation_id)
    if row is None:
        raise UnknownNameError(f"the state has no operation {operation_id}", hint="run `tokmigrate log` to see them")
    return row


def active_in(connection: Connection, model_id: int) -> OperationRow | None:
    """Return the operation that holds a model now, or None."""
    row = connection.execute(select(operations).where(operations.c.model_id == model_id, is_active())).one_or_none()
    return None if row is None else operation_row(row)


def applied_in(connection: Connection, model_id: int) -> tuple[AppliedRow, ...]:
    """Return the revisions that are applied to a model, in order."""
    found = connection.execute(
        select(applied)
        .where(applied.c.model_id == model_id, applied.c.reverted_by.is_(None))
        .order_by(applied.c.position)
    )
    return tuple(applied_row(row) for row in found)


def operation_row(row: Row[Any]) -> OperationRow:
    """Return a row of `operations` as a value."""
    return OperationRow(
        id=row.id,
        number=row.number,
        model_id=row.model_id,
        direction=Direction(row.direction),
        from_revision=row.from_revision,
        to_revision=row.to_revision,
        revisions=tuple(row.revisions),
        status=Status(row.status),
        generation_before=row.generation_before,
        generation_after=row.generation_after,
        who=Who(row.who, row.host, row.pid, row.tool_version, row.libraries, row.git_commit),
        started=row.started,
        finished=row.finished,
        duration_s=row.duration_s,
        error=row.error,
        payload=row.payload,
    )


def is_active() -> ColumnElement[bool]:
    """Return the condition that an operation is active."""
    return operations.c.status.in_([status.value for status in Status if status.active])


def applied_row(row: Row[Any]) -> AppliedRow:
    """Return a row of `applied` as a value."""
    return AppliedRow(
        number=row.number,
        model_id=row.model_id,
        operation_id=row.operation_id,
        origin=Origin(row.origin),
        record=AppliedRecord(
            revision=row.revision,
            position=row.position,
            checksum=row.checksum,
            message=row.message,
            undo=row.undo,
            digests_before=row.digests_before,
            digests_after=row.digests_after,
        ),
        applied_at=row.applied_at,
        reverted_by=row.reverted_by,
    )


def token_row(row: Row[Any]) -> TokenRow:
    """Return a row of `tokens` as a value."""
    return TokenRow(
        number=row.number,
        model_id=row.model_id,
        operation_id=row.operation_id,
        event=TokenEvent(
            revision=row.revision,
            event=Happened(row.event),
            token=row.token,
            token_id=row.token_id,
            old_id=row.old_id,
            old_token=row.old_token,
            init=row.init,
            row_digest=row.row_digest,
        ),
        recorded_at=row.recorded_at,
        hash=row.hash,
    )


def move_row(row: Row[Any]) -> MoveRow:
    """Return a row of `moves` as a value."""
    move = Move(row.start, row.shift, tuple(row.texts))
    return MoveRow(
        number=row.number,
        model_id=row.model_id,
        operation_id=row.operation_id,
        event=TokensMoved(row.revision, Happened(row.event), move),
        recorded_at=row.recorded_at,
        hash=row.hash,
    )


def in_order(single: Iterable[TokenRow], together: Iterable[tuple[int, MoveRow]]) -> Iterator[TokenRow | MoveRow]:
    """Yield rows of `tokens`, and those of `moves` each after the row of `tokens` that it names, in one order."""
    rows: list[tuple[tuple[int, int], TokenRow | MoveRow]] = [((row.number, 0), row) for row in single]
    rows += [((after, row.number), row) for after, row in together]
    return (row for _, row in sorted(rows, key=lambda placed: placed[0]))


def each_token(rows: Iterable[TokenRow | MoveRow]) -> Iterator[TokenRow]:
    """Yield a row for each token, in the order of `rows`."""
    for row in rows:
        if isinstance(row, TokenRow):
            yield row
        else:
            yield from row.each()
