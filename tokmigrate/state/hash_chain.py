"""The hash chain over the runs of a ledger: it shows what was changed by accident, or in part.

docs/formats.md says what a hash is made of, and what it can and cannot show. The rows of models, tags, texts of
migrations and a run that has not ended are not in the chain.
"""

from __future__ import annotations

from collections.abc import Sequence

from blake3 import blake3
from sqlalchemy import Connection, func, insert, select, update

from tokmigrate.state.rows import BrokenRun, Status
from tokmigrate.state.schema import OF_RUNS, Stored, applied, canonical_json, meta, read_highest, read_stored, runs

START = ""
_HEAD = "chain_head"
_NOT_HASHED = {"hash", "reverted_by"}
_ACTIVE = frozenset(status.value for status in Status if status.active)

Linked = tuple[Sequence[tuple[str, Stored]], Sequence[int]]
"""The rows of a run with their tables, and the numbers of the rows of `applied` that it undid."""


def seal_run(connection: Connection, run_id: str) -> None:
    """Add a run that has ended to the chain, within the transaction that ends it."""
    position = read_highest(connection, runs.c.chain_position)
    (row,) = read_stored(connection, runs, runs.c.id == run_id)
    link = {"chain_position": position + 1, "previous_hash": head_in(connection)}
    digest = _hash_run({**row, **link}, _read_linked(connection, run_id))
    connection.execute(update(runs).where(runs.c.id == run_id).values(**link, hash=digest))
    set_head(connection, digest)


def head_in(connection: Connection) -> str:
    """Return the hash of the run that ended last."""
    return connection.execute(select(meta.c.value).where(meta.c.key == _HEAD)).scalar() or START


def set_head(connection: Connection, digest: str) -> None:
    """Record the hash of the run that ended last."""
    if connection.execute(update(meta).where(meta.c.key == _HEAD).values(value=digest)).rowcount == 0:
        connection.execute(insert(meta).values(key=_HEAD, value=digest))


def find_broken(connection: Connection) -> BrokenRun | None:
    """Return the first run that the chain does not account for, None where it accounts for all."""
    # Each row of a run, and each undo of one, is counted off when its run is checked.
    left = connection.execute(select(func.count(applied.c.reverted_by))).scalar_one()
    left += sum(connection.execute(select(func.count()).select_from(table)).scalar_one() for table in OF_RUNS)
    position, previous, last = 0, START, ""
    for run in list(read_stored(connection, runs, order=runs.c.chain_position.nulls_last())):
        rows, reverted = _read_linked(connection, run["id"])
        left -= len(rows) + len(reverted)
        if run["hash"] is None:
            if run["status"] not in _ACTIVE or rows or reverted:
                return BrokenRun(run["id"], "it was edited, or not recorded by tokmigrate")
            continue
        position += 1
        if run["chain_position"] != position or run["previous_hash"] != previous:
            return BrokenRun(run["id"], "the run that ended before it is missing, or was edited")
        try:
            digest = _hash_run(run, (rows, reverted))
        except (TypeError, ValueError):
            digest = ""
        if digest != run["hash"]:
            return BrokenRun(run["id"], "its row, or a row that it left, was edited, added or removed")
        previous, last = run["hash"], run["id"]
    if previous != head_in(connection):
        return BrokenRun(last, "runs that ended after it are missing")
    return BrokenRun(last, "there are rows that belong to no run") if left else None


def _read_linked(connection: Connection, run_id: str) -> Linked:
    rows = [(table.name, row) for table in OF_RUNS for row in read_stored(connection, table, table.c.run_id == run_id)]
    undone = select(applied.c.number).where(applied.c.reverted_by == run_id).order_by(applied.c.number)
    return rows, list(connection.execute(undone).scalars())


def _hash_run(run: Stored, linked: Linked) -> str:
    rows, reverted = linked
    digest = blake3()
    for table, row in ((runs.name, run), *rows):
        held = {name: value for name, value in row.items() if name not in _NOT_HASHED}
        digest.update(f"{canonical_json([table, held])}\n".encode())
    digest.update(f"{canonical_json(['reverted', list(reverted)])}\n".encode())
    return digest.hexdigest()
