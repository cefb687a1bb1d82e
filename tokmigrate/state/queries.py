"""Asking the state: rows as values, and the questions that are asked of them; nothing here writes."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, select

from tokmigrate.errors import UnknownNameError
from tokmigrate.files import exists
from tokmigrate.state.connection import Database
from tokmigrate.state.hash_chain import find_broken, head_in, link_reader, read_table
from tokmigrate.state.provenance import Provenance
from tokmigrate.state.rows import (
    AppliedRecord,
    AppliedRow,
    BrokenRun,
    Direction,
    MigrationText,
    ModelRow,
    MoveRow,
    Origin,
    RunRow,
    Status,
    TokenEvent,
    TokenEventType,
    TokenRow,
    TokensMoved,
)
from tokmigrate.state.schema import (
    LEDGER,
    OF_RUNS,
    applied,
    migration_texts,
    models,
    runs,
    tags,
    token_events,
    token_moves,
)
from tokmigrate.vocabulary.token_delta import Move


def format_stored_path(path: Path, root: Path | None) -> str:
    """Return the path of a model as the state keeps it.

    Args:
        path: The model's directory; links are followed.
        root: The workspace that the database moves with, None where it moves with none.
    """
    resolved = Path(os.path.realpath(path))
    return str(resolved.relative_to(root)) if root is not None and resolved.is_relative_to(root) else str(resolved)


def absolute_path(stored: str, root: Path | None) -> str:
    """Return the absolute path of a model that the state keeps; one whose workspace is not known stays relative."""
    return str(root / stored) if root is not None else stored


def model_row(row: Row[tuple[object, ...]], root: Path | None) -> ModelRow:
    """Return a row of `models` as a value, with the path that it has now."""
    return ModelRow(row.id, row.name, absolute_path(row.path, root), row.lineage, row.created)


def find_model_row(
    connection: Connection, path: Path, root: Path | None, generation: str | None
) -> Row[tuple[object, ...]] | None:
    """Return the row of the model at a path: the one recorded there, or the one that was moved to it.

    A model was moved where its last run left the generation that is here now, and the recorded path is gone. Several of
    these are not distinguished, and of a run on another host it is not known whether its path is gone.

    Args:
        connection: A connection.
        path: The model's directory.
        root: The workspace that the database moves with.
        generation: The generation that its stamp names, None where it has no stamp.
    """
    here = connection.execute(select(models).where(models.c.path == format_stored_path(path, root))).one_or_none()
    if here is not None or generation is None:
        return here
    left = connection.execute(
        select(models, runs.c.host, runs.c.generation_after)
        .join(runs, runs.c.model_id == models.c.id)
        .where(runs.c.status == Status.APPLIED.value)
        .order_by(runs.c.number)
    )
    last = {row.id: row for row in left}
    found = [row for row in last.values() if row.generation_after == generation and _is_gone(row, root)]
    return found[0] if len(found) == 1 else None


def _is_gone(row: Row[tuple[object, ...]], root: Path | None) -> bool:
    if Path(row.path).is_absolute() and row.host != socket.gethostname():
        return False
    return not exists(Path(absolute_path(row.path, root)))


@dataclass(frozen=True)
class Readable(Database):
    """A state database that can be asked."""

    def list_models(self) -> tuple[ModelRow, ...]:
        """Return every recorded model, the oldest first."""
        with self.reading() as connection:
            found = connection.execute(select(models).order_by(models.c.id))
            return tuple(model_row(row, self.moves_with) for row in found)

    def model_at(self, path: Path, generation: str | None) -> ModelRow | None:
        """Return the model at a path, None where it is not recorded.

        Args:
            path: Its directory; models are identified by their resolved path.
            generation: The generation that its stamp names, by which one is known that was moved there; None where it
                has no stamp.
        """
        with self.reading() as connection:
            row = find_model_row(connection, path, self.moves_with, generation)
        return None if row is None else model_row(row, self.moves_with)

    def run(self, run_id: str) -> RunRow | None:
        """Return a run, or None where there is none of this id."""
        with self.reading() as connection:
            return find_run_in(connection, run_id)

    def active(self, model: ModelRow) -> RunRow | None:
        """Return the run that holds a model now, or None."""
        with self.reading() as connection:
            return active_run_in(connection, model.id)

    def list_applied(self, model: ModelRow) -> tuple[AppliedRow, ...]:
        """Return the revisions that are applied to a model, in order."""
        with self.reading() as connection:
            return list_applied_in(connection, model.id)

    def list_applications(self, model: ModelRow) -> tuple[AppliedRow, ...]:
        """Return every application of a revision to a model, undone or not, as recorded."""
        with self.reading() as connection:
            found = connection.execute(select(applied).where(applied.c.model_id == model.id).order_by(applied.c.number))
            return tuple(build_applied_row(row) for row in found)

    def runs(self, model: ModelRow | None, limit: int | None) -> tuple[RunRow, ...]:
        """Return runs, the latest first: of one model or of all, all of them or `limit`."""
        query = select(runs).order_by(runs.c.number.desc()).limit(limit)
        if model is not None:
            query = query.where(runs.c.model_id == model.id)
        with self.reading() as connection:
            return tuple(run_row(row) for row in connection.execute(query))

    def token_rows(self, model: ModelRow) -> tuple[TokenRow, ...]:
        """Return the events of single tokens of a model, the earliest first: all but moves."""
        query = select(token_events).where(token_events.c.model_id == model.id).order_by(token_events.c.number)
        with self.reading() as connection:
            return tuple(token_row(row) for row in connection.execute(query))

    def token_records(self, model: ModelRow) -> Iterator[TokenRow | MoveRow]:
        """Return the token events of a model, the earliest first, a move of several tokens as one."""
        query = select(token_moves).where(token_moves.c.model_id == model.id).order_by(token_moves.c.number)
        single = self.token_rows(model)
        with self.reading() as connection:
            together = [(row.after_event, move_row(row)) for row in connection.execute(query)]
        return in_order(single, together)

    def token_events(self, model: ModelRow, token: str | None = None) -> tuple[TokenRow, ...]:
        """Return the events of each token of a model, the earliest first.

        Args:
            model: The model.
            token: Only events of this text, also those that renamed it.
        """
        rows = expand_moves(self.token_records(model))
        return tuple(row for row in rows if token is None or token in (row.event.token, row.event.old_token))

    def migration_texts(self, revision: str | None = None) -> tuple[MigrationText, ...]:
        """Return the migrations as they were applied, the earliest first: those of one revision, or all."""
        query = select(migration_texts).order_by(migration_texts.c.number)
        if revision is not None:
            query = query.where(migration_texts.c.revision == revision)
        with self.reading() as connection:
            return tuple(
                MigrationText(row.revision, row.checksum, row.file, row.text, row.attachments)
                for row in connection.execute(query)
            )

    def texts_on_record(self) -> frozenset[tuple[str, str]]:
        """Return the revisions and checksums of the migrations whose texts are recorded."""
        with self.reading() as connection:
            found = connection.execute(select(migration_texts.c.revision, migration_texts.c.checksum))
            return frozenset((row.revision, row.checksum) for row in found)

    def verify_chain(self) -> BrokenRun | None:
        """Return the first run that the hash chain does not account for, None where it accounts for all."""
        with self.reading() as connection:
            linked, total = link_reader(connection), 0
            for table in OF_RUNS:
                total += connection.execute(select(func.count()).select_from(table)).scalar_one()
            total += connection.execute(select(func.count(applied.c.reverted_by))).scalar_one()
            ledger = list(read_table(connection, runs, order="chain_position"))
            return find_broken(ledger, linked, total, head_in(connection))

    def has_run_to(self, generation: str) -> bool:
        """Return whether a recorded run left a generation, or is about to."""
        found = select(runs.c.id).where(runs.c.generation_after == generation, runs.c.status != Status.FAILED.value)
        with self.reading() as connection:
            return connection.execute(found.limit(1)).first() is not None

    def lengths(self) -> dict[str, int]:
        """Return how many rows each table of the ledger has."""
        with self.reading() as connection:
            return {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one() for table in LEDGER
            }

    def all_tags(self) -> dict[str, str]:
        """Return the revision of each tag, sorted by name."""
        with self.reading() as connection:
            return dict(sorted((row.name, row.revision) for row in connection.execute(select(tags))))


def find_run_in(connection: Connection, run_id: str) -> RunRow | None:
    """Return a run, or None where there is none of this id."""
    row = connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
    return None if row is None else run_row(row)


def run_in(connection: Connection, run_id: str) -> RunRow:
    """Return a run; raises UnknownNameError where there is none of this id."""
    row = find_run_in(connection, run_id)
    if row is None:
        raise UnknownNameError(f"the state has no run {run_id}", hint="run `tokmigrate log` to see them")
    return row


def active_run_in(connection: Connection, model_id: int) -> RunRow | None:
    """Return the run that holds a model now, or None."""
    row = connection.execute(select(runs).where(runs.c.model_id == model_id, is_active())).one_or_none()
    return None if row is None else run_row(row)


def list_applied_in(connection: Connection, model_id: int) -> tuple[AppliedRow, ...]:
    """Return the revisions that are applied to a model, in order."""
    found = connection.execute(
        select(applied)
        .where(applied.c.model_id == model_id, applied.c.reverted_by.is_(None))
        .order_by(applied.c.position)
    )
    return tuple(build_applied_row(row) for row in found)


def run_row(row: Row[Any]) -> RunRow:
    """Return a row of `runs` as a value."""
    return RunRow(
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
        provenance=Provenance(row.user_name, row.host, row.pid, row.tool_version, row.libraries, row.git_commit),
        started=row.started,
        finished=row.finished,
        duration_s=row.duration_s,
        error=row.error,
        payload=row.outcome,
    )


def is_active() -> ColumnElement[bool]:
    """Return the condition that a run is active."""
    return runs.c.status.in_([status.value for status in Status if status.active])


def build_applied_row(row: Row[Any]) -> AppliedRow:
    """Return a row of `applied` as a value."""
    return AppliedRow(
        number=row.number,
        model_id=row.model_id,
        run_id=row.run_id,
        origin=Origin(row.origin),
        record=AppliedRecord(
            revision=row.revision,
            position=row.position,
            checksum=row.checksum,
            message=row.message,
            undo=row.undo_record,
            digests_before=row.digests_before,
            digests_after=row.digests_after,
        ),
        applied_at=row.applied_at,
        reverted_by=row.reverted_by,
    )


def token_row(row: Row[Any]) -> TokenRow:
    """Return a row of `token_events` as a value."""
    return TokenRow(
        number=row.number,
        model_id=row.model_id,
        run_id=row.run_id,
        event=TokenEvent(
            revision=row.revision,
            event=TokenEventType(row.event_type),
            token=row.token,
            token_id=row.token_id,
            old_id=row.old_id,
            old_token=row.old_token,
            init=row.init,
            row_fingerprint=row.row_fingerprint,
        ),
        recorded_at=row.recorded_at,
    )


def move_row(row: Row[Any]) -> MoveRow:
    """Return a row of `token_moves` as a value."""
    move = Move(row.start, row.shift, tuple(row.tokens))
    return MoveRow(
        number=row.number,
        model_id=row.model_id,
        run_id=row.run_id,
        event=TokensMoved(row.revision, TokenEventType(row.event_type), move),
        recorded_at=row.recorded_at,
    )


def in_order(single: Iterable[TokenRow], together: Iterable[tuple[int, MoveRow]]) -> Iterator[TokenRow | MoveRow]:
    """Yield single events and moves in one order: each move after the event whose number stands with it."""
    rows: list[tuple[tuple[int, int], TokenRow | MoveRow]] = [((row.number, 0), row) for row in single]
    rows += [((after, row.number), row) for after, row in together]
    return (row for _, row in sorted(rows, key=lambda placed: placed[0]))


def expand_moves(rows: Iterable[TokenRow | MoveRow]) -> Iterator[TokenRow]:
    """Yield a row for each token, in the order of `rows`."""
    for row in rows:
        if isinstance(row, TokenRow):
            yield row
        else:
            yield from row.each()
