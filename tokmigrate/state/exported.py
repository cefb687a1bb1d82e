"""A ledger as lines of text: every row as it is stored, with the hashes by which it can be checked.

JSON Lines: the first line is `{"format": 1, "ledger": …, "workspace": …}`, each other one
`{"table": …, "row": {column: value}}`, a table at a time: `models`, `operations`, `applied`, `tokens`, `moves`,
`endings`, `identities`, `migration_texts`, `chains`. CSV has the same rows under the columns of all of them. The hash
of a row of a table with hashes is as `tokmigrate.state.chain` says; `endings` has the digests of `operations`,
`identities` what `models` must be, `chains` the ends of the chains. Relative paths of models start from `workspace`.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Table, select

from tokmigrate.errors import DriftError, UsageError
from tokmigrate.files import read_file
from tokmigrate.state import chain
from tokmigrate.state.connection import Database
from tokmigrate.state.endings import first_unsealed
from tokmigrate.state.identities import first_unlike
from tokmigrate.state.reading import there
from tokmigrate.state.rows import BrokenRow
from tokmigrate.state.schema import (
    applied,
    chains,
    endings,
    identities,
    migration_texts,
    models,
    moves,
    operations,
    tokens,
)

FORMAT = 1
EXPORTED: tuple[Table, ...] = (models, operations, applied, tokens, moves, endings, identities, migration_texts, chains)
CHAINED: tuple[Table, ...] = (applied, tokens, moves, endings, identities, migration_texts)

Stored = dict[str, Any]
"""The columns of a row, each as it is stored."""


@dataclass(frozen=True)
class Exported:
    """A whole ledger.

    Args:
        ledger: Its id, the id of its first operation; None where it has none yet.
        rows: The rows of each table, by the table's name.
        workspace: The folder that the paths of its models are relative to, None where they are absolute.
    """

    ledger: str | None
    rows: Mapping[str, tuple[Stored, ...]] = field(repr=False)
    workspace: str | None = None

    def broken(self) -> BrokenRow | None:
        """Return the first row that was edited, dropped or slipped in, or None."""
        ends = {row.get("name"): (row.get("length"), row.get("head")) for row in self.rows["chains"]}
        for table in CHAINED:
            length, head = ends.get(table.name, (0, chain.START))
            broken = chain.broken_in(table, self.rows[table.name], (length or 0, head or chain.START))
            if broken is not None:
                return broken
        if identities.name in ends:
            unlike = first_unlike(self.rows["models"], self.rows["identities"])
            if unlike is not None:
                return unlike
        if endings.name not in ends:
            # A database of an older version, that was only read since.
            return None
        return first_unsealed(self.rows["operations"], self.rows["applied"], self.rows["endings"])


def export(database: Database) -> Exported:
    """Return the whole ledger of a state database, as of one moment."""
    with database.reading() as connection:
        held = there(connection, EXPORTED)
        rows = {table.name: tuple(chain.stored_rows(connection, table) if table in held else ()) for table in EXPORTED}
        first = connection.execute(select(operations.c.id).order_by(operations.c.number).limit(1)).scalar()
    return Exported(first, rows, str(database.moves_with) if database.moves_with else None)


def json_lines(ledger: Exported) -> Iterator[str]:
    """Yield a ledger as JSON Lines."""
    yield json.dumps({"format": FORMAT, "ledger": ledger.ledger, "workspace": ledger.workspace}) + "\n"
    for table, rows in ledger.rows.items():
        for row in rows:
            yield json.dumps({"table": table, "row": row}) + "\n"


def csv_lines(ledger: Exported) -> Iterator[str]:
    """Yield a ledger as CSV."""
    columns = dict.fromkeys(column.name for table in EXPORTED for column in table.columns)
    text = io.StringIO()
    writer = csv.DictWriter(text, ["table", *columns], lineterminator="\n")
    writer.writeheader()
    for table, rows in ledger.rows.items():
        for row in rows:
            writer.writerow({"table": table, **row})
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def read_json_lines(path: Path) -> Exported:
    """Return the ledger that `json_lines` wrote into a file.

    Raises:
        StorageError: The file cannot be read.
        UsageError: It is no such file.
        DriftError: A newer tokmigrate wrote it.
    """
    try:
        lines = read_file(path).decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise _no_ledger(path, 1) from error
    rows: dict[str, list[Stored]] = {table.name: [] for table in EXPORTED}
    columns = {table.name: {column.name for column in table.columns} for table in EXPORTED}
    for number, held in _documents(path, lines[1:]):
        table, row = held.get("table"), held.get("row")
        if not isinstance(row, dict) or not isinstance(table, str) or row.keys() != columns.get(table):
            raise _no_ledger(path, number)
        rows[table].append(row)
    first = next(iter(_documents(path, lines[:1], 1)), (1, {}))[1]
    if first.get("format") != FORMAT:
        if isinstance(first.get("format"), int) and "ledger" in first:
            raise DriftError("a newer tokmigrate wrote this ledger", where=str(path), hint="install the newer one")
        raise _no_ledger(path, 1)
    if not isinstance(first.get("workspace"), str | None):
        raise _no_ledger(path, 1)
    held_rows = {table: tuple(held) for table, held in rows.items()}
    return Exported(first.get("ledger"), held_rows, first.get("workspace"))


def _documents(path: Path, lines: Iterable[str], start: int = 2) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, start):
        try:
            held = json.loads(line)
        except ValueError as error:
            raise _no_ledger(path, number) from error
        if not isinstance(held, dict):
            raise _no_ledger(path, number)
        yield number, held


def _no_ledger(path: Path, line: int) -> UsageError:
    return UsageError(
        "this is no ledger that `tokmigrate log --export jsonl` wrote",
        where=f"{path}:{line}:1",
        hint="name such a file, a state.db, or the URL of a state",
    )
