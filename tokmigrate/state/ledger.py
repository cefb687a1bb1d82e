"""Changing the state: the states of a run, and the rows that it leaves in the ledger.

Each method is one transaction. A run goes

    begin ─▶ STAGING ─ prepare ─▶ PREPARED ─ finish ─▶ APPLIED
                └────── fail ────────┴───────────────▶ FAILED

and every step states the status that it expects, so that of two processes one loses with a clear error.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Table, delete, insert, inspect, or_, select, text, update

from tokmigrate.errors import BusyError, DriftError, UnknownNameError
from tokmigrate.state.hash_chain import seal_run
from tokmigrate.state.queries import (
    Readable,
    active_run_in,
    find_model_in,
    format_stored_path,
    list_applied_in,
    run_in,
    texts_on_record_in,
)
from tokmigrate.state.rows import (
    AppliedRecord,
    Direction,
    MigrationText,
    ModelRow,
    Origin,
    Outcome,
    Provenance,
    RunRow,
    Status,
    TokenEvent,
    TokensMoved,
    field_values,
    identify,
)
from tokmigrate.state.schema import (
    applied,
    known_files,
    migration_texts,
    models,
    read_highest,
    runs,
    tags,
    token_events,
    token_moves,
)

_BATCH = 5_000  # How many rows one statement adds
_WRITERS_LOCK = 0x746F6B6D69677261  # The key of the PostgreSQL advisory lock that writers hold, one at a time


@dataclass(frozen=True)
class State(Readable):
    """The state of a workspace: see `tokmigrate.state.database.open_state`."""

    @contextmanager
    def begin_write(self) -> Iterator[Connection]:
        """Give a connection that alone may write until it is done; all it did counts, or nothing.

        Raises BusyError where other writers do not finish, StorageError where it cannot be written.
        """
        with self._explain(), self.engine.connect() as connection:
            alone = connection.execution_options(writes=True)
            with alone.begin():
                if not self.is_sqlite:
                    alone.execute(text(f"SELECT pg_advisory_xact_lock({_WRITERS_LOCK})"))
                yield alone

    def model_for(self, name: str, path: Path, lineage: str = "", generation: str | None = None) -> ModelRow:
        """Return the model at a path, recorded now if it was not; one that was renamed or moved keeps its history.

        Models are identified by their resolved path, or by the generation that their stamp names. A recorded lineage
        is never replaced.
        """
        with self.begin_write() as connection:
            known = find_model_in(connection, path, self.moves_with, generation)
            kept = (known.lineage if known else "") or lineage
            values = {"name": name, "path": format_stored_path(path, self.moves_with), "lineage": kept}
            if known is not None:
                # A transaction that changes no row costs no fsync.
                is_other = or_(*(models.c[column] != value for column, value in values.items()))
                connection.execute(update(models).where(models.c.id == known.id, is_other).values(**values))
                number = known.id
            else:
                new = insert(models).values(**values, created=_now()).returning(models.c.id)
                number = connection.execute(new).scalar_one()
        return ModelRow(number, name, os.path.realpath(path), kept)

    def begin(
        self,
        model: ModelRow,
        direction: Direction,
        *,
        from_revision: str | None,
        to_revision: str | None,
        revisions: Sequence[str],
        generation_before: str | None,
    ) -> RunRow:
        """Record the intent to change a model, with status STAGING; raises BusyError where a run of it is active.

        The revisions are those of the model now and afterwards, None at base, and `generation_before` its generation
        now; `revisions` are to be applied or undone in that order.
        """
        author = identify(self.workspace)
        with self.begin_write() as connection:
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
            )

    def prepare(self, run_id: str, outcome: Outcome, generation_after: str | None = None) -> None:
        """Take a run from STAGING to PREPARED and keep what finishing it records; BusyError where it is not STAGING."""
        values = {"status": Status.PREPARED.value, "outcome": outcome.payload(), "generation_after": generation_after}
        with self.begin_write() as connection:
            _change(connection, run_id, Status.STAGING, **values)

    def fail(self, run_id: str, error: str) -> RunRow:
        """Record that an active run failed and why; one that is over already is left as it is."""
        with self.begin_write() as connection:
            row = run_in(connection, run_id)
            if not row.status.active:
                return row
            _change(connection, run_id, row.status, status=Status.FAILED.value, **_times(row, _now()), error=error)
            seal_run(connection, run_id)
            return run_in(connection, run_id)

    def finish(self, run_id: str) -> RunRow:
        """Take a PREPARED run to APPLIED with the ledger rows that `prepare` kept.

        One that is APPLIED already is left as it is, so recovery may call it again.
        Raises BusyError from any other status, DriftError where the ledger contradicts it.
        """
        with self.begin_write() as connection:
            row, moment = run_in(connection, run_id), _now()
            if row.status is Status.APPLIED:
                return row
            # The rows of the ledger take the place of the outcome.
            values = {"status": Status.APPLIED.value, **_times(row, moment), "outcome": None}
            _change(connection, run_id, Status.PREPARED, **values)
            outcome = Outcome.of(row.payload or {})
            _revert(connection, row, outcome.reverted)
            _apply(connection, row, outcome.applied, Origin.APPLIED, moment)
            _record_events(connection, row, outcome.tokens, moment)
            seal_run(connection, run_id)
            return run_in(connection, run_id)

    def adopt(self, model: ModelRow, records: Sequence[AppliedRecord], gone: Collection[str] = ()) -> RunRow | None:
        """Bring the state in line with the stamp of a model; raises BusyError where a run of it is active.

        Of `records`, what the stamp has as applied, those that are not recorded yet get the origin `adopted`; recorded
        revisions that are `gone` are marked as undone. Returns the run, None where there was nothing to do.
        """
        author = identify(self.workspace)
        with self.begin_write() as connection:
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
        with self.begin_write() as connection:
            known = texts_on_record_in(connection)
            new = [each for each in texts if (each.revision, each.checksum) not in known]
            _append(connection, migration_texts, [{**asdict(each), "recorded_at": _now()} for each in new])

    def known_files(self, model: ModelRow) -> dict[str, str]:
        """Return what `remember_files` recorded of a model."""
        with self.begin_read() as connection:
            if not inspect(connection).has_table(known_files.name):
                return {}
            found = connection.execute(select(known_files.c.files).where(known_files.c.model_id == model.id)).scalar()
            return found or {}

    def remember_files(self, model: ModelRow, files: Mapping[str, str]) -> None:
        """Record what is known of the files of a model, by name, in the place of what was."""
        with self.begin_write() as connection:
            # A database of an older version may not have the table.
            known_files.create(connection, checkfirst=True)
            connection.execute(delete(known_files).where(known_files.c.model_id == model.id))
            connection.execute(insert(known_files).values(model_id=model.id, files=dict(files)))

    def set_tag(self, name: str, revision: str) -> str | None:
        """Set a tag to a revision, and return the previous one, None for a new tag."""
        with self.begin_write() as connection:
            before = connection.execute(select(tags.c.revision).where(tags.c.name == name)).scalar()
            if before is None:
                connection.execute(insert(tags).values(name=name, revision=revision))
            else:
                connection.execute(update(tags).where(tags.c.name == name).values(revision=revision))
            return before

    def delete_tag(self, name: str) -> str | None:
        """Delete a tag, and return the revision that it stood for, None where there is none of this name."""
        with self.begin_write() as connection:
            before = connection.execute(select(tags.c.revision).where(tags.c.name == name)).scalar()
            connection.execute(delete(tags).where(tags.c.name == name))
            return before


def _times(run: RunRow, finished: datetime) -> dict[str, Any]:
    # A clock may have been set back meanwhile.
    return {"finished": finished, "duration_s": max(0.0, (finished - run.started).total_seconds())}


def _change(connection: Connection, run_id: str, expected: Status, **changes: Any) -> None:
    changed = connection.execute(
        update(runs).where(runs.c.id == run_id, runs.c.status == expected.value).values(**changes)
    )
    if changed.rowcount != 1:
        status = run_in(connection, run_id).status
        message = f"the run is {status}, not {expected}: another process has moved it on"
        hint = "run `tokmigrate log` to see what happened to it"
        raise BusyError(message, where=f"run {run_id}", hint=hint)


def _insert_run(connection: Connection, model: ModelRow, author: Provenance, **values: Any) -> RunRow:
    if connection.execute(select(models.c.id).where(models.c.id == model.id)).first() is None:
        hint = "the state database was replaced; run the command again"
        raise UnknownNameError(f"the state does not know the model {model.name}", where=model.path, hint=hint)
    # A chain that cannot go on is found before the model is changed, and not when the run ends.
    read_highest(connection, runs.c.chain_position)
    run_id = secrets.token_hex(8)
    who = asdict(author)
    who["user_name"] = who.pop("user")
    number = read_highest(connection, runs.c.number) + 1
    row = {"id": run_id, "number": number, "model_id": model.id, **who, "started": _now(), **values}
    connection.execute(insert(runs).values(row))
    return run_in(connection, run_id)


def _now() -> datetime:
    return datetime.now(UTC)


def _apply(
    connection: Connection, run: RunRow, records: Sequence[AppliedRecord], origin: Origin, moment: datetime
) -> None:
    """Record that `run` applied `records`; raises DriftError where one is applied already."""
    in_force = list_applied_in(connection, run.model_id)
    known = {row.record.revision for row in in_force}
    taken = {row.record.position for row in in_force}
    of_run = {"model_id": run.model_id, "run_id": run.id, "applied_at": moment}
    rows: list[dict[str, Any]] = []
    for record in records:
        if record.revision in known or record.position in taken:
            message = f"the state already has revision {record.revision}, or another one at its place {record.position}"
            hint = "run `tokmigrate status`, then the command again: the state follows the stamp"
            raise DriftError(message, where=f"run {run.id}", hint=hint)
        known.add(record.revision)
        taken.add(record.position)
        columns = asdict(record)
        undo = columns.pop("undo")
        columns["undo_record"] = undo if origin is Origin.APPLIED else None
        rows.append({**columns, "origin": origin.value, **of_run})
    _append(connection, applied, rows)


def _revert(connection: Connection, run: RunRow, revisions: Sequence[str]) -> None:
    """Record that `run` undid `revisions`; raises DriftError where one is not applied."""
    for revision in revisions:
        marked = connection.execute(
            update(applied)
            .where(applied.c.model_id == run.model_id, applied.c.revision == revision, applied.c.reverted_by.is_(None))
            .values(reverted_by=run.id)
        )
        if marked.rowcount != 1:
            message = f"revision {revision} is to be undone, but the state does not have it as applied"
            hint = "run `tokmigrate status`, then the command again: the state follows the stamp"
            raise DriftError(message, where=f"run {run.id}", hint=hint)


def _record_events(
    connection: Connection, run: RunRow, events: Sequence[TokenEvent | TokensMoved], moment: datetime
) -> None:
    last = read_highest(connection, token_events.c.number)

    def describe(event: TokenEvent | TokensMoved) -> dict[str, Any]:
        row = field_values(event) | {"model_id": run.model_id, "run_id": run.id, "recorded_at": moment}
        row["event_type"] = row.pop("event").value
        return row

    together: list[dict[str, Any]] = []
    for event in events:
        if isinstance(event, TokenEvent):
            last += 1
        else:
            row = describe(event)
            move = row.pop("move")
            together.append({**row, **move, "stop": event.move.stop, "after_event": last})
    _append(connection, token_events, (describe(event) for event in events if isinstance(event, TokenEvent)))
    _append(connection, token_moves, together)


def _append(connection: Connection, table: Table, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add `rows` to a table of the ledger, numbered on from the last."""
    start = read_highest(connection, table.c.number) + 1
    numbered = ({**row, "number": number} for number, row in enumerate(rows, start))
    # Not all at once: a removal may have an event for each of 200,000 tokens.
    while some := list(islice(numbered, _BATCH)):
        connection.execute(insert(table), some)
