"""Ledgers of other workspaces, kept in this one's: their rows as they are stored there, chained here once more.

A ledger is known by its first operation, whose id is random. What was imported is not imported again; a row that
changed there since (a run that ended, a revision that was taken back) is added, and counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Connection, Table, select
from sqlalchemy.dialects.sqlite import dialect as any_dialect
from sqlalchemy.types import TypeDecorator

from tokmigrate.errors import DriftError, UsageError
from tokmigrate.state import chain
from tokmigrate.state.exported import Exported, Stored
from tokmigrate.state.ledger import State
from tokmigrate.state.places import place_of
from tokmigrate.state.queries import applied_row, each_token, in_order, move_row, operation_row, token_row
from tokmigrate.state.reading import there
from tokmigrate.state.rows import AppliedRow, ModelRow, OperationRow, Status, TokenRow
from tokmigrate.state.schema import SET_ONCE, applied, imported, models, moves, operations, tokens
from tokmigrate.state.who import identify

_KEPT: Mapping[str, tuple[Table, str]] = {
    "models": (models, "id"),
    "operations": (operations, "id"),
    "applied": (applied, "number"),
    "tokens": (tokens, "number"),
    "moves": (moves, "number"),
}

_START = "workspace"


@dataclass(frozen=True)
class ImportedLedger:
    """A ledger of another workspace, as of the last time that it was imported.

    Args:
        id: The id of its first operation.
        source: Where it was imported from the last time.
        models: Its models; their numbers are its own.
        operations: Its runs, the earliest first.
        applied: Its applied revisions.
        tokens: Its token events.
    """

    id: str
    source: str
    models: tuple[ModelRow, ...]
    operations: tuple[OperationRow, ...]
    applied: tuple[AppliedRow, ...]
    tokens: tuple[TokenRow, ...]


def import_ledger(state: State, ledger: Exported, source: str) -> Mapping[str, int]:
    """Keep a ledger of another workspace.

    Args:
        state: The state that takes it.
        ledger: The whole ledger.
        source: Where it comes from, without a password.

    Returns:
        How many rows of each table are new.

    Raises:
        DriftError: Its chain is broken, or it was rewritten since it was imported.
        UsageError: It is empty, or this workspace's own.
    """
    if ledger.ledger is None:
        raise UsageError("the ledger is empty: nothing was run there yet", where=source)
    broken = ledger.broken()
    if broken is not None:
        raise DriftError(
            f"row {broken.number} of '{broken.table}' in the ledger: {broken.reason}",
            where=source,
            hint="nothing was imported; take the ledger from its workspace, or from a backup of it",
        )
    _check_readable(ledger, source)
    who, moment = identify(state.workspace), datetime.now(UTC)
    with state.writing() as connection:
        own = connection.execute(select(operations.c.id).order_by(operations.c.number).limit(1)).scalar()
        if own == ledger.ledger:
            raise UsageError("that is the ledger of this workspace itself", where=source)
        known = _latest(connection, ledger.ledger)
        new: list[dict[str, Any]] = []
        for name, (_, key) in _KEPT.items():
            for row in _kept(ledger, name):
                held = known.get((name, str(row[key])))
                if held is not None:
                    _check_same(name, held, row, source)
                if held != row:
                    new.append(
                        {
                            "ledger": ledger.ledger,
                            "table_name": name,
                            "key": str(row[key]),
                            "content": row,
                            "source": source,
                            "imported_by": f"{who.user}@{who.host}",
                            "imported_at": moment,
                        }
                    )
        chain.append(connection, imported, new)
    return {name: sum(row["table_name"] == name for row in new) for name in _KEPT}


def imported_ledgers(state: State) -> tuple[ImportedLedger, ...]:
    """Return the ledgers of other workspaces, in the order in which they came."""
    with state.reading() as connection:
        if not there(connection, [imported]):
            return ()
        sources: dict[str, str] = {}
        for row in connection.execute(select(imported.c.ledger, imported.c.source).order_by(imported.c.number)):
            sources[row.ledger] = row.source
        return tuple(_ledger(connection, name, source) for name, source in sources.items())


def _kept(ledger: Exported, name: str) -> Iterator[Stored]:
    """Yield the rows of a table as they are kept here: as stored there, and of a model where its path starts from."""
    for row in ledger.rows[name]:
        yield {**row, _START: ledger.workspace} if name == models.name and ledger.workspace else row


def _ledger(connection: Connection, name: str, source: str) -> ImportedLedger:
    held = _latest(connection, name)

    def rows(table: Table) -> Iterator[Any]:
        return (_decoded(table, content) for (kind, _), content in held.items() if kind == table.name)

    return ImportedLedger(
        name,
        source,
        tuple(
            _model_row(_decoded(models, content), content.get(_START))
            for (kind, _), content in held.items()
            if kind == models.name
        ),
        tuple(sorted((operation_row(row) for row in rows(operations)), key=lambda row: row.number)),
        tuple(sorted((applied_row(row) for row in rows(applied)), key=lambda row: row.number)),
        tuple(
            each_token(
                in_order(
                    sorted((token_row(row) for row in rows(tokens)), key=lambda row: row.number),
                    sorted(((row.after_token, move_row(row)) for row in rows(moves)), key=lambda each: each[1].number),
                )
            )
        ),
    )


def _latest(connection: Connection, ledger: str) -> dict[tuple[str, str], Stored]:
    found = connection.execute(
        select(imported.c.table_name, imported.c.key, imported.c.content)
        .where(imported.c.ledger == ledger)
        .order_by(imported.c.number)
    )
    return {(row.table_name, row.key): row.content for row in found}


def _check_same(table: str, held: Stored, row: Stored, source: str) -> None:
    """Raise DriftError where a row of the other ledger that cannot change is not the one that was imported."""
    if table == operations.name:
        is_same = Status(held["status"]).active or held == row
    elif table == models.name:
        is_same = True
    else:
        is_same = all(
            held.get(name) == row.get(name) or (name in SET_ONCE and held.get(name) is None) for name in {*held, *row}
        )
    if not is_same:
        raise DriftError(
            f"row {row['number']} of '{table}' is not the one that was imported from this ledger before",
            where=source,
            hint="it is an older copy, or somebody made that ledger anew; what was imported before is kept",
        )


def _check_readable(ledger: Exported, source: str) -> None:
    """Raise UsageError where a row does not stand for what its table holds, or is there twice."""
    for name, (table, key) in _KEPT.items():
        if len({row[key] for row in ledger.rows[name]}) < len(ledger.rows[name]):
            raise UsageError(f"two rows of '{name}' have one {key}", where=source)
        for row in ledger.rows[name]:
            try:
                _AS_VALUE[name](_decoded(table, row))
            except (AttributeError, KeyError, TypeError, ValueError) as error:
                raise UsageError(f"a row of '{name}' cannot be read: {error}", where=source) from error


def _decoded(table: Table, stored: Stored) -> Any:
    """Return a stored row with the values that it stands for."""
    values: dict[str, Any] = {}
    for column in table.columns:
        value = stored.get(column.name)
        if isinstance(column.type, TypeDecorator):
            value = column.type.process_result_value(value, any_dialect())
        values[column.name] = value
    return SimpleNamespace(**values)


def _model_row(row: Any, start: str | None = None) -> ModelRow:
    path = place_of(str(row.path), Path(start) if start else None)
    return ModelRow(int(row.id), str(row.name), path, str(row.lineage), row.created)


_AS_VALUE: Mapping[str, Callable[[Any], object]] = {
    "models": _model_row,
    "operations": operation_row,
    "applied": applied_row,
    "tokens": token_row,
    "moves": move_row,
}
