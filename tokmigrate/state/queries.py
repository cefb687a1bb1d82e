"""Asking the state: the transactions that read, and rows as values; nothing here writes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from sqlalchemy import Connection, Engine, Table, select
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tokmigrate.errors import BusyError, DriftError, StorageError, TokmigrateError, UnknownNameError
from tokmigrate.files import exists
from tokmigrate.state.hash_chain import find_broken
from tokmigrate.state.rows import (
    AppliedRecord,
    AppliedRow,
    BrokenRun,
    Direction,
    MigrationText,
    ModelRow,
    MoveRow,
    Origin,
    Provenance,
    RunRow,
    Status,
    TokenEvent,
    TokenEventType,
    TokenRow,
    TokensMoved,
)
from tokmigrate.state.schema import (
    applied,
    decode,
    migration_texts,
    models,
    read_stored,
    runs,
    tags,
    token_events,
    token_moves,
)
from tokmigrate.vocabulary.ids import Move

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    T = TypeVar("T", bound=DataclassInstance)

_IS_ACTIVE = runs.c.status.in_([status.value for status in Status if status.active])


@dataclass(frozen=True)
class Readable:
    """A state database that can be asked.

    Args:
        workspace: The folder that relative paths and the Git commit are taken from.
        moves_with: The workspace that it lies in, and moves with; None where it lies elsewhere.
    """

    engine: Engine
    workspace: Path
    moves_with: Path | None = None

    @property
    def place(self) -> str:
        """Where the database is, without a password."""
        url = self.engine.url
        return str(url.database) if self.is_sqlite else url.render_as_string()

    @property
    def is_sqlite(self) -> bool:
        """Whether it is a file of SQLite's."""
        return self.engine.dialect.name == "sqlite"

    @contextmanager
    def begin_read(self) -> Iterator[Connection]:
        """Give a connection that sees one moment of the database; it must not write.

        Raises BusyError where writers do not let it in, StorageError where the database is damaged, DriftError where
        it holds what tokmigrate never writes.
        """
        with self._explain(), self.engine.connect() as connection:
            if not self.is_sqlite:
                # By default PostgreSQL lets each statement see a later moment than the one before.
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection

    @contextmanager
    def _explain(self) -> Iterator[None]:
        """Turn errors of the database, and of values in it, into ours."""
        try:
            yield
        except TokmigrateError:
            raise
        except ValueError as error:
            hint = "`tokmigrate log --verify-chain` names the run; put a backup of the state in its place"
            raise DriftError(f"a row of the state cannot be read: {error}", where=self.place, hint=hint) from error
        except DBAPIError as error:
            cause = str(error.orig)
            if "database is locked" in cause or "lock timeout" in cause:
                message = "another process writes to the state database and does not finish"
                hint = "wait for it, or end it, then try again"
                raise BusyError(message, where=self.place, hint=hint) from error
            raise StorageError(
                f"the state database cannot be used: {' '.join(cause.split())}",
                where=self.place,
                hint="check the free space, the permissions and the file; a backup can be put in its place"
                if self.is_sqlite
                else "check that the server runs, and `state:` in tokmigrate.yaml or $TOKMIGRATE_STATE",
            ) from error
        except SQLAlchemyError as error:
            raise StorageError(
                f"the state database cannot be used: {error}", where=self.place, hint="check `state` in tokmigrate.yaml"
            ) from error

    def list_models(self) -> tuple[ModelRow, ...]:
        """Return every recorded model, the oldest first."""
        with self.begin_read() as connection:
            return tuple(_model(row, self.moves_with) for row in _rows(connection, models))

    def model_at(self, path: Path, generation: str | None) -> ModelRow | None:
        """Return the model at a path, None where it is not recorded; see `find_model_in`."""
        with self.begin_read() as connection:
            return find_model_in(connection, path, self.moves_with, generation)

    def run(self, run_id: str) -> RunRow | None:
        """Return a run, or None where there is none of this id."""
        with self.begin_read() as connection:
            return _find_run_in(connection, run_id)

    def active(self, model: ModelRow) -> RunRow | None:
        """Return the run that holds a model now, or None."""
        with self.begin_read() as connection:
            return active_run_in(connection, model.id)

    def list_applied(self, model: ModelRow) -> tuple[AppliedRow, ...]:
        """Return the revisions that are applied to a model, in order."""
        with self.begin_read() as connection:
            return list_applied_in(connection, model.id)

    def list_applications(self, model: ModelRow) -> tuple[AppliedRow, ...]:
        """Return every application of a revision to a model, undone or not, as recorded."""
        with self.begin_read() as connection:
            return tuple(map(_applied_row, _rows(connection, applied, applied.c.model_id == model.id)))

    def runs(self, model: ModelRow | None, limit: int | None) -> tuple[RunRow, ...]:
        """Return runs, the latest first: of one model or of all, all of them or `limit`."""
        wanted = [] if model is None else [runs.c.model_id == model.id]
        with self.begin_read() as connection:
            return tuple(map(_run, _rows(connection, runs, *wanted, order=runs.c.number.desc(), limit=limit)))

    def token_rows(self, model: ModelRow) -> tuple[TokenRow, ...]:
        """Return the events of single tokens of a model, the earliest first: all but moves."""
        with self.begin_read() as connection:
            return tuple(map(_token_row, _rows(connection, token_events, token_events.c.model_id == model.id)))

    def token_records(self, model: ModelRow) -> tuple[TokenRow | MoveRow, ...]:
        """Return the token events of a model, the earliest first, a move of several tokens as one."""
        # A move comes after the event whose number stands with it.
        placed: list[tuple[tuple[int, int], TokenRow | MoveRow]] = [
            ((row.number, 0), row) for row in self.token_rows(model)
        ]
        with self.begin_read() as connection:
            for row in _rows(connection, token_moves, token_moves.c.model_id == model.id):
                placed.append(((row["after_event"], row["number"]), _move_row(row)))
        return tuple(row for _, row in sorted(placed, key=lambda each: each[0]))

    def token_events(self, model: ModelRow) -> tuple[TokenRow, ...]:
        """Return the events of each token of a model, the earliest first."""
        return tuple(each for record in self.token_records(model) for each in record.each())

    def migration_texts(self, revision: str | None = None) -> tuple[MigrationText, ...]:
        """Return the migrations as they were applied, the earliest first: those of one revision, or all."""
        wanted = [] if revision is None else [migration_texts.c.revision == revision]
        with self.begin_read() as connection:
            return tuple(_of_columns(MigrationText, row) for row in _rows(connection, migration_texts, *wanted))

    def texts_on_record(self) -> frozenset[tuple[str, str]]:
        """Return the revisions and checksums of the migrations whose texts are recorded."""
        with self.begin_read() as connection:
            return texts_on_record_in(connection)

    def verify_chain(self) -> BrokenRun | None:
        """Return the first run that the hash chain does not account for, None where it accounts for all."""
        with self.begin_read() as connection:
            return find_broken(connection)

    def has_run_to(self, generation: str) -> bool:
        """Return whether a recorded run left a generation, or is about to."""
        found = select(runs.c.id).where(runs.c.generation_after == generation, runs.c.status != Status.FAILED.value)
        with self.begin_read() as connection:
            return connection.execute(found.limit(1)).first() is not None

    def all_tags(self) -> dict[str, str]:
        """Return the revision of each tag, sorted by name."""
        with self.begin_read() as connection:
            return dict(sorted((row["name"], row["revision"]) for row in _rows(connection, tags)))


