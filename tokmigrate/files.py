"""Opening files, regular ones only, and writing directories; errors of the system have their path and a remedy."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from tokmigrate.errors import StorageError

WAYS_ROUND = "make it writable, or work on a copy that you may write to"

_HINTS = {
    errno.ENOSPC: "free some space and run the command again",
    errno.EDQUOT: "the disk quota is used up: free some space, or ask for more",
    errno.EROFS: WAYS_ROUND,
    errno.EACCES: WAYS_ROUND,
    errno.EPERM: WAYS_ROUND,
    errno.EIO: "the device reports an error: read the system log before you go on",
    errno.EXDEV: (
        "it is on another filesystem, or in the read-only layer of a container image: "
        "copy the model to a directory of its own first"
    ),
    errno.EBUSY: "if it is a mount point, put the model into a directory inside it",
    errno.ENOENT: "put it back, or correct the path",
    errno.ENOTDIR: "put it back, or correct the path",
    errno.EISDIR: "move the directory away, or correct the path",
    errno.ELOOP: "remove the symbolic link, and put the file itself there",
    errno.ENAMETOOLONG: "use a shorter path",
    errno.EMFILE: "raise the limit of open files with `ulimit -n`, and run the command again",
}


# FS_IOC_GETFLAGS, and its flags for immutable and append-only: linux/fs.h
_GET_FLAGS = 0x80006601 | struct.calcsize("l") << 16
_FIXED = 0x10 | 0x20

# Some network filesystems have no fsync for a directory; there its names are kept by the server.
_NO_DIRECTORY_FSYNC = {errno.EINVAL, errno.EBADF}


class MissingFileError(StorageError):
    """There is no such file."""


@contextmanager
def storage_errors(doing: str, path: Path | None) -> Iterator[None]:
    """Raise a StorageError for any OSError from inside; `doing` says what is done to `path`, as in `copy the file`."""
    try:
        yield
    except OSError as error:
        raise storage_error(doing, path, error) from error


def storage_error(doing: str, path: Path | None, error: OSError) -> StorageError:
    """Return `error` as a StorageError, with a hint where its number has one."""
    number = error.errno or 0
    reason = os.strerror(number) if number else str(error)
    where = None if path is None else str(path)
    return StorageError(f"cannot {doing}: {reason}", where=where, hint=_HINTS.get(number))


def open_file(path: Path) -> int:
    """Return the descriptor of a regular file that is opened for reading; symbolic links are followed.

    Raises:
        MissingFileError: There is no such file.
        StorageError: It is a pipe, a socket, a device or a directory, or it cannot be opened.
    """
    with _explain_errors("open the file", path):
        # A pipe must not block, and a terminal must not become this process's own.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise _not_regular(path, mode)
    return descriptor


@contextmanager
def open_for_reading(path: Path) -> Iterator[BinaryIO]:
    """Give a regular file that is opened for reading, and closed behind; errors are those of `open_file`."""
    descriptor = open_file(path)
    with _explain_errors("read the file", path), os.fdopen(descriptor, "rb") as file:
        yield file


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file; errors are those of `open_file`."""
    with open_for_reading(path) as file:
        return file.read()


def read_if_present(path: Path) -> bytes | None:
    """Return the bytes of a regular file, None where there is none; errors are those of `open_file`."""
    try:
        return read_file(path)
    except MissingFileError:
        return None


def has_file(path: Path) -> bool:
    """Return whether a regular file is at `path`; raises StorageError where that cannot be known."""
    return stat.S_ISREG(_mode(path))


def has_directory(path: Path) -> bool:
    """Return whether a directory is at `path`; raises StorageError where that cannot be known."""
    return stat.S_ISDIR(_mode(path))


def exists(path: Path) -> bool:
    """Return whether anything is at `path`, links followed; raises StorageError where that cannot be known."""
    return _mode(path) != 0


def kind_of(path: Path) -> int:
    """Return the kind of what is at `path`, as `stat.S_IFMT` does, links not followed; raises StorageError for none."""
    with storage_errors("look at the file", path):
        return stat.S_IFMT(path.lstat().st_mode)


def entries(directory: Path) -> list[Path]:
    """Return what a directory holds, sorted by name; raises StorageError where it cannot be listed."""
    with _explain_errors("list the directory", directory):
        return sorted(directory.iterdir(), key=str)


def nearest_existing(path: Path) -> Path:
    """Return a path if it exists, else the nearest directory above it that does."""
    absolute = path.absolute()
    return next((each for each in (absolute, *absolute.parents) if exists(each)), absolute)


def check_writable(folder: Path) -> None:
    """Raise StorageError where no file can be made in a folder, or in the nearest one above it that exists."""
    existing = nearest_existing(folder)
    if not os.access(existing, os.W_OK | os.X_OK):
        raise StorageError("no file can be made in it", where=str(existing), hint=WAYS_ROUND)


def refuse_fixed(path: Path) -> None:
    """Raise StorageError for what this user may not rename: it would stop a change behind the commit point."""
    with suppress(OSError):
        own, parent = path.stat(), path.parent.stat()
        if parent.st_mode & stat.S_ISVTX and os.geteuid() not in (0, own.st_uid, parent.st_uid):
            message = "belongs to another user, and in this directory only owners may rename their files (sticky bit)"
            raise StorageError(message, where=str(path), hint=WAYS_ROUND)
        if _read_flags(path) & _FIXED:
            message = "is immutable or append-only, so that no other can be put in its place"
            raise StorageError(message, where=str(path), hint="`chattr -i -a` makes it one that can be replaced")


def _read_flags(path: Path) -> int:
    """Return what `lsattr` shows of a file; raises OSError where its filesystem has no such flags."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(descriptor, _GET_FLAGS, bytes(struct.calcsize("l"))))
    finally:
        os.close(descriptor)
    return int(flags)


def fsync_directory(path: Path) -> None:
    """Return once the names in the directory `path` are on the disk."""
    with storage_errors("write the directory to the disk", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in _NO_DIRECTORY_FSYNC:
                raise
        finally:
            os.close(descriptor)


def _mode(path: Path) -> int:
    """Return the mode of what is at `path`, 0 where nothing is."""
    try:
        with _explain_errors("look at it", path):
            return path.stat().st_mode
    except MissingFileError:
        return 0


def _not_regular(path: Path, mode: int) -> StorageError:
    if stat.S_ISDIR(mode):
        return StorageError("is a directory, not a file", where=str(path), hint=_HINTS[errno.EISDIR])
    return StorageError(
        "is a pipe, a socket or a device, not a file", where=str(path), hint="put a regular file in its place"
    )


@contextmanager
def _explain_errors(doing: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOENT or (error.errno == errno.ENOTDIR and not path.is_file()):
            raise MissingFileError("there is no such file", where=str(path), hint=_HINTS[errno.ENOENT]) from error
        if error.errno == errno.ENXIO:
            raise _not_regular(path, 0) from error
        problem = storage_error(doing, path, error)
        if error.errno in (errno.EACCES, errno.EPERM):
            problem.hint = "ask for the permission to read it, or run the command as its owner"
        raise problem from error
