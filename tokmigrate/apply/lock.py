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
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tokmigrate.errors import BusyError, StorageError
from tokmigrate.files import read_file, storage_error, storage_errors

SOMEBODY = "another process"
"""Who holds a lock whose file does not say it."""

_POLL_S = 0.05
_TAKEN = {errno.EWOULDBLOCK, errno.EAGAIN}
_UNSUPPORTED = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}

_held: set[int] = set()


def _close_in_child() -> None:
    # A forked child would keep the lock after its parent's death. Closing does not unlock the parent's.
    while _held:
        os.close(_held.pop())


os.register_at_fork(after_in_child=_close_in_child)


@dataclass(frozen=True)
class Holder:
    """Who holds a lock, as the lock file says: the process's number and the name of its host."""

    pid: int
    host: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class ModelLock:
    """The lock of a model, a file in a directory that exists, held while the `with` statement runs.

    Raises BusyError where another process still holds it after `timeout_s`, StorageError where the filesystem has none.
    """

    def __init__(self, path: Path, timeout_s: float = 0.0) -> None:
        self.path = path
        self.timeout_s = timeout_s
        self._descriptor: int | None = None

    def __enter__(self) -> ModelLock:
        if self._descriptor is not None:
            raise RuntimeError("a ModelLock is entered once")
        deadline = time.monotonic() + self.timeout_s
        while (descriptor := _take(self.path)) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise _busy(self.path, self.timeout_s)
            time.sleep(min(_POLL_S, left))
        self._descriptor = descriptor
        return self

    def __exit__(self, *_: object) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor in _held:
            with suppress(OSError):
                os.ftruncate(descriptor, 0)
            _close(descriptor)


def read_holder(path: Path) -> Holder | None:
    """Return who the lock file says holds it; None where it says nothing."""
    try:
        said = json.loads(read_file(path))
        return Holder(int(said["pid"]), str(said["host"]))
    except (StorageError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None


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


def _busy(path: Path, waited_s: float) -> BusyError:
    waited = f", still after {waited_s:g} s" if waited_s > 0 else ""
    return BusyError(
        f"locked by {read_holder(path) or SOMEBODY}{waited}",
        where=str(path),
        hint="wait for it with --lock-timeout SECONDS",
    )
