"""The rows that a finished operation leaves in the ledger, written within its transaction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, select, update

from tokmigrate.errors import DriftError
from tokmigrate.state import chain
from tokmigrate.state.queries import applied_in
from tokmigrate.state.rows import AppliedRecord, MigrationText, OperationRow, Origin, TokenEvent, TokensMoved
from tokmigrate.state.schema import applied, migration_texts, moves, tokens


def apply_in(
    connection: Connection,
    operation: OperationRow,
    records: Sequence[AppliedRecord],
    origin: Origin,
    moment: datetime,
) -> None:
    """Record that `operation` applied `records`; raises DriftError where one is applied already."""
    in_force = applied_in(connection, operation.model_id)
    known = {row.record.revision for row in in_force}
    taken = {row.record.position for row in in_force}
    for record in records:
        if record.revision in known or record.position in taken:
            raise DriftError(
                f"the state already has revision {record.revision}, or another one at its place {record.position}",
                where=f"operation {operation.id}",
                hint="run `tokmigrate status`, then `tokmigrate repair`",
            )
        known.add(record.revision)
        taken.add(record.position)
    chain.append(
        connection,
        applied,
        [
            {
                "model_id": operation.model_id,
                "operation_id": operation.id,
                "origin": origin.value,
                "position": record.position,
                "revision": record.revision,
                "checksum": record.checksum,
                "message": record.message,
                "undo": record.undo if origin is Origin.APPLIED else None,
                "digests_before": dict(record.digests_before),
                "digests_after": dict(record.digests_after),
                "applied_at": moment,
                "reverted_by": None,
            }
            for record in records
        ],
    )


def revert_in(connection: Connection, operation: OperationRow, revisions: Sequence[str]) -> list[int]:
    """Record that `operation` took `revisions` back, and return the numbers of their rows.

    Raises DriftError where one is not applied.
    """
    for revision in revisions:
        marked = connection.execute(
            update(applied)
            .where(
                applied.c.model_id == operation.model_id,
                applied.c.revision == revision,
                applied.c.reverted_by.is_(None),
            )
            .values(reverted_by=operation.id)
        )
        if marked.rowcount != 1:
            raise DriftError(
                f"revision {revision} is to be taken back, but the state does not have it as applied",
                where=f"operation {operation.id}",
                hint="run `tokmigrate status`, then `tokmigrate repair`",
            )
    return list(connection.execute(select(applied.c.number).where(applied.c.reverted_by == operation.id)).scalars())


def keep_texts_in(connection: Connection, texts: Sequence[MigrationText], moment: datetime) -> None:
    """Record the texts of migrations that are not on record with their checksums."""
    found = connection.execute(select(migration_texts.c.revision, migration_texts.c.checksum))
    known = {(row.revision, row.checksum) for row in found}
    chain.append(
        connection,
        migration_texts,
        [
            {**asdict(text), "attachments": dict(text.attachments), "recorded_at": moment}
            for text in texts
            if (text.revision, text.checksum) not in known
        ],
    )


def tell_in(
    connection: Connection, operation: OperationRow, events: Sequence[TokenEvent | TokensMoved], moment: datetime
) -> None:
    """Record what `operation` did to tokens."""
    told = chain.length(connection, tokens)
    single: list[dict[str, Any]] = []
    together: list[dict[str, Any]] = []
    for event in events:
        row: dict[str, Any] = {
            "model_id": operation.model_id,
            "operation_id": operation.id,
            "revision": event.revision,
            "event": event.event.value,
            "recorded_at": moment,
        }
        if isinstance(event, TokenEvent):
            single.append(
                {
                    **row,
                    "token": event.token,
                    "token_id": event.token_id,
                    "old_id": event.old_id,
                    "old_token": event.old_token,
                    "init": None if event.init is None else dict(event.init),
                    "row_digest": event.row_digest,
                }
            )
        else:
            move = event.move
            ids = {"start": move.start, "stop": move.stop, "shift": move.shift}
            together.append({**row, **ids, "texts": list(move.tokens), "after_token": told + len(single)})
    chain.append(connection, tokens, single)
    chain.append(connection, moves, together)
