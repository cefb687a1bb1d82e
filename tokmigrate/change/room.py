"""How much space there is, before it is needed."""

from __future__ import annotations

import shutil
from pathlib import Path

from tokmigrate.errors import StorageError
from tokmigrate.files import exists, storage_errors

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


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
            f"{human_bytes(needed_bytes)} are needed, {human_bytes(free)} are free",
            where=str(path),
            hint=f"free at least {human_bytes(needed_bytes - free)} on this filesystem",
        )


def human_bytes(count: int) -> str:
    """Return `count` bytes in the largest unit of 1024 that leaves at least one, as in `1.5 GiB`."""
    power = 0
    while power + 1 < len(_UNITS) and count >= 1024 ** (power + 1):
        power += 1
    if power == 0:
        return f"{count} byte" if count == 1 else f"{count} bytes"
    return f"{count / 1024**power:.1f} {_UNITS[power]}"
