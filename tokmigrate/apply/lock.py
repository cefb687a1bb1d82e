"""One process at a time works on a model.

The lock is the kernel's: it ends with the process that holds it, however that ends. What the file says about
its holder is for messages only, and the file is never unlinked: a process that waits for it would then hold
a lock that no other process can see.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tokmigrate.errors import BusyError, StorageError
from tokmigrate.files import read_file, storage_error, storage_errors

_POLL_S = 0.05
_TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN}
_UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}

_held: set[int] = set()


def _close_in_child() -> None:
    # A forked child would keep the lock after its parent's death. Closing does not unlock the parent's.
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def hold_lock(path: Path, timeout_s: float = 0.0) -> Iterator[None]:
    """Hold the lock of a model, a file in a directory that exists, while the `with` statement runs.

    Raises BusyError where another process still has it after `timeout_s`, StorageError where there are no locks.
    """
    deadline = time.monotonic() + timeout_s
    while (descriptor := _take(path)) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            waited = f", still after {timeout_s:g} s" if timeout_s > 0 else ""
            hint = "wait for it with --lock-timeout SECONDS"
            raise BusyError(f"locked by {read_holder(path)}{waited}", where=str(path), hint=hint)
        time.sleep(min(_POLL_S, left))
    try:
        yield
    finally:
        # Not in a forked child, which has closed it.
        if descriptor in _held:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
            _close(descriptor)


def read_holder(path: Path) -> str:
    """Return who the lock file says holds it."""
    try:
        said = json.loads(read_file(path))
        return f"process {int(said['pid'])} on {said['host']}"
    except (StorageError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return "another process"


def is_held(path: Path) -> bool:
    """Return whether a process holds a lock now; False too where the filesystem knows no locks, or none ever did."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        # Shared, and given back at once: of several who ask none is in the way of another.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in _TAKEN
    finally:
        os.close(descriptor)
    return False


def _take(path: Path) -> int | None:
    """Return an open file that holds the lock, or None while another process has it."""
    while True:
        descriptor = _open(path)
        try:
            if not _flock(descriptor, path):
                _close(descriptor)
                return None
            if _is_still(descriptor, path):
                _write_holder(descriptor)
                return descriptor
        except BaseException:
            _close(descriptor)
            raise
        _close(descriptor)


def _open(path: Path) -> int:
    with storage_errors("open the lock file", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o644)
    _held.add(descriptor)
    return descriptor


def _flock(descriptor: int, path: Path) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        if error.errno in _UNSUPPORTED:
            raise StorageError(
                f"this filesystem knows no locks ({os.strerror(error.errno)}), and without one two processes"
                " could change the model at once",
                where=str(path),
                hint="keep the model on a local disk, or mount the network filesystem with its lock service",
            ) from error
        raise storage_error("lock the file", path, error) from error
    return True


def _is_still(descriptor: int, path: Path) -> bool:
    # Someone may have removed the work area between opening and locking.
    mine = os.fstat(descriptor)
    with storage_errors("look at the lock file", path):
        try:
            current = path.lstat()
        except FileNotFoundError:
            return False
    return (mine.st_dev, mine.st_ino) == (current.st_dev, current.st_ino)


def _write_holder(descriptor: int) -> None:
    # A full disk must not keep anyone from recovering.
    with suppress(OSError):
        os.ftruncate(descriptor, 0)
        said = json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
        os.pwrite(descriptor, said.encode(), 0)


def _close(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)
