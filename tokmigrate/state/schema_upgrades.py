"""Upgrading a state database of an older schema, within one transaction.

Schema 1 had the tables `operations`, `tokens` and `moves`, and a hash chain in each table of the ledger: BLAKE3 over
the canonical JSON of `[1, table, {column: stored value}]` without `hash` and `reverted_by`; one more table held the
digest of each run that had ended, and the revisions that it undid. The chains are checked; then the rows are read as
they are stored, the tables are dropped, and the rows are written into the tables of today. The runs are chained in the
order in which they ended.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from blake3 import blake3
from sqlalchemy import Connection, Table, inspect, text, update

from tokmigrate.errors import DriftError, RecoveryNeededError
from tokmigrate.formats import STATE
from tokmigrate.state.hash_chain import seal_run
from tokmigrate.state.rows import Status
from tokmigrate.state.schema import (
    OF_RUNS,
    Stored,
    applied,
    canonical_json,
    imported_ledgers,
    insert_stored,
    meta,
    migration_texts,
    models,
    runs,
    token_events,
    token_moves,
)
from tokmigrate.state.transfer import LedgerExport, export_ledger, open_export

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
    """Bring a database of schema 1 to that of today; raises RecoveryNeededError for an unfinished run.

    Raises DriftError where a hash chain is broken.
    """
    held = {name: _rows(connection, name) for name in _TABLES}
    unfinished = [row["id"] for row in held["operations"] if Status(row["status"]).active]
    if unfinished:
        raise RecoveryNeededError(
            f"run {unfinished[0]} of an older version of tokmigrate is not finished, and the state cannot be upgraded",
            where=where,
            hint="finish it with the version that began it: its `tokmigrate recover`",
        )
    broken = _find_broken(held)
    if broken is not None:
        raise DriftError(
            f"the state of an older version was edited, and cannot be upgraded: {broken}",
            where=where,
            hint="put a backup of the state in its place; or delete it, and record the models with `tokmigrate stamp`",
        )
    for name in _TABLES:
        connection.execute(text(f"DROP TABLE IF EXISTS {name}"))
    for name, table in reversed(list(_TABLES.items())):
        if table is not None:
            table.create(connection, checkfirst=False)
            insert_stored(connection, table, [_rename_columns(table, row) for row in held[name]])
    _seal_all(connection, held["operations"])
    imported_ledgers.create(connection, checkfirst=False)
    insert_stored(connection, imported_ledgers, list(_exports(held["imported"])))
    connection.execute(update(meta).where(meta.c.key == "schema_version").values(value=str(STATE.version)))


def _find_broken(held: Mapping[str, list[Stored]]) -> str | None:
    """Return the first row of schema 1 that its chains do not account for, None where they account for all."""
    ends = {row["name"]: (row["length"], row["head"]) for row in held["chains"]}
    for name, rows in held.items():
        if name in ("chains", "operations"):
            continue
        previous = ""
        for number, row in enumerate(sorted(rows, key=lambda row: str(row["number"]).zfill(20)), 1):
            if (row["number"], row["previous_hash"], row["hash"]) != (number, previous, _digest(name, row)):
                return f"row {number} of '{name}'"
            previous = row["hash"]
        if ends.get(name, (0, "")) != (len(rows), previous):
            return f"the end of '{name}'"
    if "endings" not in ends:
        # The first versions had no such table.
        return None
    ended = {row["operation_id"]: row for row in held["endings"]}
    for run in held["operations"]:
        if run["id"] not in ended or _digest("operations", run) != ended[run["id"]]["digest"]:
            return f"run {run['id']}"
    undone = {number: run for run, end in ended.items() for number in json.loads(end["reverted"])}
    edited = [row["revision"] for row in held["applied"] if row["reverted_by"] != undone.get(row["number"])]
    if edited:
        return f"the run that undid revision {edited[0]}"
    return None if len(ended) == len(held["operations"]) else "a run is missing"


def _digest(name: str, row: Stored) -> str:
    hashed = {column: value for column, value in row.items() if column not in ("hash", "reverted_by")}
    try:
        return blake3(canonical_json([1, name, hashed]).encode()).hexdigest()
    except (TypeError, ValueError):
        return "never the hash of a row"


def _rows(connection: Connection, name: str) -> list[Stored]:
    if not inspect(connection).has_table(name):
        return []
    return [dict(row._mapping) for row in connection.execute(text(f"SELECT * FROM {name}"))]  # noqa: S608


def _rename_columns(table: Table, row: Mapping[str, Any]) -> Stored:
    named = {_COLUMNS.get(name, name): value for name, value in row.items()}
    return {column.name: named.get(column.name) for column in table.columns}


def _seal_all(connection: Connection, ended: Iterable[Stored]) -> None:
    """Chain runs in the order in which they ended, the same for a ledger and for a copy that was imported."""
    for row in sorted(ended, key=lambda row: (row["finished"] or row["started"], row["number"])):
        if not Status(row["status"]).active:
            seal_run(connection, row["id"])


def _exports(rows: list[Stored]) -> Iterator[Stored]:
    """Yield the ledgers that were imported, which schema 1 keeps row by row, as exports."""
    ledgers: dict[str, list[Stored]] = {}
    for row in sorted(rows, key=lambda row: row["number"]):
        ledgers.setdefault(row["ledger"], []).append(row)
    sources = {"models": models, **{name: table for name, table in _TABLES.items() if table in (runs, *OF_RUNS)}}
    for ledger, records in ledgers.items():
        held: dict[str, dict[str, Stored]] = {}
        for row in records:
            held.setdefault(row["table_name"], {})[row["key"]] = json.loads(row["content"])
        tables = {
            table.name: [_rename_columns(table, row) for row in held.get(name, {}).values()]
            for name, table in sources.items()
            if table is not None
        }
        workspace = next((row.get("workspace") for row in held.get("models", {}).values()), None)
        values = {name: records[-1][name] for name in ("source", "imported_by", "imported_at")}
        opened = open_export(LedgerExport(ledger, {**tables, migration_texts.name: []}, workspace=workspace), "")
        with opened.engine.begin() as memory:
            _seal_all(memory, tables[runs.name])
        yield {"ledger": ledger, **values, "export": "".join(export_ledger(opened).json_lines())}
