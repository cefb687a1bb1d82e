"""The end of every run, in a chain of its own.

A row of `operations` changes while its run goes on, so it is in no chain. When the run ends, a row of `endings` keeps a
digest of it as it then is, and the rows of `applied` that it took back. From then on neither can change unnoticed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from blake3 import blake3
from sqlalchemy import Connection, select

from tokmigrate.state import chain
from tokmigrate.state.columns import canonical_json
from tokmigrate.state.rows import BrokenRow, Status
from tokmigrate.state.schema import applied, endings, operations

VERSION = 1


def seal_in(connection: Connection, operation_id: str, reverted: Sequence[int] = ()) -> None:
    """Record the end of an operation, within the transaction that ends it.

    Args:
        connection: A connection that holds the write lock.
        operation_id: An operation that is not active any more.
        reverted: The numbers of the rows of `applied` that it took back.
    """
    (row,) = chain.stored_rows(connection, operations, operations.c.id == operation_id)
    sealed = {"operation_id": operation_id, "digest": _digest(row), "reverted": sorted(reverted)}
    chain.append(connection, endings, [sealed])


def seal_all_in(connection: Connection) -> None:
    """Record the ends of all operations that ended before there was this table."""
    for row in list(chain.stored_rows(connection, operations)):
        if not Status(row["status"]).active:
            taken_back = select(applied.c.number).where(applied.c.reverted_by == row["id"])
            seal_in(connection, row["id"], list(connection.execute(taken_back).scalars()))


def first_unsealed(
    runs: Iterable[Mapping[str, Any]], revisions: Iterable[Mapping[str, Any]], ends: Iterable[Mapping[str, Any]]
) -> BrokenRow | None:
    """Return the first row of `operations` or `applied` that the endings do not account for, or None.

    Args:
        runs: The rows of `operations` by number, each value as it is stored.
        revisions: Those of `applied`.
        ends: Those of `endings`, whose chain holds.
    """
    sealed = {row["operation_id"]: row for row in ends}
    seen: set[str] = set()
    for run in runs:
        seen.add(run["id"])
        end = sealed.get(run["id"])
        if end is None and run["status"] not in _ACTIVE:
            return BrokenRow(operations.name, run["number"], "the row was not recorded by tokmigrate, or was edited")
        if end is not None and end["digest"] != _digest_or_none(run):
            return BrokenRow(operations.name, run["number"], "the row was edited")
    lost = next((row for row in sealed.values() if row["operation_id"] not in seen), None)
    if lost is not None:
        return BrokenRow(endings.name, lost["number"], f"its run {lost['operation_id']} is missing")
    taken_back = {number: end["operation_id"] for end in sealed.values() for number in json.loads(end["reverted"])}
    for revision in revisions:
        if revision["reverted_by"] != taken_back.get(revision["number"]):
            return BrokenRow(applied.name, revision["number"], "which run took it back was edited")
    return None


_ACTIVE = frozenset(status.value for status in Status if status.active)


def _digest(row: Mapping[str, Any]) -> str:
    stored = {column.name: row[column.name] for column in operations.columns}
    return blake3(canonical_json([VERSION, operations.name, stored]).encode()).hexdigest()


def _digest_or_none(row: Mapping[str, Any]) -> str | None:
    try:
        return _digest(row)
    except (KeyError, TypeError, ValueError):
        return None