def format_stored_path(path: Path, root: Path | None) -> str:
    """Return the path of a model as the state keeps it: relative to the workspace that the database moves with."""
    resolved = Path(os.path.realpath(path))
    return str(resolved.relative_to(root)) if root is not None and resolved.is_relative_to(root) else str(resolved)


def find_model_in(connection: Connection, path: Path, root: Path | None, generation: str | None) -> ModelRow | None:
    """Return the model at a path: the one recorded there, or the one that was moved to it.

    A model was moved where its last run left the generation that is here now, and the recorded path is gone. Several of
    these are not distinguished, and of a run on another host it is not known whether its path is gone.

    Its stamp names `generation`, None where it has no stamp; `root` is the workspace that the database moves with.
    """
    for row in _rows(connection, models, models.c.path == format_stored_path(path, root)):
        return _model(row, root)
    if generation is None:
        return None
    left = connection.execute(
        select(runs.c.model_id, runs.c.host, runs.c.generation_after)
        .where(runs.c.status == Status.APPLIED.value)
        .order_by(runs.c.number)
    )
    last = {run.model_id: run for run in left}
    hosts = {number: run.host for number, run in last.items() if run.generation_after == generation}
    found = [row for row in _rows(connection, models) if row["id"] in hosts and _is_gone(row, hosts[row["id"]], root)]
    return _model(found[0], root) if len(found) == 1 else None


