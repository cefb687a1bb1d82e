"""Changing the state: the life of an operation, and what it leaves in the ledger.

Each method is one transaction. An operation goes

    begin ─▶ STAGING ─ prepare ─▶ PREPARED ─ finish ─▶ APPLIED
                └───── advance ──────┴───────────────▶ ABORTED | FAILED

and every step states what it starts from, so that of two processes one loses with a clear error.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from tokmigrate.errors import BusyError, UnknownNameError
from tokmigrate.state.endings import seal_in
from tokmigrate.state.entries import apply_in, keep_texts_in, revert_in, tell_in
from tokmigrate.state.identities import known_as_in
from tokmigrate.state.places import model_row, row_of_place, stored_place
from tokmigrate.state.queries import active_in, applied_in, operation_in, operation_row
from tokmigrate.state.reading import Readable
from tokmigrate.state.rows import (
    AppliedRecord,
    Direction,
    MigrationText,
    ModelRow,
    OperationRow,
    Origin,
    Outcome,
    Status,
)
from tokmigrate.state.schema import models, operations
from tokmigrate.state.tags import delete_tag_in, set_tag_in
from tokmigrate.state.who import Who, identify


def fresh_operation_id() -> str:
    """Return an id that no operation has yet."""
    return secrets.token_hex(8)


@dataclass(frozen=True)
class State(Readable):
    """The state of a workspace: see `tokmigrate.state.database.open_state`."""

    def model_for(self, name: str, path: Path, lineage: str = "", generation: str | None = None) -> ModelRow:
        """Return the model at a place, recorded now if it was not; one that was moved there keeps its ledger.

        Args:
            name: What it is called now; a model that was renamed keeps its history.
            path: Its directory; the resolved path is what tells models apart.
            lineage: Its lineage id, or "" while it has none. One on record is never replaced: compare
                the lineage of the row with your own.
            generation: The generation that its stamp names, None where it has no stamp.
        """
        place = stored_place(path, self.moves_with)
        with self.writing() as connection:
            known = row_of_place(connection, path, self.moves_with, generation)
            row = known_as_in(connection, known, name, place, lineage)
        return model_row(row, self.moves_with)

    def begin(
        self,
        model: ModelRow,
        direction: Direction,
        *,
        from_revision: str | None,
        to_revision: str | None,
        revisions: Sequence[str],
        generation_before: str | None,
        generation_after: str | None,
        who: Who | None = None,
        operation_id: str | None = None,
    ) -> OperationRow:
        """Record the intent to change a model, with status STAGING.

        Args:
            model: The model.
            direction: What is done to its history.
            from_revision: The revision that it is at; None for base.
            to_revision: The revision that it comes to; None for base.
            revisions: The revisions to apply or take back, in that order.
            generation_before: The generation id in place; None at base.
            generation_after: The generation id of the candidate; None at base.
            who: The author; default: the user of this process.
            operation_id: A fresh id, where the caller needs it beforehand; default: a random one.

        Raises BusyError where an operation of this model is active.
        """
        author = who or identify(self.workspace)
        with self.writing() as connection:
            busy = active_in(connection, model.id)
            if busy is not None:
                raise BusyError(
                    f"an operation of this model is under way: {busy.direction} {busy.id}, {busy.status}, "
                    f"by {busy.who.user} on {busy.who.host}, process {busy.who.pid}",
                    where=model.name,
                    hint="wait for it; if its process is gone, run `tokmigrate recover`",
                )
            return _insert_operation(
                connection,
                model,
                author,
                operation_id or fresh_operation_id(),
                direction=direction.value,
                from_revision=from_revision,
                to_revision=to_revision,
                revisions=list(revisions),
                status=Status.STAGING.value,
                generation_before=generation_before,
                generation_after=generation_after,
            )

    def prepare(self, operation_id: str, outcome: Outcome | Mapping[str, Any]) -> OperationRow:
        """Take an operation from STAGING to PREPARED and keep what finishing it needs.

        Args:
            operation_id: The operation.
            outcome: What finishing it records; or its payload, with any further keys that recovery wants.

        Raises BusyError where it is not STAGING.
        """
        payload = outcome.payload() if isinstance(outcome, Outcome) else dict(outcome)
        with self.writing() as connection:
            return _change(
                connection,
                operation_id,
                Status.STAGING,
                {"status": Status.PREPARED.value, "payload": payload},
            )

    def advance(self, operation_id: str, expected: Status, new: Status, error: str | None = None) -> OperationRow:
        """Give an active operation up: compare-and-set from `expected` to ABORTED or FAILED.

        PREPARED and APPLIED come with rows of their own: see `prepare` and `finish`.
        Raises BusyError where its status is not `expected`.
        """
        if new not in (Status.ABORTED, Status.FAILED) or not expected.active:
            raise ValueError(f"an operation cannot be advanced from {expected} to {new}")
        with self.writing() as connection:
            return _given_up(connection, operation_id, expected, new, error)

    def fail(self, operation_id: str, error: str) -> OperationRow:
        """Record that an active operation failed and why; one that is over already is left as it is."""
        with self.writing() as connection:
            row = operation_in(connection, operation_id)
            if not row.status.active:
                return row
            return _given_up(connection, operation_id, row.status, Status.FAILED, error)

    def finish(self, operation_id: str) -> OperationRow:
        """Take a PREPARED operation to APPLIED with the ledger rows that `prepare` kept.

        One that is APPLIED already is left as it is, so recovery may call it again.
        Raises BusyError from any other status, DriftError where the ledger contradicts it.
        """
        with self.writing() as connection:
            row = operation_in(connection, operation_id)
            return _finish(connection, row, Outcome.of(row.payload or {}))

    def adopt(
        self,
        model: ModelRow,
        records: Sequence[AppliedRecord],
        gone: Collection[str] = (),
        who: Who | None = None,
    ) -> OperationRow | None:
        """Let the state follow the stamp of a model.

        Args:
            model: The model.
            records: What the stamp says is applied; those on record already are passed over. They get the
                origin `adopted` and no undo record.
            gone: Revisions on record that the stamp does not have: they are marked as taken back.
            who: The author; default: the user of this process.

        Returns the operation that it is recorded as, or None where there was nothing to do. Raises
        BusyError where an operation of this model is active.
        """
        author = who or identify(self.workspace)
        with self.writing() as connection:
            if active_in(connection, model.id) is not None:
                raise BusyError(
                    "an operation of this model is under way", where=model.name, hint="run `tokmigrate recover`"
                )
            known = {row.record.revision for row in applied_in(connection, model.id)}
            lost = known & set(gone)
            new = [record for record in records if record.revision not in known - lost]
            if not new and not lost:
                return None
            moment = _now()
            operation = _insert_operation(
                connection,
                model,
                author,
                fresh_operation_id(),
                direction=Direction.ADOPT.value,
                revisions=[*sorted(lost), *(record.revision for record in new)],
                status=Status.APPLIED.value,
                finished=moment,
                duration_s=0.0,
            )
            reverted = revert_in(connection, operation, sorted(lost))
            apply_in(connection, operation, new, Origin.ADOPTED, moment)
            seal_in(connection, operation.id, reverted)
            return operation

    def keep_migration_texts(self, texts: Sequence[MigrationText]) -> None:
        """Record the texts of migrations; one that is on record with the same checksum is passed over."""
        with self.writing() as connection:
            keep_texts_in(connection, texts, _now())

    def set_tag(self, name: str, revision: str) -> str | None:
        """Let a tag stand for a revision from now on, and return the one that it stood for, None where it is new."""
        with self.writing() as connection:
            return set_tag_in(connection, name, revision)

    def delete_tag(self, name: str) -> str | None:
        """Take a tag away, and return the revision that it stood for, None where there is none of this name."""
        with self.writing() as connection:
            return delete_tag_in(connection, name)


def _finish(connection: Connection, row: OperationRow, outcome: Outcome) -> OperationRow:
    if row.status is Status.APPLIED:
        return row
    ended = _end(connection, row.id, Status.PREPARED, Status.APPLIED, None)
    moment = ended.finished or _now()
    reverted = revert_in(connection, row, outcome.reverted)
    apply_in(connection, row, outcome.applied, Origin.APPLIED, moment)
    tell_in(connection, row, outcome.tokens, moment)
    seal_in(connection, row.id, reverted)
    return ended


def _given_up(
    connection: Connection, operation_id: str, expected: Status, new: Status, error: str | None
) -> OperationRow:
    ended = _end(connection, operation_id, expected, new, error)
    seal_in(connection, operation_id)
    return ended


def _end(connection: Connection, operation_id: str, expected: Status, new: Status, error: str | None) -> OperationRow:
    started = operation_in(connection, operation_id).started
    finished = _now()
    changes: dict[str, Any] = {
        "status": new.value,
        "finished": finished,
        "duration_s": max(0.0, (finished - started).total_seconds()),
        "error": error,
    }
    if new is Status.APPLIED:
        changes["payload"] = None  # the ledger has it now
    return _change(connection, operation_id, expected, changes)


def _change(connection: Connection, operation_id: str, expected: Status, changes: Mapping[str, Any]) -> OperationRow:
    changed = connection.execute(
        update(operations)
        .where(operations.c.id == operation_id, operations.c.status == expected.value)
        .values(**changes)
    )
    row = operation_in(connection, operation_id)
    if changed.rowcount != 1:
        raise BusyError(
            f"the operation is {row.status}, not {expected}: another process has moved it on",
            where=f"operation {operation_id}",
            hint="run `tokmigrate log` to see what became of it",
        )
    return row


def _insert_operation(connection: Connection, model: ModelRow, who: Who, identity: str, **values: Any) -> OperationRow:
    if connection.execute(select(models.c.id).where(models.c.id == model.id)).first() is None:
        raise UnknownNameError(
            f"the state does not know the model {model.name}",
            where=model.path,
            hint="the state database was replaced; run the command again",
        )
    last = connection.execute(select(func.max(operations.c.number))).scalar() or 0
    connection.execute(
        insert(operations).values(
            id=identity,
            number=last + 1,
            model_id=model.id,
            who=who.user,
            host=who.host,
            pid=who.pid,
            tool_version=who.tool_version,
            libraries=dict(who.libraries),
            git_commit=who.git_commit,
            started=_now(),
            **values,
        )
    )
    return operation_row(connection.execute(select(operations).where(operations.c.id == identity)).one())


def _now() -> datetime:
    return datetime.now(UTC)
