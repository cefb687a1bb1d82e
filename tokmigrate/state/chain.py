"""The hash chain of a ledger table: what was once recorded cannot be changed or dropped unnoticed.

The hash of a row is BLAKE3 over the canonical JSON list of [version, table, {column: stored value}],
where the columns are all but the hash itself and those that are set later; `previous_hash` is among
them. The chain shows accidents and careless edits: who can write the database and knows this format
can make a new chain.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from blake3 import blake3
from sqlalchemy import Column, ColumnElement, Connection, Table, Text, insert, select, true, type_coerce, update
from sqlalchemy.types import TypeDecorator

from tokmigrate.state.columns import canonical_json
from tokmigrate.state.rows import BrokenRow
from tokmigrate.state.schema import SET_ONCE, chains

VERSION = 1
START = ""
_BATCH = 1000


def append(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Add `rows` to a ledger table, numbered and chained, within the open transaction.

    Args:
        connection: A connection that holds the write lock.
        table: A table of the ledger.
        rows: The columns of each row, without `number`, `previous_hash` and `hash`.
    """
    if not rows:
        return
    number, head = _end(connection, table)
    chained = []
    for row in rows:
        number += 1
        full = {**row, "number": number, "previous_hash": head}
        head = _hash(table, {c.name: _stored(connection, c, full.get(c.name)) for c in _hashed(table)})
        chained.append({**full, "hash": head})
    connection.execute(insert(table), chained)
    connection.execute(update(chains).where(chains.c.name == table.name).values(length=number, head=head))


def length(connection: Connection, table: Table) -> int:
    """Return how many rows a ledger table has, as its chain says."""
    return _end(connection, table)[0]


def first_broken(connection: Connection, table: Table) -> BrokenRow | None:
    """Return the first row of a ledger table that its chain does not account for, or None."""
    return broken_in(table, stored_rows(connection, table), _end(connection, table))


def stored_rows(
    connection: Connection, table: Table, wanted: ColumnElement[bool] | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table by number, or else by its first column, each value as it is stored.

    Args:
        connection: A connection.
        table: The table.
        wanted: Which rows; all if None.
    """
    columns = list(table.columns)
    order = next((column for column in columns if column.name == "number"), columns[0])
    found = connection.execute(
        select(*(_raw(column) for column in columns)).where(true() if wanted is None else wanted).order_by(order),
        execution_options={"yield_per": _BATCH},
    )
    for values in found:
        yield dict(zip((column.name for column in columns), values, strict=True))


def broken_in(table: Table, rows: Iterable[Mapping[str, Any]], end: tuple[int, str]) -> BrokenRow | None:
    """Return the first of the rows of a ledger table that its chain does not account for, or None.

    Args:
        table: The table.
        rows: Its rows by number, each value as it is stored.
        end: How many rows there are, and the hash of the last one.
    """
    hashed = [column.name for column in _hashed(table)]
    number, head = 0, START
    for row in rows:
        number += 1
        stored = {name: row.get(name) for name in hashed}
        if stored["number"] != number:
            return BrokenRow(table.name, number, "the row is missing")
        if stored["previous_hash"] != head:
            return BrokenRow(table.name, number, "the row does not follow the one before it")
        if _hash_or_none(table, stored) != row.get("hash"):
            return BrokenRow(table.name, number, "the row was edited")
        head = row["hash"]
    count, last = end
    if number < count:
        return BrokenRow(table.name, number + 1, "the row is missing")
    if number > count:
        return BrokenRow(table.name, count + 1, "the row was not recorded by tokmigrate")
    if head != last:
        return BrokenRow(table.name, number, "the end of the chain was edited")
    return None


def _end(connection: Connection, table: Table) -> tuple[int, str]:
    end = connection.execute(select(chains.c.length, chains.c.head).where(chains.c.name == table.name)).one_or_none()
    return (end.length, end.head) if end else (0, START)


def _hashed(table: Table) -> list[Column[Any]]:
    return [column for column in table.columns if column.name != "hash" and column.name not in SET_ONCE]


def _raw(column: Column[Any]) -> Any:
    """Select what is stored, so that a value that no longer parses is found and not raised."""
    return type_coerce(column, Text()).label(column.name) if isinstance(column.type, TypeDecorator) else column


def _stored(connection: Connection, column: Column[Any], value: Any) -> Any:
    process = getattr(column.type, "process_bind_param", None)
    return process(value, connection.dialect) if process else value


def _hash(table: Table, stored: Mapping[str, Any]) -> str:
    return blake3(canonical_json([VERSION, table.name, stored]).encode()).hexdigest()


def _hash_or_none(table: Table, stored: Mapping[str, Any]) -> str | None:
    try:
        return _hash(table, stored)
    except (TypeError, ValueError):
        return None
