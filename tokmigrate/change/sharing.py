"""A second file with the bytes of a first, as cheaply as the filesystem can make it.

    reflink    two files share their blocks until one is written    Btrfs, XFS, bcachefs
    hard link  two names of one file                                most filesystems, not FAT or exFAT
    copy       the bytes twice                                      everywhere

A hard link is safe for a file that nobody writes in place: tokmigrate replaces files, it never writes
into one that has a name in a model directory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from tokmigrate.change.facts import carry_facts
from tokmigrate.change.ranges import copy_range
from tokmigrate.errors import StorageError
from tokmigrate.files import UnsupportedError, storage_errors

# Source: the manual page ioctl_ficlone(2).
_FICLONE = 0x40049409
_NO_REFLINK = {
    errno.EOPNOTSUPP,
    errno.EXDEV,
    errno.EINVAL,
    errno.ENOTTY,
    errno.ENOSYS,
    errno.EPERM,
    errno.EBADF,
    errno.ETXTBSY,
}
_NO_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS}


class Sharing(StrEnum):
    """How a file came by the bytes of another."""

    REFLINK = "reflink"
    HARD_LINK = "hard link"
    COPY = "copy"


def share_file(source: Path, target: Path) -> Sharing:
    """Make `target` the same file as `source` with its mode, owner and times, and return how.

    Args:
        source: A regular file that the change leaves as it is.
        target: A name that is free; extended attributes and the owner are kept where permitted.

    Raises:
        StorageError: The name is taken, no space, or no permission; `target` is not left behind.
    """
    how = clone_file(source, target)
    if how is not Sharing.HARD_LINK:
        with _removed_on_failure(target):
            carry_facts(source, target)
    return how


def clone_file(source: Path, target: Path) -> Sharing:
    """Make `target` a file with the bytes of `source` by the cheapest way there is, and return which.

    A hard link has the facts of `source` too; otherwise the mode is 0600 and the time is now.

    Raises:
        StorageError: The name is taken, no space, or no permission; `target` is not left behind.
    """
    for way, how in ((reflink_file, Sharing.REFLINK), (link_file, Sharing.HARD_LINK)):
        try:
            way(source, target)
        except UnsupportedError:
            continue
        return how
    copy_file(source, target)
    return Sharing.COPY


def reflink_file(source: Path, target: Path) -> None:
    """Make `target` a new file that shares the blocks of `source`.

    Raises:
        UnsupportedError: The filesystem cannot share blocks between these two.
        StorageError: The name is taken, no space, or no permission.
    """
    if sys.platform != "linux":
        raise UnsupportedError("sharing blocks is not known on this system", where=str(target))
    with _opened_pair("share the blocks of the file", source, target) as (source_fd, target_fd):
        try:
            fcntl.ioctl(target_fd, _FICLONE, source_fd)
        except OSError as error:
            if error.errno in _NO_REFLINK:
                raise UnsupportedError("the filesystem cannot share blocks", where=str(target)) from error
            raise


def link_file(source: Path, target: Path) -> None:
    """Make `target` one more name of the file `source`.

    Raises:
        UnsupportedError: The filesystem has no hard links, or not between these two.
        StorageError: The name is taken, or no permission.
    """
    with storage_errors("make a hard link", target):
        _require_regular(source, source.lstat())
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NO_LINK:
                raise UnsupportedError("the filesystem makes no hard link", where=str(target)) from error
            raise


def copy_file(source: Path, target: Path) -> None:
    """Make `target` a new file with a copy of the bytes of `source`.

    Raises:
        StorageError: The name is taken, no space, or no permission.
    """
    with _opened_pair("copy the file", source, target) as (source_fd, target_fd):
        copy_range(source_fd, 0, target_fd, 0, os.fstat(source_fd).st_size, path=target)


def _require_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StorageError("is not a regular file", where=str(path))


@contextmanager
def _opened_pair(doing: str, source: Path, target: Path) -> Iterator[tuple[int, int]]:
    """Open `source` and a new file `target`, which is removed again where the body fails."""
    with storage_errors(doing, source):
        # A pipe in the place of a file must not block.
        source_fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        _require_regular(source, os.fstat(source_fd))
        with storage_errors(doing, target):
            target_fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with _removed_on_failure(target):
                try:
                    yield source_fd, target_fd
                finally:
                    os.close(target_fd)
    finally:
        os.close(source_fd)


@contextmanager
def _removed_on_failure(target: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        target.unlink(missing_ok=True)
        raise
