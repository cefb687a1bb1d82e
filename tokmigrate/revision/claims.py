"""What the migrations of two branches have to do with each other."""

from __future__ import annotations

from collections.abc import Iterable

from tokmigrate.errors import HistoryError
from tokmigrate.operations.claims import DEFAULT_INIT, Claims, claims_of
from tokmigrate.revision.migration import Migration


def common_claims(ours: Iterable[Migration], theirs: Iterable[Migration]) -> tuple[str, ...]:
    """Return in words what two branches both lay claim to.

    Raises:
        HistoryError: What one of them does is known only for a given model.
    """
    return _claims(ours).shared(_claims(theirs))


def _claims(migrations: Iterable[Migration]) -> Claims:
    found = Claims()
    for migration in migrations:
        found |= _claims_of(migration)
    return found


def _claims_of(migration: Migration) -> Claims:
    if migration.source is not None:
        raise _unknown("what a Python migration does is known only for a given model", migration.shown)
    found = Claims()
    for planned in migration.operations:
        claims = claims_of(planned.operation)
        if claims is None:
            raise _unknown(f"what {planned.operation.name} lays claim to is not known", planned.place)
        found |= claims
    # A default of the file's own takes the place of what an earlier migration left.
    return Claims(found.changes, found.relies_on - {DEFAULT_INIT}) if migration.init else found


def _unknown(message: str, where: str) -> HistoryError:
    hint = "look at both, and if one may follow the other, `tokmigrate rebase` lets it"
    return HistoryError(message, where=where, hint=hint)