def _is_gone(row: Mapping[str, Any], host: str, root: Path | None) -> bool:
    if Path(row["path"]).is_absolute() and host != socket.gethostname():
        return False
    return not exists(Path(_model(row, root).path))


def run_in(connection: Connection, run_id: str) -> RunRow:
    """Return a run; raises UnknownNameError where there is none of this id."""
    row = _find_run_in(connection, run_id)
    if row is None:
        raise UnknownNameError(f"the state has no run {run_id}", hint="run `tokmigrate log` to see them")
    return row


def active_run_in(connection: Connection, model_id: int) -> RunRow | None:
    """Return the run that holds a model now, or None."""
    found = list(_rows(connection, runs, runs.c.model_id == model_id, _IS_ACTIVE))
    return _run(found[0]) if found else None


def list_applied_in(connection: Connection, model_id: int) -> tuple[AppliedRow, ...]:
    """Return the revisions that are applied to a model, in order."""
    in_force = (applied.c.model_id == model_id, applied.c.reverted_by.is_(None))
    return tuple(map(_applied_row, _rows(connection, applied, *in_force, order=applied.c.position)))


def texts_on_record_in(connection: Connection) -> frozenset[tuple[str, str]]:
    """Return the revisions and checksums of the migrations whose texts are recorded."""
    found = connection.execute(select(migration_texts.c.revision, migration_texts.c.checksum))
    return frozenset((row.revision, row.checksum) for row in found)


def _find_run_in(connection: Connection, run_id: str) -> RunRow | None:
    found = list(_rows(connection, runs, runs.c.id == run_id))
    return _run(found[0]) if found else None


def _rows(connection: Connection, table: Table, *wanted: Any, **how: Any) -> Iterator[dict[str, Any]]:
    return (decode(table, stored) for stored in read_stored(connection, table, *wanted, **how))


@cache
def _field_names(kind: type[DataclassInstance]) -> tuple[str, ...]:
    return tuple(each.name for each in fields(kind))


def _of_columns(kind: type[T], row: Mapping[str, Any], **given: Any) -> T:
    """Return a value whose fields are the columns of the same names, but for those that are given."""
    return kind(**{name: given[name] if name in given else row[name] for name in _field_names(kind)})


def _model(row: Mapping[str, Any], root: Path | None) -> ModelRow:
    path = row["path"] if root is None else str(root / row["path"])
    return _of_columns(ModelRow, row, path=path)


def _run(row: Mapping[str, Any]) -> RunRow:
    return _of_columns(
        RunRow,
        row,
        direction=Direction(row["direction"]),
        revisions=tuple(row["revisions"]),
        status=Status(row["status"]),
        provenance=_of_columns(Provenance, row, user=row["user_name"]),
        payload=row["outcome"],
    )


def _applied_row(row: Mapping[str, Any]) -> AppliedRow:
    record = _of_columns(AppliedRecord, row, undo=row["undo_record"])
    return _of_columns(AppliedRow, row, origin=Origin(row["origin"]), record=record)


def _token_row(row: Mapping[str, Any]) -> TokenRow:
    event = _of_columns(TokenEvent, row, event=TokenEventType(row["event_type"]))
    return _of_columns(TokenRow, row, event=event, table="token_events")


def _move_row(row: Mapping[str, Any]) -> MoveRow:
    move = Move(row["start"], row["shift"], tuple(row["tokens"]))
    return _of_columns(MoveRow, row, event=TokensMoved(row["revision"], TokenEventType(row["event_type"]), move))
