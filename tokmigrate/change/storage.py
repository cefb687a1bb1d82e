"""Errors of the operating system, told as errors that a user can act upon."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tokmigrate.errors import StorageError

WAYS_ROUND = "work on a copy that you may write to"

_HINTS = {
    errno.ENOSPC: "free some space and run the command again",
    errno.EDQUOT: "the disk quota is used up: free some space, or ask for more",
    errno.EROFS: WAYS_ROUND,
    errno.EACCES: WAYS_ROUND,
    errno.EPERM: WAYS_ROUND,
    errno.EIO: "the device reports an error: read the system log before you go on",
    errno.EXDEV: (
        "it lies on another filesystem, or in the read-only layer of a container image: "
        "copy the model to a directory of its own first"
    ),
    errno.EBUSY: "if it is a mount point, put the model into a directory inside it",
}


class UnsupportedError(StorageError):
    """The filesystem does not know this call; another way may be taken."""


@contextmanager
def storage_errors(doing: str, path: Path | None) -> Iterator[None]:
    """Raise a StorageError for any OSError from inside; errors that are told already pass as they are.

    Args:
        doing: What is to be done, as in `copy the file`.
        path: The file or directory that it is done to.
    """
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
