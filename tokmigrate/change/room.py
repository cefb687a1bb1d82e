"""How much space there is, before it is needed."""

from __future__ import annotations

import shutil
from pathlib import Path

from tokmigrate.errors import StorageError
from tokmigrate.files import exists, storage_errors
from tokmigrate.formatting import format_bytes


def free_bytes(path: Path) -> int:
    """Return the bytes that this user may still write to the filesystem of `path`.

    Args:
        path: A file or directory, or one that is still to be made; a user's quota is not known here.

    Raises:
        StorageError: The filesystem does not say.
    """
    existing = path.absolute()
    while not exists(existing) and existing != existing.parent:
        existing = existing.parent
    with storage_errors("ask for free space", existing):
        return shutil.disk_usage(existing).free


def margin_bytes(written: int) -> int:
    """Return what has to be free besides the bytes that are written, for the filesystem's own needs and the state."""
    return min(64 << 20, max(1 << 20, written // 16))


def check_room(path: Path, needed_bytes: int) -> None:
    """Raise a StorageError, naming what is needed and what is free, where `needed_bytes` do not fit."""
    free = free_bytes(path)
    if needed_bytes > free:
        raise StorageError(
            f"{format_bytes(needed_bytes)} are needed, {format_bytes(free)} are free",
            where=str(path),
            hint=f"free at least {format_bytes(needed_bytes - free)} on this filesystem",
        )
