"""Upgrading a state database of an older schema, within one transaction.

Schema 1 had the tables `operations`, `tokens` and `moves`, and a hash chain in each table. Its rows are read as they
are stored, its tables are dropped, and the rows are written into the tables of today; the runs are chained in the order
in which they ended. Its own chains are not checked: `log --verify-chain` of the older version does that.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from sqlalchemy import Connection, Table, inspect, text, update

from tokmigrate.errors import RecoveryNeededError
from tokmigrate.formats import LEDGER_EXPORT, STATE
from tokmigrate.state.hash_chain import START, hash_run, seal_run
from tokmigrate.state.rows import Status
from tokmigrate.state.schema import (
    OF_RUNS,
    applied,
    imported_ledgers,
    meta,
    migration_texts,
    models,
    runs,
    token_events,
    token_moves,
)

Stored = dict[str, Any]

# The tables of schema 1 that change, those that refer to others first, and the tables that their rows go to.
_TABLES: Mapping[str, Table | None] = {
    "endings": None,
    "identities": None,
    "imported": None,
    "chains": None,
    "moves": token_moves,
    "tokens": token_events,
    "applied": applied,
    "migration_texts": migration_texts,
    "operations": runs,
}
_COLUMNS = {
    "operation_id": "run_id",
    "who": "user_name",
    "payload": "outcome",
    "undo": "undo_record",
    "event": "event_type",
    "row_digest": "row_fingerprint",
    "texts": "tokens",
    "after_token": "after_event",
}


def upgrade_schema(connection: Connection, where: str) -> None:
    """Bring a database of schema 1 to the schema of today.

    Raises:
        RecoveryNeededError: A run of the older version is not finished.
    """
    held = {name: _rows(connection, name) for name in _TABLES}
    unfinished = [row["id"] for row in held["operations"] if Status(row["status"]).active]
    if unfinished:
        raise RecoveryNeededError(
            f"run {unfinished[0]} of an older version of tokmigrate is not finished, and the state cannot be upgraded",
            where=where,
            hint="finish it with the version that began it: its `tokmigrate recover`",
        )
    for name in _TABLES:
        connection.execute(text(f"DROP TABLE IF EXISTS {name}"))
    for name, table in reversed(list(_TABLES.items())):
        if table is not None:
            table.create(connection, checkfirst=False)
            _insert(connection, table, [_rename_columns(table, row) for row in held[name]])
    imported_ledgers.create(connection, checkfirst=False)
    for run in _in_order(held["operations"]):
        seal_run(connection, run["id"])
    _insert(connection, imported_ledgers, list(_exports(held["imported"])))
    connection.execute(update(meta).where(meta.c.key == "schema_version").values(value=str(STATE.version)))


def _rows(connection: Connection, name: str) -> list[Stored]:
    if not inspect(connection).has_table(name):
        return []
    return [dict(row._mapping) for row in connection.execute(text(f"SELECT * FROM {name}"))]  # noqa: S608


def _rename_columns(table: Table, row: Mapping[str, Any]) -> Stored:
    named = {_COLUMNS.get(name, name): value for name, value in row.items()}
    return {column.name: named.get(column.name) for column in table.columns}


def _insert(connection: Connection, table: Table, rows: list[Stored]) -> None:
    """Insert rows whose values are as they are stored."""
    if rows:
        columns = [column.name for column in table.columns]
        names, places = ", ".join(f'"{name}"' for name in columns), ", ".join(f":{name}" for name in columns)
        connection.execute(text(f"INSERT INTO {table.name} ({names}) VALUES ({places})"), rows)  # noqa: S608


def _in_order(ended: Iterable[Stored]) -> list[Stored]:
    """Return runs in the order in which they ended, the same for a ledger and for a copy that was imported."""
    return sorted(
        (row for row in ended if not Status(row["status"]).active),
        key=lambda row: (row["finished"] or row["started"], row["number"]),
    )


def _exports(rows: list[Stored]) -> Iterator[Stored]:
    """Yield the ledgers that were imported, which schema 1 keeps row by row, as exports."""
    ledgers: dict[str, list[Stored]] = {}
    for row in sorted(rows, key=lambda row: row["number"]):
        ledgers.setdefault(row["ledger"], []).append(row)
    for ledger, records in ledgers.items():
        held: dict[str, dict[str, Stored]] = {}
        for row in records:
            held.setdefault(row["table_name"], {})[row["key"]] = json.loads(row["content"])
        workspace = next((row.get("workspace") for row in held.get("models", {}).values()), None)
        sources = {"models": models, **{name: table for name, table in _TABLES.items() if table in (runs, *OF_RUNS)}}
        tables = {
            table.name: [_rename_columns(table, row) for row in held.get(name, {}).values()]
            for name, table in sources.items()
            if table is not None
        }
        head = _chain(tables)
        lines: list[Stored] = [
            {"format": LEDGER_EXPORT.version, "ledger": ledger, "workspace": workspace, "head": head},
            *({"table": name, "row": row} for name, each in tables.items() for row in each),
        ]
        values = {name: records[-1][name] for name in ("source", "imported_by", "imported_at")}
        yield {"ledger": ledger, **values, "export": "".join(json.dumps(line) + "\n" for line in lines)}


def _chain(tables: Mapping[str, list[Stored]]) -> str:
    """Chain the runs of an imported ledger, and return the last hash."""
    previous = START
    for position, run in enumerate(_in_order(tables[runs.name]), 1):
        rows = [(table.name, row) for table in OF_RUNS for row in tables[table.name] if row["run_id"] == run["id"]]
        reverted = sorted(row["number"] for row in tables[applied.name] if row["reverted_by"] == run["id"])
        run |= {"chain_position": position, "previous_hash": previous}
        previous = run["hash"] = hash_run(run, (rows, reverted))
    return previous
