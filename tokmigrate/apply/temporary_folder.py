"""A folder beside a model, on its filesystem, for a copy of it that is needed for a while only."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tokmigrate.apply.workarea import WorkArea
from tokmigrate.errors import StorageError
from tokmigrate.files import exists, has_directory

_PREFIX = "staged-"


@contextmanager
def open_temporary_folder(model: Path) -> Iterator[Path]:
    """Give a folder in the work area of a model, or where temporary files go if there can be none; it is gone after.

    Those of killed processes are removed: a folder that is in use is locked.
    """
    # A clone shares its blocks only within a filesystem, and temporary files often lie in memory.
    area = WorkArea(model)
    is_new = not exists(area.root)
    with suppress(StorageError):
        area.create()
    beside = area.root if has_directory(area.root) and os.access(area.root, os.W_OK) else None
    for path in beside.glob(f"{_PREFIX}*") if beside else ():
        with _lock_folder(path) as is_mine:
            if is_mine:
                shutil.rmtree(path, ignore_errors=True)
    try:
        with (
            tempfile.TemporaryDirectory(prefix=_PREFIX, dir=beside, ignore_cleanup_errors=True) as folder,
            _lock_folder(Path(folder)),
        ):
            yield Path(folder)
    finally:
        if is_new:
            # It stays if another process uses it by now.
            with suppress(OSError):
                area.root.rmdir()


@contextmanager
def _lock_folder(path: Path) -> Iterator[bool]:
    """Hold the lock of a folder while it is not held by another process, and say whether that is so."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(opened)
