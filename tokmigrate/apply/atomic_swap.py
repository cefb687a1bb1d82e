"""Swap two directories: the commit point of a change.

One call of the kernel does it where the filesystem can. Elsewhere three renames do, and any process can
tell from what exists where a killed one stopped:

    a      b      aside
    old    new    -        not started
    -      new    old      after the first rename
    new    -      old      after the second
    new    old    -        done
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

from tokmigrate.apply.durable import fsync_parents
from tokmigrate.errors import StorageError
from tokmigrate.files import storage_error, storage_errors

# renameat2(2), and renamex_np(2) of macOS
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_RENAME_SWAP = 2
_UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP}


class SwapUnsupportedError(StorageError):
    """The system or the filesystem has no atomic swap; three renames and a journal replace it."""


def swap(a: Path, b: Path) -> None:
    """Let two directories of one filesystem change places in one instant, and make that durable.

    Raises SwapUnsupportedError where the system or the filesystem cannot, StorageError where one may not be moved, or
    where the disk refused to record it: then the stamps say which is where.
    """
    number = _call_swap(a, b)
    if number in _UNSUPPORTED:
        raise SwapUnsupportedError("the filesystem has no atomic swap of two directories", where=str(a))
    if number == errno.EBUSY:
        hint = "put the model into a directory inside it"
        raise StorageError("is a mount point: it cannot be swapped with another directory", where=str(a), hint=hint)
    if number:
        raise storage_error(f"swap it with {b}", a, OSError(number, os.strerror(number)))
    fsync_parents(a, b)


def _call_swap(a: Path, b: Path) -> int:
    """Swap with one system call; return the number of the error, or 0."""
    library = ctypes.CDLL(None, use_errno=True)
    first, second = os.fsencode(a), os.fsencode(b)
    if sys.platform == "darwin":
        result = library.renamex_np(first, second, ctypes.c_uint(_RENAME_SWAP))
    elif hasattr(library, "renameat2"):
        flags = ctypes.c_uint(_RENAME_EXCHANGE)
        result = library.renameat2(_AT_FDCWD, first, _AT_FDCWD, second, flags)
    else:
        return errno.ENOSYS
    return ctypes.get_errno() if result else 0


def two_step_swap(a: Path, b: Path, aside: Path) -> None:
    """Let two directories change places by renames, by way of a free name `aside`; in between `a` is missing.

    The caller has written to its journal that the swap starts; `finish_two_step` finishes one that fails.
    """
    if os.path.lexists(aside):
        raise StorageError("an interrupted swap has left this", where=str(aside), hint="run `tokmigrate recover`")
    for source, target in ((a, aside), (b, a), (aside, b)):
        _rename(source, target)


def finish_two_step(a: Path, b: Path, aside: Path) -> None:
    """Finish a two-step swap that may have been interrupted; calling it again does no harm.

    It goes forward. If the swap did not start or is complete, the stamps say which. If `b` disappeared before it could
    replace `a`, `a` is put back. Raises StorageError where the directories are not as an interrupted swap leaves them.
    """
    there = tuple(map(os.path.lexists, (a, b, aside)))
    left = {
        (False, True, True): ((b, a), (aside, b)),
        (True, False, True): ((aside, b),),
        (False, False, True): ((aside, a),),
    }
    if there in left:
        for source, target in left[there]:
            _rename(source, target)
    elif there == (True, True, True):
        message = "an interrupted swap left the old model aside, and both other directories exist too"
        hint = f"something was put at {a} meanwhile: move it away, then run `tokmigrate recover`"
        raise StorageError(message, where=str(aside), hint=hint)
    elif not there[0]:
        hint = f"look into {b} for what is left" if there[1] else "restore it from a backup"
        raise StorageError("it does not exist, and no swap left it aside", where=str(a), hint=hint)
    else:
        # What is found may still be on its way to the disk.
        fsync_parents(a, aside)


def _rename(source: Path, target: Path) -> None:
    with storage_errors(f"rename it to {target}", source):
        source.rename(target)
    # The new name first: a loss of power in between may then show the directory twice, never not at all.
    fsync_parents(target, source)
