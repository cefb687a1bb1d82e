"""An operation with its place."""

from __future__ import annotations

from dataclasses import dataclass

from tokmigrate.operations.base import Operation
from tokmigrate.revision.replaced import Replaced


@dataclass(frozen=True)
class PlannedOperation:
    """An operation of a migration.

    Args:
        operation: What is to be done.
        place: Where the migration says so, `file:line:column`.
        origin: The migration that it came from, where it is one that others were squashed into.
    """

    operation: Operation
    place: str
    origin: Replaced | None = None
