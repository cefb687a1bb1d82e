"""Changing the state: the states of a run, and the rows that it leaves in the ledger.

Each method is one transaction. A run goes

    begin ─▶ STAGING ─ prepare ─▶ PREPARED ─ finish ─▶ APPLIED
                └────── fail ────────┴───────────────▶ FAILED

and every step states the status that it expects, so that of two processes one loses with a clear error.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, delete, func, insert, select, update

from tokmigrate.errors import BusyError, DriftError, UnknownNameError
from tokmigrate.state.hash_chain import seal_run
from tokmigrate.state.provenance import Provenance, identify
from tokmigrate.state.queries import (
    Readable,
    active_run_in,
    find_model_row,
    format_stored_path,
    list_applied_in,
    model_row,
    run_in,
    run_row,
)
from tokmigrate.state.rows import (
    AppliedRecord,
    Direction,
    MigrationText,
    ModelRow,
    Origin,
    Outcome,
    RunRow,
    Status,
    TokenEvent,
    TokensMoved,
)
from tokmigrate.state.schema import applied, migration_texts, models, runs, tags, token_events, token_moves


@dataclass(frozen=True)
class State(Readable):
    """The state of a workspace: see `tokmigrate.state.database.open_state`."""

    def model_for(self, name: str, path: Path, lineage: str = "", generation: str | None = None) -> ModelRow:
        """Return the model at a path, recorded now if it was not; one that was moved there keeps its history.

        Args:
            name: What it is called now; a model that was renamed keeps its history.
            path: Its directory; models are identified by their resolved path.
            lineage: Its lineage id, or "" while it has none. A recorded one is never replaced: compare
                the lineage of the row with your own.
            generation: The generation that its stamp names, None where it has no stamp.
        """
        with self.writing() as connection:
            known = find_model_row(connection, path, self.moves_with, generation)
            kept = (known.lineage if known else "") or lineage
            values = {"name": name, "path": format_stored_path(path, self.moves_with), "lineage": kept}
            if known is None:
                connection.execute(insert(models).values(**values, created=_now()))
            else:
                connection.execute(update(models).where(models.c.id == known.id).values(**values))
            row = connection.execute(select(models).where(models.c.path == values["path"])).one()
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
        provenance: Provenance | None = None,
    ) -> RunRow:
        """Record the intent to change a model, with status STAGING.

        Args:
            model: The model.
            direction: What is done to its history.
            from_revision: The revision that it is at; None for base.
            to_revision: The revision that it comes to; None for base.
            revisions: The revisions to apply or undo, in that order.
            generation_before: The generation id in place; None at base.
            generation_after: The generation id of the candidate; None at base.
            provenance: The author; default: the user of this process.

        Raises BusyError where a run of this model is active.
        """
        author = provenance or identify(self.workspace)
        with self.writing() as connection:
            busy = active_run_in(connection, model.id)
            if busy is not None:
                raise BusyError(
                    f"a run of this model is in progress: {busy.direction} {busy.id}, {busy.status}, "
                    f"by {busy.provenance.user} on {busy.provenance.host}, process {busy.provenance.pid}",
                    where=model.name,
                    hint="wait for it; if its process is gone, run `tokmigrate recover`",
                )
            return _insert_run(
                connection,
                model,
                author,
                direction=direction.value,
                from_revision=from_revision,
                to_revision=to_revision,
                revisions=list(revisions),
                status=Status.STAGING.value,
                generation_before=generation_before,
                generation_after=generation_after,
            )

    def prepare(self, run_id: str, outcome: Outcome | Mapping[str, Any]) -> RunRow:
        """Take a run from STAGING to PREPARED and keep what finishing it needs.

        Args:
            run_id: The run.
            outcome: What finishing it records; or its payload, with any further keys that recovery wants.

        Raises BusyError where it is not STAGING.
        """
        payload = outcome.payload() if isinstance(outcome, Outcome) else dict(outcome)
        with self.writing() as connection:
            return _change(
                connection,
                run_id,
                Status.STAGING,
                {"status": Status.PREPARED.value, "outcome": payload},
            )

    def fail(self, run_id: str, error: str) -> RunRow:
        """Record that an active run failed and why; one that is over already is left as it is."""
        with self.writing() as connection:
            row = run_in(connection, run_id)
            if not row.status.active:
                return row
            ended = _end(connection, run_id, row.status, Status.FAILED, error)
            seal_run(connection, run_id)
            return ended

    def finish(self, run_id: str) -> RunRow:
        """Take a PREPARED run to APPLIED with the ledger rows that `prepare` kept.

        One that is APPLIED already is left as it is, so recovery may call it again.
        Raises BusyError from any other status, DriftError where the ledger contradicts it.
        """
        with self.writing() as connection:
            row = run_in(connection, run_id)
            return _finish(connection, row, Outcome.of(row.payload or {}))

    def adopt(
        self,
        model: ModelRow,
        records: Sequence[AppliedRecord],
        gone: Collection[str] = (),
        provenance: Provenance | None = None,
    ) -> RunRow | None:
        """Bring the state in line with the stamp of a model.

        Args:
            model: The model.
            records: What the stamp has as applied; recorded ones are skipped. They get the
                origin `adopted` and no undo record.
            gone: Recorded revisions that the stamp does not have: they are marked as undone.
            provenance: The author; default: the user of this process.

        Returns the run that it is recorded as, or None where there was nothing to do. Raises
        BusyError where a run of this model is active.
        """
        author = provenance or identify(self.workspace)
        with self.writing() as connection:
            if active_run_in(connection, model.id) is not None:
                raise BusyError("a run of this model is in progress", where=model.name, hint="run `tokmigrate recover`")
            known = {row.record.revision for row in list_applied_in(connection, model.id)}
            lost = known & set(gone)
            new = [record for record in records if record.revision not in known - lost]
            if not new and not lost:
                return None
            moment = _now()
            run = _insert_run(
                connection,
                model,
                author,
                direction=Direction.ADOPT.value,
                revisions=[*sorted(lost), *(record.revision for record in new)],
                status=Status.APPLIED.value,
                finished=moment,
                duration_s=0.0,
            )
            _revert(connection, run, sorted(lost))
            _apply(connection, run, new, Origin.ADOPTED, moment)
            seal_run(connection, run.id)
            return run

    def keep_migration_texts(self, texts: Sequence[MigrationText]) -> None:
        """Record the texts of migrations; one that is recorded with the same checksum is skipped."""
        with self.writing() as connection:
            found = connection.execute(select(migration_texts.c.revision, migration_texts.c.checksum))
            known = {(row.revision, row.checksum) for row in found}
            new = [text for text in texts if (text.revision, text.checksum) not in known]
            rows = [{**asdict(text), "attachments": dict(text.attachments), "recorded_at": _now()} for text in new]
            append(connection, migration_texts, rows)

    def set_tag(self, name: str, revision: str) -> str | None:
        """Set a tag to a revision, and return the previous one, None for a new tag."""
        with self.writing() as connection:
            before = connection.execute(select(tags.c.revision).where(tags.c.name == name)).scalar()
            if before is None:
                connection.execute(insert(tags).values(name=name, revision=revision))
            else:
                connection.execute(update(tags).where(tags.c.name == name).values(revision=revision))
            return before

    def delete_tag(self, name: str) -> str | None:
        """Delete a tag, and return the revision that it stood for, None where there is none of this name."""
        with self.writing() as connection:
            before = connection.execute(select(tags.c.revision).where(tags.c.name == name)).scalar()
            connection.execute(delete(tags).where(tags.c.name == name))
            return before


def _finish(connection: Connection, row: RunRow, outcome: Outcome) -> RunRow:
    if row.status is Status.APPLIED:
        return row
    ended = _end(connection, row.id, Status.PREPARED, Status.APPLIED, None)
    moment = ended.finished or _now()
    _revert(connection, row, outcome.reverted)
    _apply(connection, row, outcome.applied, Origin.APPLIED, moment)
    _record_events(connection, row, outcome.tokens, moment)
    seal_run(connection, row.id)
    return ended


def _end(connection: Connection, run_id: str, expected: Status, new: Status, error: str | None) -> RunRow:
    started = run_in(connection, run_id).started
    finished = _now()
    changes: dict[str, Any] = {
        "status": new.value,
        "finished": finished,
        "duration_s": max(0.0, (finished - started).total_seconds()),
        "error": error,
    }
    if new is Status.APPLIED:
        changes["outcome"] = None  # the ledger has it now
    return _change(connection, run_id, expected, changes)


def _change(connection: Connection, run_id: str, expected: Status, changes: Mapping[str, Any]) -> RunRow:
    changed = connection.execute(
        update(runs).where(runs.c.id == run_id, runs.c.status == expected.value).values(**changes)
    )
    row = run_in(connection, run_id)
    if changed.rowcount != 1:
        raise BusyError(
            f"the run is {row.status}, not {expected}: another process has moved it on",
            where=f"run {run_id}",
            hint="run `tokmigrate log` to see what happened to it",
        )
    return row


def _insert_run(connection: Connection, model: ModelRow, author: Provenance, **values: Any) -> RunRow:
    if connection.execute(select(models.c.id).where(models.c.id == model.id)).first() is None:
        raise UnknownNameError(
            f"the state does not know the model {model.name}",
            where=model.path,
            hint="the state database was replaced; run the command again",
        )
    run_id = secrets.token_hex(8)
    connection.execute(
        insert(runs).values(
            id=run_id,
            number=last_number(connection, runs) + 1,
            model_id=model.id,
            user_name=author.user,
            host=author.host,
            pid=author.pid,
            tool_version=author.tool_version,
            libraries=dict(author.libraries),
            git_commit=author.git_commit,
            started=_now(),
            **values,
        )
    )
    return run_row(connection.execute(select(runs).where(runs.c.id == run_id)).one())


def _now() -> datetime:
    return datetime.now(UTC)


def _apply(
    connection: Connection,
    run: RunRow,
    records: Sequence[AppliedRecord],
    origin: Origin,
    moment: datetime,
) -> None:
    """Record that `run` applied `records`; raises DriftError where one is applied already."""
    in_force = list_applied_in(connection, run.model_id)
    known = {row.record.revision for row in in_force}
    taken = {row.record.position for row in in_force}
    for record in records:
        if record.revision in known or record.position in taken:
            raise DriftError(
                f"the state already has revision {record.revision}, or another one at its place {record.position}",
                where=f"run {run.id}",
                hint="run `tokmigrate status`, then the command again: the state follows the stamp",
            )
        known.add(record.revision)
        taken.add(record.position)
    append(
        connection,
        applied,
        [
            {
                "model_id": run.model_id,
                "run_id": run.id,
                "origin": origin.value,
                "position": record.position,
                "revision": record.revision,
                "checksum": record.checksum,
                "message": record.message,
                "undo_record": record.undo if origin is Origin.APPLIED else None,
                "digests_before": dict(record.digests_before),
                "digests_after": dict(record.digests_after),
                "applied_at": moment,
                "reverted_by": None,
            }
            for record in records
        ],
    )


def _revert(connection: Connection, run: RunRow, revisions: Sequence[str]) -> None:
    """Record that `run` undid `revisions`; raises DriftError where one is not applied."""
    for revision in revisions:
        marked = connection.execute(
            update(applied)
            .where(
                applied.c.model_id == run.model_id,
                applied.c.revision == revision,
                applied.c.reverted_by.is_(None),
            )
            .values(reverted_by=run.id)
        )
        if marked.rowcount != 1:
            raise DriftError(
                f"revision {revision} is to be undone, but the state does not have it as applied",
                where=f"run {run.id}",
                hint="run `tokmigrate status`, then the command again: the state follows the stamp",
            )


def _record_events(
    connection: Connection, run: RunRow, events: Sequence[TokenEvent | TokensMoved], moment: datetime
) -> None:
    """Record what `run` did to tokens."""
    last = last_number(connection, token_events)
    single: list[dict[str, Any]] = []
    together: list[dict[str, Any]] = []
    for event in events:
        row: dict[str, Any] = {
            "model_id": run.model_id,
            "run_id": run.id,
            "revision": event.revision,
            "event_type": event.event.value,
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
                    "row_fingerprint": event.row_fingerprint,
                }
            )
        else:
            move = event.move
            ids = {"start": move.start, "stop": move.stop, "shift": move.shift}
            together.append({**row, **ids, "tokens": list(move.tokens), "after_event": last + len(single)})
    append(connection, token_events, single)
    append(connection, token_moves, together)


def append(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add `rows` to a table of the ledger, numbered on from the last, within the open transaction."""
    if rows:
        start = last_number(connection, table) + 1
        connection.execute(insert(table), [{**row, "number": number} for number, row in enumerate(rows, start)])


def last_number(connection: Connection, table: Table) -> int:
    """Return the number of the last row of a table of the ledger, 0 where it has none."""
    return connection.execute(select(func.max(table.c.number))).scalar() or 0
