"""An operation with its place."""

from __future__ import annotations

from dataclasses import dataclass

from tokmigrate.operations.base import Operation


@dataclass(frozen=True)
class PlannedOperation:
    """An operation of a migration.

    Args:
        operation: What is to be done.
        place: Where the migration says so, `file:line:column`.
    """

    operation: Operation
    place: str
