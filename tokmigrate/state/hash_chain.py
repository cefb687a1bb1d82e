"""The hash chain over the runs of a ledger: it shows what was changed by accident, or in part.

When a run ends it gets a hash: BLAKE3 over its row, the rows that it left in `applied`, `token_events` and
`token_moves`, the numbers of the rows of `applied` that it undid, and the hash of the run that ended before it
(empty for the first). Each of these is a line of canonical JSON (sorted keys, no spaces, ASCII), ended by a line feed:
`[table, {column: stored value}]` without `hash` and `reverted_by`, the rows of a table by number; then
`["reverted", [number, ...]]`. `meta` holds the last hash.

A user who can write the database can make a new chain, or put an older copy in its place. Then the stamps help:
`tokmigrate.audit.ledger_check` compares them with the revisions that the ledger has. The rows of models, tags, texts of
migrations and a run that has not ended are not in the chain; a text is checked by the checksum of its migration, which
is in it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from blake3 import blake3
from sqlalchemy import ColumnElement, Connection, Table, Text, func, insert, select, true, type_coerce, update
from sqlalchemy.types import TypeDecorator

from tokmigrate.state.rows import BrokenRun, Status
from tokmigrate.state.schema import OF_RUNS, applied, canonical_json, meta, runs

START = ""
_HEAD = "chain_head"
_BATCH = 1000
_NOT_HASHED = {"hash", "reverted_by"}
_ACTIVE = frozenset(status.value for status in Status if status.active)

Stored = Mapping[str, Any]
"""The columns of a row, each as it is stored."""

Linked = tuple[Sequence[tuple[str, Stored]], Sequence[int]]
"""The rows of a run with their tables, and the numbers of the rows of `applied` that it undid."""


def seal_run(connection: Connection, run_id: str) -> None:
    """Add a run that has ended to the chain, within the transaction that ends it."""
    position = connection.execute(select(func.max(runs.c.chain_position))).scalar() or 0
    previous = head_in(connection)
    (row,) = read_table(connection, runs, runs.c.id == run_id)
    link = {"chain_position": position + 1, "previous_hash": previous}
    digest = hash_run({**row, **link}, link_reader(connection)(run_id))
    connection.execute(update(runs).where(runs.c.id == run_id).values(**link, hash=digest))
    if connection.execute(update(meta).where(meta.c.key == _HEAD).values(value=digest)).rowcount == 0:
        connection.execute(insert(meta).values(key=_HEAD, value=digest))


def head_in(connection: Connection) -> str:
    """Return the hash of the run that ended last."""
    return connection.execute(select(meta.c.value).where(meta.c.key == _HEAD)).scalar() or START


def link_reader(connection: Connection) -> Callable[[str], Linked]:
    """Return what finds the rows of a run in a database."""

    def linked(run_id: str) -> Linked:
        rows = [
            (table.name, row) for table in OF_RUNS for row in read_table(connection, table, table.c.run_id == run_id)
        ]
        taken_back = select(applied.c.number).where(applied.c.reverted_by == run_id).order_by(applied.c.number)
        return rows, list(connection.execute(taken_back).scalars())

    return linked


def find_broken(ledger: Iterable[Stored], linked: Callable[[str], Linked], total: int, head: str) -> BrokenRun | None:
    """Return the first run that the chain does not account for, or None.

    Args:
        ledger: The rows of `runs`: those in the chain in its order, then the others.
        linked: Finds the rows of a run.
        total: How many rows there are of runs, plus how many of them were undone.
        head: The hash of the run that ended last.
    """
    position, previous, last = 0, START, ""
    for run in ledger:
        rows, reverted = linked(run["id"])
        total -= len(rows) + len(reverted)
        if run["hash"] is None:
            if run["status"] not in _ACTIVE or rows or reverted:
                return BrokenRun(run["id"], "it was edited, or not recorded by tokmigrate")
            continue
        position += 1
        if run["chain_position"] != position or run["previous_hash"] != previous:
            return BrokenRun(run["id"], "the run that ended before it is missing, or was edited")
        if _hash_or_none(run, (rows, reverted)) != run["hash"]:
            return BrokenRun(run["id"], "its row, or a row that it left, was edited, added or removed")
        previous, last = run["hash"], run["id"]
    if previous != head:
        return BrokenRun(last, "runs that ended after it are missing")
    return BrokenRun(last, "there are rows that belong to no run") if total else None


def read_table(
    connection: Connection, table: Table, wanted: ColumnElement[bool] | None = None, order: str | None = None
) -> Iterator[dict[str, Any]]:
    """Yield the rows of a table, each value as it is stored.

    Args:
        connection: A connection.
        table: The table.
        wanted: Which rows; all if None.
        order: The column that they are sorted by, those without a value last; default: `number`, or else the first.
    """
    columns = list(table.columns)
    by = table.columns[order or ("number" if "number" in table.columns else columns[0].name)]
    found = connection.execute(
        select(*(_raw(column) for column in columns))
        .where(true() if wanted is None else wanted)
        .order_by(by.nulls_last()),
        execution_options={"yield_per": _BATCH},
    )
    for values in found:
        yield dict(zip((column.name for column in columns), values, strict=True))


def _raw(column: ColumnElement[Any]) -> Any:
    """Select what is stored, so that a value that no longer parses is found and not raised."""
    return type_coerce(column, Text()).label(column.key) if isinstance(column.type, TypeDecorator) else column


def _hash_or_none(run: Stored, linked: Linked) -> str | None:
    try:
        return hash_run(run, linked)
    except (TypeError, ValueError):
        return None


def hash_run(run: Stored, linked: Linked) -> str:
    """Return the hash of a run; its row has its position in the chain."""
    rows, reverted = linked
    digest = blake3()
    for table, row in ((runs.name, run), *rows):
        held = {name: value for name, value in row.items() if name not in _NOT_HASHED}
        digest.update(f"{canonical_json([table, held])}\n".encode())
    digest.update(f"{canonical_json(['reverted', list(reverted)])}\n".encode())
    return digest.hexdigest()
