"""The paths of models in the state, and how a model that was moved is found again.

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
from tokmigrate.state.schema import models, runs


def format_stored_path(path: Path, root: Path | None) -> str:
    """Return the path of a model as the state keeps it.

    Args:
        path: The model's directory; links are followed.
        root: The workspace that the database moves with, None where it moves with none.
    """
    resolved = Path(os.path.realpath(path))
    return str(resolved.relative_to(root)) if root is not None and resolved.is_relative_to(root) else str(resolved)


def absolute_path(stored: str, root: Path | None) -> str:
    """Return the absolute path of a model that the state keeps; one whose workspace is not known stays relative."""
    return str(root / stored) if root is not None else stored


def model_row(row: Row[tuple[object, ...]], root: Path | None) -> ModelRow:
    """Return a row of `models` as a value, with the path that it has now."""
    return ModelRow(row.id, row.name, absolute_path(row.path, root), row.lineage, row.created)


def find_model_row(
    connection: Connection, path: Path, root: Path | None, generation: str | None
) -> Row[tuple[object, ...]] | None:
    """Return the row of the model at a path: the one recorded there, or the one that was moved to it.

    A model was moved where its last run left the generation that is here now, and the recorded path is gone. Several of
    these are not distinguished, and of a run on another host it is not known whether its path is gone.

    Args:
        connection: A connection.
        path: The model's directory.
        root: The workspace that the database moves with.
        generation: The generation that its stamp names, None where it has no stamp.
    """
    here = connection.execute(select(models).where(models.c.path == format_stored_path(path, root))).one_or_none()
    if here is not None or generation is None:
        return here
    left = connection.execute(
        select(models, runs.c.host, runs.c.generation_after)
        .join(runs, runs.c.model_id == models.c.id)
        .where(runs.c.status == Status.APPLIED.value)
        .order_by(runs.c.number)
    )
    last = {row.id: row for row in left}
    found = [row for row in last.values() if row.generation_after == generation and _is_gone(row, root)]
    return found[0] if len(found) == 1 else None


def _is_gone(row: Row[tuple[object, ...]], root: Path | None) -> bool:
    if Path(row.path).is_absolute() and row.host != socket.gethostname():
        return False
    return not exists(Path(absolute_path(row.path, root)))
