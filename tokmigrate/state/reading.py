"""Asking the state: nothing here writes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, Table, func, inspect, select

from tokmigrate.state import chain
from tokmigrate.state.connection import Database
from tokmigrate.state.endings import first_unsealed
from tokmigrate.state.identities import first_unlike
from tokmigrate.state.places import model_row, row_of_place
from tokmigrate.state.queries import (
    active_in,
    applied_in,
    applied_row,
    each_token,
    find_operation_in,
    in_order,
    move_row,
    operation_row,
    token_row,
)
from tokmigrate.state.rows import (
    AppliedRow,
    BrokenRow,
    MigrationText,
    ModelRow,
    MoveRow,
    OperationRow,
    Status,
    TokenRow,
)
from tokmigrate.state.schema import (
    LATER,
    LEDGER,
    applied,
    endings,
    identities,
    migration_texts,
    models,
    moves,
    operations,
    tags,
    tokens,
)


def there(connection: Connection, wanted: Sequence[Table]) -> list[Table]:
    """Return those tables that the database has: one that was only read since an older version lacks some."""
    return [table for table in wanted if table not in LATER or inspect(connection).has_table(table.name)]


@dataclass(frozen=True)
class Readable(Database):
    """A state database that can be asked."""

    def known_models(self) -> tuple[ModelRow, ...]:
        """Return every model on record, the oldest first."""
        with self.reading() as connection:
            found = connection.execute(select(models).order_by(models.c.id))
            return tuple(model_row(row, self.moves_with) for row in found)

    def model_at(self, path: Path, generation: str | None) -> ModelRow | None:
        """Return the model at a place, None where it is not on record.

        Args:
            path: Its directory; the resolved path is what tells models apart.
            generation: The generation that its stamp names, by which one is known that was moved there; None where it
                has no stamp.
        """
        with self.reading() as connection:
            row = row_of_place(connection, path, self.moves_with, generation)
        return None if row is None else model_row(row, self.moves_with)

    def operation(self, operation_id: str) -> OperationRow | None:
        """Return an operation, or None where there is none of this id."""
        with self.reading() as connection:
            return find_operation_in(connection, operation_id)

    def active(self, model: ModelRow) -> OperationRow | None:
        """Return the operation that holds a model now, or None."""
        with self.reading() as connection:
            return active_in(connection, model.id)

    def applied_now(self, model: ModelRow) -> tuple[AppliedRow, ...]:
        """Return the revisions that are applied to a model, in order."""
        with self.reading() as connection:
            return applied_in(connection, model.id)

    def applied_ever(self, model: ModelRow) -> tuple[AppliedRow, ...]:
        """Return every application of a revision to a model, taken back or not, as recorded."""
        with self.reading() as connection:
            found = connection.execute(select(applied).where(applied.c.model_id == model.id).order_by(applied.c.number))
            return tuple(applied_row(row) for row in found)

    def operations(self, model: ModelRow | None, limit: int | None) -> tuple[OperationRow, ...]:
        """Return operations, the latest first: of one model or of all, all of them or `limit`."""
        query = select(operations).order_by(operations.c.number.desc()).limit(limit)
        if model is not None:
            query = query.where(operations.c.model_id == model.id)
        with self.reading() as connection:
            return tuple(operation_row(row) for row in connection.execute(query))

    def token_rows(self, model: ModelRow) -> tuple[TokenRow, ...]:
        """Return what befell single tokens of a model, the earliest first: all but the moves of several together."""
        query = select(tokens).where(tokens.c.model_id == model.id).order_by(tokens.c.number)
        with self.reading() as connection:
            return tuple(token_row(row) for row in connection.execute(query))

    def token_records(self, model: ModelRow) -> Iterator[TokenRow | MoveRow]:
        """Return what befell the tokens of a model, the earliest first, those that moved together as one."""
        query = select(moves).where(moves.c.model_id == model.id).order_by(moves.c.number)
        single = self.token_rows(model)
        with self.reading() as connection:
            found = connection.execute(query) if there(connection, [moves]) else ()
            together = [(row.after_token, move_row(row)) for row in found]
        return in_order(single, together)

    def token_events(self, model: ModelRow, token: str | None = None) -> tuple[TokenRow, ...]:
        """Return what befell each token of a model, the earliest first.

        Args:
            model: The model.
            token: Only events of this text, also those that renamed it.
        """
        rows = each_token(self.token_records(model))
        return tuple(row for row in rows if token is None or token in (row.event.token, row.event.old_token))

    def migration_texts(self, revision: str | None = None) -> tuple[MigrationText, ...]:
        """Return the migrations as they were applied, the earliest first: those of one revision, or all."""
        query = select(migration_texts).order_by(migration_texts.c.number)
        if revision is not None:
            query = query.where(migration_texts.c.revision == revision)
        with self.reading() as connection:
            if not there(connection, [migration_texts]):
                return ()
            return tuple(
                MigrationText(row.revision, row.checksum, row.file, row.text, row.attachments)
                for row in connection.execute(query)
            )

    def texts_on_record(self) -> frozenset[tuple[str, str]]:
        """Return the revisions and checksums of the migrations whose texts are on record."""
        with self.reading() as connection:
            if not there(connection, [migration_texts]):
                return frozenset()
            found = connection.execute(select(migration_texts.c.revision, migration_texts.c.checksum))
            return frozenset((row.revision, row.checksum) for row in found)

    def verify_chain(self) -> BrokenRow | None:
        """Return the first ledger row, or row of a run that ended, that was edited, dropped or slipped in, or None."""
        with self.reading() as connection:
            for table in there(connection, LEDGER):
                broken = chain.first_broken(connection, table)
                if broken is not None:
                    return broken
            if there(connection, [identities]):
                broken = first_unlike(*(chain.stored_rows(connection, table) for table in (models, identities)))
                if broken is not None:
                    return broken
            if not there(connection, [endings]):
                return None
            return first_unsealed(*(chain.stored_rows(connection, table) for table in (operations, applied, endings)))

    def has_left(self, generation: str) -> bool:
        """Return whether a run on record left a generation, or is about to."""
        ended_otherwise = [Status.ABORTED.value, Status.FAILED.value]
        found = select(operations.c.id).where(
            operations.c.generation_after == generation, operations.c.status.not_in(ended_otherwise)
        )
        with self.reading() as connection:
            return connection.execute(found.limit(1)).first() is not None

    def lengths(self) -> dict[str, int]:
        """Return how many rows each table of the ledger has."""
        with self.reading() as connection:
            return {
                table.name: connection.execute(select(func.count()).select_from(table)).scalar_one()
                for table in there(connection, LEDGER)
            }

    def tag(self, name: str) -> str | None:
        """Return the revision that a tag stands for, or None."""
        return self.all_tags().get(name)

    def all_tags(self) -> dict[str, str]:
        """Return the revision of each tag, sorted by name."""
        with self.reading() as connection:
            return dict(sorted((row.name, row.revision) for row in connection.execute(select(tags))))
