"""Ledgers that are exported, and ledgers of other workspaces that are imported.

JSON Lines: the first line is `{"format": 2, "ledger": …, "workspace": …, "head": …}`, each other one
`{"table": …, "row": {column: value}}` with the values as they are stored, a table at a time: `models`, `runs`,
`applied`, `token_events`, `token_moves`, `migration_texts`. CSV has the same rows under the columns of all of them.
`tokmigrate.state.hash_chain` documents the hash of a run; `head` is the last one. Relative paths of models start at
`workspace`.

A ledger is known by its first run, whose id is random. An imported one is kept as its export, the latest of each.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Table, delete, insert, select
from sqlalchemy.dialects.sqlite import dialect as any_dialect
from sqlalchemy.types import TypeDecorator

from tokmigrate.errors import DriftError, UsageError
from tokmigrate.files import read_file
from tokmigrate.formats import LEDGER_EXPORT, check_version
from tokmigrate.state.connection import Database
from tokmigrate.state.hash_chain import START, find_broken, head_in, read_table
from tokmigrate.state.ledger import State
from tokmigrate.state.provenance import identify
from tokmigrate.state.queries import (
    absolute_path,
    build_applied_row,
    expand_moves,
    in_order,
    move_row,
    run_row,
    token_row,
)
from tokmigrate.state.rows import AppliedRow, BrokenRun, ModelRow, RunRow, TokenRow
from tokmigrate.state.schema import OF_RUNS, applied, imported_ledgers, migration_texts, models, runs

_EXPORTED: tuple[Table, ...] = (models, runs, *OF_RUNS, migration_texts)
_COUNTED: tuple[Table, ...] = (models, runs, *OF_RUNS)

Stored = dict[str, Any]
"""The columns of a row, each as it is stored."""


@dataclass(frozen=True)
class LedgerExport:
    """A whole ledger.

    Args:
        ledger: Its id, the id of its first run; None where it has none yet.
        rows: The rows of each table, by the table's name.
        head: The last hash of its chain.
        workspace: The folder that the paths of its models are relative to, None where they are absolute.
    """

    ledger: str | None
    rows: Mapping[str, tuple[Stored, ...]] = field(repr=False)
    head: str = START
    workspace: str | None = None

    def find_broken(self) -> BrokenRun | None:
        """Return the first run that was edited, removed or slipped in, or one of its rows; None for none."""
        held: dict[str, tuple[list[tuple[str, Stored]], list[int]]] = {}
        for table in OF_RUNS:
            for row in sorted(self.rows[table.name], key=lambda row: str(row["number"]).zfill(20)):
                held.setdefault(row["run_id"], ([], []))[0].append((table.name, row))
        for row in self.rows[applied.name]:
            if row["reverted_by"] is not None:
                held.setdefault(row["reverted_by"], ([], []))[1].append(row["number"])
        total = sum(len(rows) + len(reverted) for rows, reverted in held.values())
        ordered = sorted(self.rows[runs.name], key=lambda run: str(run["chain_position"] or "~").zfill(20))
        return find_broken(ordered, lambda run_id: held.get(run_id, ([], [])), total, self.head)

    def json_lines(self) -> Iterator[str]:
        """Yield it as JSON Lines."""
        head = {"format": LEDGER_EXPORT.version, "ledger": self.ledger, "workspace": self.workspace, "head": self.head}
        yield json.dumps(head) + "\n"
        for table, rows in self.rows.items():
            for row in rows:
                yield json.dumps({"table": table, "row": row}) + "\n"

    def csv_lines(self) -> Iterator[str]:
        """Yield it as CSV."""
        columns = dict.fromkeys(column.name for table in _EXPORTED for column in table.columns)
        text = io.StringIO()
        writer = csv.DictWriter(text, ["table", *columns], lineterminator="\n")
        writer.writeheader()
        for table, rows in self.rows.items():
            for row in rows:
                writer.writerow({"table": table, **row})
                yield text.getvalue()
                text.seek(0)
                text.truncate()
        yield text.getvalue()


@dataclass(frozen=True)
class ImportedLedger:
    """A ledger of another workspace, as of the last time that it was imported.

    Args:
        id: The id of its first run.
        source: Where it was imported from.
        models: Its models; their numbers are its own.
        runs: Its runs, the earliest first.
        applied: Its applied revisions.
        tokens: Its token events.
    """

    id: str
    source: str
    models: tuple[ModelRow, ...]
    runs: tuple[RunRow, ...]
    applied: tuple[AppliedRow, ...]
    tokens: tuple[TokenRow, ...]


def export_ledger(database: Database) -> LedgerExport:
    """Return the whole ledger of a state database, as of one moment."""
    with database.reading() as connection:
        rows = {table.name: tuple(read_table(connection, table)) for table in _EXPORTED}
        head = head_in(connection)
    workspace = str(database.moves_with) if database.moves_with else None
    first = next(iter(rows[runs.name]), None)
    return LedgerExport(first["id"] if first else None, rows, head, workspace)


def read_export(path: Path) -> LedgerExport:
    """Return the ledger that `LedgerExport.json_lines` wrote into a file.

    Raises:
        StorageError: The file cannot be read.
        UsageError: It is no such file.
        FormatError: It has the format of another version of tokmigrate.
    """
    try:
        text = read_file(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _no_ledger(str(path), 1) from error
    return _parse_export(text, str(path))


def import_ledger(state: State, ledger: LedgerExport, source: str) -> Mapping[str, int]:
    """Keep a ledger of another workspace, in the place of what was imported of it before.

    Args:
        state: The state that takes it.
        ledger: The whole ledger.
        source: Where it comes from, without a password.

    Returns:
        How many rows of each table are new or changed.

    Raises:
        DriftError: Its chain is broken, or does not go on from what was imported before.
        UsageError: It is empty, or this workspace's own.
    """
    if ledger.ledger is None:
        raise UsageError("the ledger is empty: nothing was run there yet", where=source)
    broken = ledger.find_broken()
    if broken is not None:
        raise DriftError(
            f"the hash chain of the ledger is broken at {broken}",
            where=source,
            hint="nothing was imported; take the ledger from its workspace, or from a backup of it",
        )
    _as_values(ledger, source)
    known = {each.ledger: each for _, each in _exports(state)}.get(ledger.ledger)
    if known is not None and known.head not in (START, *(run["hash"] for run in ledger.rows[runs.name])):
        raise DriftError(
            "the ledger does not go on from what was imported of it before",
            where=source,
            hint="it is an older copy, or that ledger was recreated; what was imported before is kept",
        )
    new = {table.name: _count_new(table, ledger, known) for table in _COUNTED}
    who = identify(state.workspace)
    with state.writing() as connection:
        if connection.execute(select(runs.c.id).order_by(runs.c.number).limit(1)).scalar() == ledger.ledger:
            raise UsageError("that is the ledger of this workspace itself", where=source)
        if any(new.values()):
            connection.execute(delete(imported_ledgers).where(imported_ledgers.c.ledger == ledger.ledger))
            connection.execute(
                insert(imported_ledgers).values(
                    ledger=ledger.ledger,
                    source=source,
                    imported_by=f"{who.user}@{who.host}",
                    imported_at=datetime.now(UTC),
                    export="".join(ledger.json_lines()),
                )
            )
    return new


def read_imported(state: State) -> tuple[ImportedLedger, ...]:
    """Return the ledgers of other workspaces, in the order in which they came.

    Raises:
        DriftError: One was edited in the state so that it cannot be read.
    """
    with _was_edited(state):
        return tuple(_as_values(ledger, source) for source, ledger in _exports(state))


def find_broken_import(state: State) -> tuple[str, BrokenRun] | None:
    """Return where the first imported ledger with a broken chain came from, and the run; None for none.

    Raises:
        DriftError: One was edited in the state so that it cannot be read.
    """
    with _was_edited(state):
        for source, ledger in _exports(state):
            broken = ledger.find_broken()
            if broken is not None:
                return source, broken
    return None


@contextmanager
def _was_edited(state: State) -> Iterator[None]:
    """Raise DriftError where a ledger that was imported cannot be read any more."""
    try:
        yield
    except UsageError as error:
        hint = "put a backup of the state in its place"
        raise DriftError(f"what was imported was edited: {error}", where=state.place, hint=hint) from error


def _exports(state: State) -> Iterator[tuple[str, LedgerExport]]:
    """Yield the imported ledgers, each with where it came from."""
    with state.reading() as connection:
        query = select(imported_ledgers.c.source, imported_ledgers.c.export).order_by(imported_ledgers.c.imported_at)
        held = list(connection.execute(query))
    for row in held:
        yield row.source, _parse_export(row.export, f"the ledger imported from {row.source}")


def _count_new(table: Table, ledger: LedgerExport, known: LedgerExport | None) -> int:
    key = next(iter(table.primary_key)).name
    before = {row[key]: row for row in known.rows[table.name]} if known else {}
    return sum(before.get(row[key]) != row for row in ledger.rows[table.name])


def _as_values(ledger: LedgerExport, source: str) -> ImportedLedger:
    """Return a ledger with the values that its rows stand for; raises UsageError where a row cannot be read."""
    try:
        return _read_rows(ledger, source)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"a row of the ledger cannot be read: {error}", where=source) from error


def _read_rows(ledger: LedgerExport, source: str) -> ImportedLedger:
    start = Path(ledger.workspace) if ledger.workspace else None
    rows = {table.name: [_decode(table, row) for row in ledger.rows[table.name]] for table in _COUNTED}
    known = tuple(
        ModelRow(int(row.id), row.name, absolute_path(row.path, start), row.lineage, row.created)
        for row in rows["models"]
    )
    found = tuple(run_row(row) for row in rows["runs"])
    if len({row.id for row in known}) < len(known):
        raise ValueError("two models have one id")
    if not {row.model_id for row in found} <= {row.id for row in known}:
        raise ValueError("a run names a model that is not in it")
    events = in_order(
        map(token_row, rows["token_events"]), ((row.after_event, move_row(row)) for row in rows["token_moves"])
    )
    by_number = sorted(found, key=lambda row: row.number)
    taken = tuple(build_applied_row(row) for row in rows["applied"])
    return ImportedLedger(str(ledger.ledger), source, known, tuple(by_number), taken, tuple(expand_moves(events)))


def _decode(table: Table, stored: Stored) -> Any:
    """Return a stored row with the values that it stands for."""
    values: dict[str, Any] = {}
    for column in table.columns:
        value = stored[column.name]
        if value is None and not column.nullable:
            raise ValueError(f"{table.name}.{column.name} is missing")
        if isinstance(column.type, TypeDecorator):
            value = column.type.process_result_value(value, any_dialect())
        values[column.name] = value
    return SimpleNamespace(**values)


def _parse_export(text: str, where: str) -> LedgerExport:
    documents = _documents(text.splitlines(), where)
    _, head = next(documents, (1, {}))
    if "ledger" not in head:
        raise _no_ledger(where, 1)
    check_version(LEDGER_EXPORT, head.get("format"), where)
    ledger, workspace, last = (head.get(key) for key in ("ledger", "workspace", "head"))
    if not all(isinstance(value, str | None) for value in (ledger, workspace)) or not isinstance(last, str):
        raise _no_ledger(where, 1)
    rows: dict[str, list[Stored]] = {table.name: [] for table in _EXPORTED}
    columns = {table.name: {column.name for column in table.columns} for table in _EXPORTED}
    for number, held in documents:
        table, row = held.get("table"), held.get("row")
        if not isinstance(row, dict) or not isinstance(table, str) or row.keys() != columns.get(table):
            raise _no_ledger(where, number)
        if not all(isinstance(value, str | int | float | None) for value in row.values()):
            raise _no_ledger(where, number)
        rows[table].append(row)
    return LedgerExport(ledger, {table: tuple(held) for table, held in rows.items()}, last, workspace)


def _documents(lines: Iterable[str], where: str) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        try:
            held = json.loads(line)
        except ValueError as error:
            raise _no_ledger(where, number) from error
        if not isinstance(held, dict):
            raise _no_ledger(where, number)
        yield number, held


def _no_ledger(where: str, line: int) -> UsageError:
    return UsageError(
        "this is not a ledger that `tokmigrate log --export jsonl` wrote",
        where=f"{where}:{line}:1",
        hint="name such a file, a state.db, or the URL of a state",
    )
