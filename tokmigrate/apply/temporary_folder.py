"""A folder beside a model, on its filesystem, for a copy of it that is needed for a while only."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
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
    with ExitStack() as held:
        # Until it is locked another process would take it for one that was left, or its parent for an empty one.
        with _wait_for_turn(model.parent):
            is_new = not exists(area.root)
            with suppress(StorageError):
                area.create()
            beside = area.root if has_directory(area.root) and os.access(area.root, os.W_OK) else None
            for path in beside.glob(f"{_PREFIX}*") if beside else ():
                with _lock_folder(path) as is_mine:
                    if is_mine:
                        shutil.rmtree(path, ignore_errors=True)
            if is_new:
                held.callback(_remove_if_empty, area.root)
            folder = tempfile.TemporaryDirectory(prefix=_PREFIX, dir=beside, ignore_cleanup_errors=True)
            path = Path(held.enter_context(folder))
            held.enter_context(_lock_folder(path))
        yield path


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder that no other process uses by now."""
    with _wait_for_turn(folder.parent), suppress(OSError):
        folder.rmdir()


@contextmanager
def _wait_for_turn(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, where its filesystem has locks of folders."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with suppress(OSError):
            fcntl.flock(opened, fcntl.LOCK_EX)
        yield
    finally:
        os.close(opened)


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
