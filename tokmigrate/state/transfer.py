"""Ledgers that are exported, and ledgers of other workspaces that are imported; docs/formats.md has the format.

A ledger is known by its first run, whose id is random. An imported one is kept as its export, the latest of each. It
is read through a database in memory, so that it is asked, and its chain verified, as the state itself is.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict
from sqlalchemy import Connection, StaticPool, Table, create_engine, delete, insert, select
from sqlalchemy.exc import IntegrityError

from tokmigrate.errors import DriftError, UsageError
from tokmigrate.files import read_file
from tokmigrate.formats import LEDGER_EXPORT, check_version
from tokmigrate.state import schema
from tokmigrate.state.hash_chain import START, head_in, set_head
from tokmigrate.state.ledger import State
from tokmigrate.state.queries import Readable
from tokmigrate.state.rows import identify
from tokmigrate.state.schema import Stored, imported_ledgers, runs

_COUNTED: tuple[Table, ...] = (schema.models, runs, *schema.OF_RUNS)
_EXPORTED: tuple[Table, ...] = (*_COUNTED, schema.migration_texts)


@dataclass(frozen=True)
class LedgerExport:
    """A whole ledger: the id of its first run, its rows by table, the last hash, and where relative paths start."""

    ledger: str | None
    rows: Mapping[str, Sequence[Stored]] = field(repr=False)
    head: str = START
    workspace: str | None = None

    def json_lines(self) -> Iterator[str]:
        """Yield it as JSON Lines."""
        head = {"format": LEDGER_EXPORT.version, "ledger": self.ledger, "workspace": self.workspace, "head": self.head}
        yield json.dumps(head) + "\n"
        for table, rows in self.rows.items():
            for row in rows:
                yield json.dumps({"table": table, "row": row}) + "\n"


@dataclass(frozen=True)
class ImportedLedger(Readable):
    """A ledger of another workspace, as of the last time that it was imported; its id is that of its first run."""

    id: str = ""
    source: str = ""

    @property
    def place(self) -> str:
        """Where it came from."""
        return f"the ledger imported from {self.source}"


def export_ledger(database: Readable) -> LedgerExport:
    """Return the whole ledger of a state database, as of one moment."""
    with database.begin_read() as connection:
        rows = {table.name: tuple(schema.read_stored(connection, table)) for table in _EXPORTED}
        head = head_in(connection)
    workspace = str(database.moves_with) if database.moves_with else None
    first = next(iter(rows[runs.name]), None)
    return LedgerExport(first["id"] if first else None, rows, head, workspace)


def read_export(path: Path) -> LedgerExport:
    """Return the ledger that `LedgerExport.json_lines` wrote into a file.

    Raises StorageError where it cannot be read, UsageError where it is no such file, FormatError for another version.
    """
    try:
        text = read_file(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _no_ledger(str(path), 1) from error
    return _parse_export(text, str(path))


def open_export(export: LedgerExport, source: str) -> ImportedLedger:
    """Return a ledger that can be asked; raises DriftError where a row is not one that tokmigrate writes."""
    # The pool keeps the one connection that the database lives in.
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    root = Path(export.workspace) if export.workspace else None
    opened = ImportedLedger(engine, Path(), root, export.ledger or "", source)
    try:
        with engine.begin() as connection:
            schema.metadata.create_all(connection, checkfirst=False)
            for table in _EXPORTED:
                for row in export.rows[table.name]:
                    schema.decode(table, row)
                schema.insert_stored(connection, table, export.rows[table.name])
            set_head(connection, export.head)
            _check_references(connection)
    except (IntegrityError, OverflowError, ValueError) as error:
        cause = error.orig if isinstance(error, IntegrityError) else error
        hint = "it was edited: take the ledger from its workspace, or from a backup of it"
        raise DriftError(f"a row of the ledger cannot be read: {cause}", where=source, hint=hint) from error
    return opened


def _check_references(connection: Connection) -> None:
    stray = connection.exec_driver_sql("PRAGMA foreign_key_check").first()
    if stray is not None:
        raise ValueError(f"a row of {stray[0]} names one of {stray[2]} that is not there")


def import_ledger(state: State, export: LedgerExport, source: str) -> Mapping[str, int]:
    """Keep a ledger of another workspace, in the place of what was imported of it before.

    Returns how many rows of each table are new or changed. Raises DriftError where it was edited, or does not go on
    from what was imported before, UsageError where it is empty, or this workspace's own.
    """
    if export.ledger is None:
        hint = "name the ledger of the workspace where models are migrated"
        raise UsageError("the ledger is empty: nothing was run there yet", where=source, hint=hint)
    opened = open_export(export, source)
    broken = opened.verify_chain()
    if broken is not None:
        hint = "nothing was imported; take the ledger from its workspace, or from a backup of it"
        raise DriftError(f"the hash chain of the ledger is broken at {broken}", where=source, hint=hint)
    for model in opened.list_models():
        # Raises where a row has values that this version does not know.
        _ = opened.runs(model, None), opened.list_applications(model), opened.token_records(model)
    known = next((each for _, each in _exports(state) if each.ledger == export.ledger), None)
    if known is not None and known.head not in (START, *(run["hash"] for run in export.rows[runs.name])):
        hint = "it is an older copy, or that ledger was recreated; what was imported before is kept"
        raise DriftError("the ledger does not go on from what was imported of it before", where=source, hint=hint)
    new = {table.name: _count_new(table, export, known) for table in _COUNTED}
    who = identify(state.workspace)
    with state.begin_write() as connection:
        if connection.execute(select(runs.c.id).order_by(runs.c.number).limit(1)).scalar() == export.ledger:
            hint = "name the ledger of another workspace"
            raise UsageError("that is the ledger of this workspace itself", where=source, hint=hint)
        if any(new.values()):
            connection.execute(delete(imported_ledgers).where(imported_ledgers.c.ledger == export.ledger))
            connection.execute(
                insert(imported_ledgers).values(
                    ledger=export.ledger,
                    source=source,
                    imported_by=f"{who.user}@{who.host}",
                    imported_at=datetime.now(UTC),
                    export="".join(export.json_lines()),
                )
            )
    return new


def read_imported(state: State) -> Iterator[ImportedLedger]:
    """Yield the ledgers of other workspaces, in the order in which they came; raises DriftError for an edited one."""
    try:
        for source, export in _exports(state):
            yield open_export(export, source)
    except (DriftError, UsageError) as error:
        hint = "put a backup of the state in its place"
        raise DriftError(f"what was imported was edited: {error}", where=state.place, hint=hint) from error


def _exports(state: State) -> Iterator[tuple[str, LedgerExport]]:
    with state.begin_read() as connection:
        query = select(imported_ledgers.c.source, imported_ledgers.c.export).order_by(imported_ledgers.c.imported_at)
        held = list(connection.execute(query))
    for row in held:
        yield row.source, _parse_export(row.export, f"the ledger imported from {row.source}")


def _count_new(table: Table, export: LedgerExport, known: LedgerExport | None) -> int:
    key = next(iter(table.primary_key)).name
    before = {row[key]: row for row in known.rows[table.name]} if known else {}
    return sum(before.get(row[key]) != row for row in export.rows[table.name])


class _Head(BaseModel):
    model_config = ConfigDict(strict=True)

    ledger: str | None
    workspace: str | None = None
    head: str


class _Line(BaseModel):
    model_config = ConfigDict(strict=True)

    table: str
    row: dict[str, str | int | float | None]


def _parse_export(text: str, where: str) -> LedgerExport:
    first, *lines = text.splitlines() or [""]
    columns = {table.name: set(table.columns.keys()) for table in _EXPORTED}
    rows: dict[str, list[Stored]] = {name: [] for name in columns}
    number = 1
    try:
        document = json.loads(first)
        if isinstance(document, dict) and "ledger" in document:
            check_version(LEDGER_EXPORT, document.get("format"), where)
        head = _Head.model_validate(document)
        for number, line in enumerate(lines, 2):
            held = _Line.model_validate_json(line)
            if held.row.keys() != columns.get(held.table):
                raise _no_ledger(where, number)
            rows[held.table].append(held.row)
    except ValueError as error:
        raise _no_ledger(where, number) from error
    return LedgerExport(head.ledger, rows, head.head, head.workspace)


def _no_ledger(where: str, line: int) -> UsageError:
    hint = "name such a file, a state.db, or the URL of a state"
    return UsageError("this is not a ledger that `tokmigrate log --export` wrote", where=f"{where}:{line}:1", hint=hint)
