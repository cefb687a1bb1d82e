"""Under which name, at which place and of which lineage a model was known, each time that it changed, in a chain.

A row of `models` is brought up to date, so it is in no chain; the last row here of the same model says what it must be.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update

from tokmigrate.state import chain
from tokmigrate.state.rows import BrokenRow
from tokmigrate.state.schema import identities, models

_SAID = ("name", "path", "lineage", "created")


def known_as_in(
    connection: Connection, known: Row[tuple[object, ...]] | None, name: str, place: str, lineage: str
) -> Row[tuple[object, ...]]:
    """Return the row of a model with what it is known as from now on, and record that where it is new.

    Args:
        connection: A connection that holds the write lock.
        known: The row of the model, None where it is not on record yet.
        name: Its name.
        place: Its place as the state keeps it.
        lineage: Its lineage, "" while it has none; one on record stays.
    """
    said = {"name": name, "path": place, "lineage": (known.lineage if known else "") or lineage}
    if known is not None and said == {key: getattr(known, key) for key in said}:
        return known
    if known is None:
        connection.execute(insert(models).values(**said, created=datetime.now(UTC)))
    else:
        connection.execute(update(models).where(models.c.id == known.id).values(**said))
    row = connection.execute(select(models).where(models.c.path == place)).one()
    tell_identity_in(connection, row.id)
    return row


def tell_identity_in(connection: Connection, model_id: int) -> None:
    """Record a model as it is known now, within the transaction that changed it."""
    row = connection.execute(select(models).where(models.c.id == model_id)).one()
    said = {name: getattr(row, name) for name in _SAID}
    chain.append(connection, identities, [{"model_id": model_id, **said, "recorded_at": datetime.now(UTC)}])


def tell_all_identities_in(connection: Connection) -> None:
    """Record the models that are known since before there was this table."""
    for model_id in connection.execute(select(models.c.id).order_by(models.c.id)).scalars().all():
        tell_identity_in(connection, model_id)


def first_unlike(known: Iterable[Mapping[str, Any]], told: Iterable[Mapping[str, Any]]) -> BrokenRow | None:
    """Return the first row of `models` that is not as was recorded last, or None.

    Args:
        known: The rows of `models`, each value as it is stored.
        told: Those of `identities` by number, whose chain holds.
    """
    last = {row["model_id"]: row for row in told}
    seen: set[int] = set()
    for row in known:
        seen.add(row["id"])
        if row["id"] not in last:
            return BrokenRow(models.name, row["id"], "the row was not recorded by tokmigrate")
        if any(row[name] != last[row["id"]][name] for name in _SAID):
            return BrokenRow(models.name, row["id"], "the row was edited")
    lost = next((model_id for model_id in last if model_id not in seen), None)
    return None if lost is None else BrokenRow(models.name, lost, "the row is missing")
