"""Where models are, as the state keeps it, and how one is found again that was moved.

A database that lies in a workspace moves with it, so models there are kept relative to the workspace; all others by
their resolved absolute paths. A database elsewhere may serve several workspaces, and knows absolute paths only.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path

from sqlalchemy import Connection, Row, select

from tokmigrate.files import exists
from tokmigrate.state.rows import ModelRow, Status
from tokmigrate.state.schema import models, operations


def stored_place(path: Path, root: Path | None) -> str:
    """Return what the state keeps of the place of a model.

    Args:
        path: The model's directory; what it leads to is meant.
        root: The workspace that the database moves with, None where it moves with none.
    """
    resolved = Path(os.path.realpath(path))
    return str(resolved.relative_to(root)) if root is not None and resolved.is_relative_to(root) else str(resolved)


def place_of(stored: str, root: Path | None) -> str:
    """Return the absolute path of a model that the state keeps; one that nobody can tell stays relative."""
    return str(root / stored) if root is not None else stored


def model_row(row: Row[tuple[object, ...]], root: Path | None) -> ModelRow:
    """Return a row of `models` as a value, with the path that it has now."""
    return ModelRow(row.id, row.name, place_of(row.path, root), row.lineage, row.created)


def row_of_place(
    connection: Connection, path: Path, root: Path | None, generation: str | None
) -> Row[tuple[object, ...]] | None:
    """Return the row of the model at a place: the one on record there, or the one that was moved to it.

    A model was moved where its last run left the generation that is here now, and the place on record is gone. That of
    several is not told apart, and of a run on another host it cannot be known whether its place is gone.

    Args:
        connection: A connection.
        path: The model's directory.
        root: The workspace that the database moves with.
        generation: The generation that its stamp names, None where it has no stamp.
    """
    here = connection.execute(select(models).where(models.c.path == stored_place(path, root))).one_or_none()
    if here is not None or generation is None:
        return here
    left = connection.execute(
        select(models, operations.c.host, operations.c.generation_after)
        .join(operations, operations.c.model_id == models.c.id)
        .where(operations.c.status == Status.APPLIED.value)
        .order_by(operations.c.number)
    )
    last = {row.id: row for row in left}
    found = [row for row in last.values() if row.generation_after == generation and _is_gone(row, root)]
    return found[0] if len(found) == 1 else None


def _is_gone(row: Row[tuple[object, ...]], root: Path | None) -> bool:
    if Path(row.path).is_absolute() and row.host != socket.gethostname():
        return False
    return not exists(Path(place_of(row.path, root)))
