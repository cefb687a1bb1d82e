"""What the migrations of two branches have in common."""

from __future__ import annotations

from collections.abc import Iterable

from tokmigrate.errors import HistoryError
from tokmigrate.operations.base import DEFAULT_INIT, Footprint
from tokmigrate.revision.migration import Migration


def find_conflicts(ours: Iterable[Migration], theirs: Iterable[Migration]) -> tuple[str, ...]:
    """Return in words what one of two branches writes and the other one reads or writes.

    Raises:
        HistoryError: What one of them does is known only for a given model.
    """
    return _footprint(ours).conflicts(_footprint(theirs))


def _footprint(migrations: Iterable[Migration]) -> Footprint:
    found = Footprint()
    for migration in migrations:
        found |= _of_migration(migration)
    return found


def _of_migration(migration: Migration) -> Footprint:
    if migration.source is not None:
        raise _unknown("what a Python migration does is known only for a given model", migration.shown)
    found = Footprint()
    for planned in migration.operations:
        footprint = planned.operation.footprint()
        if footprint is None:
            raise _unknown(f"what {planned.operation.name} reads and writes is not known", planned.place)
        found |= footprint
    # A default of the file's own takes the place of what an earlier migration left.
    return Footprint(found.writes, found.reads - {DEFAULT_INIT}) if migration.init else found


def _unknown(message: str, where: str) -> HistoryError:
    hint = "look at both, and if one may follow the other, `tokmigrate rebase` lets it"
    return HistoryError(message, where=where, hint=hint)
