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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

from tokmigrate.change.facts import carry_facts
from tokmigrate.change.storage import UnsupportedError, storage_errors
from tokmigrate.errors import StorageError

BLOCK = 4096
CHUNK = 64 << 20
BUFFER = 8 << 20

# ioctl_ficlone(2)
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
# EPERM: some sandboxes answer so to calls that they do not know; plain writing then tells the truth.
_NO_COPY_RANGE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


class Sharing(StrEnum):
    """How a file came by the bytes of another."""

    REFLINK = "reflink"
    HARD_LINK = "hard link"
    COPY = "copy"


def _no_progress(count: int) -> None:
    del count


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
    with _opened_pair("sharing the blocks of a file", source, target) as (source_fd, target_fd):
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
    with storage_errors("making a hard link", target):
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
    with _opened_pair("copying the file", source, target) as (source_fd, target_fd):
        copy_range(source_fd, 0, target_fd, 0, os.fstat(source_fd).st_size, path=target)


def copy_range(
    source_fd: int,
    source_offset: int,
    target_fd: int,
    target_offset: int,
    length: int,
    progress: Callable[[int], None] = _no_progress,
    *,
    path: Path | None = None,
) -> None:
    """Copy `length` bytes between two open files, inside the kernel where it can.

    Where both offsets are congruent modulo 4096, filesystems with shared blocks share all whole ones.

    Args:
        source_offset: Where to read, in bytes.
        target_offset: Where to write, in bytes.
        progress: Is told the bytes of each part once it is written; parts have at most 64 MiB.
        path: The file that is written, for error messages.

    Raises:
        StorageError: The source ends too early, no space, or a device error.
    """
    where = None if path is None else str(path)
    in_kernel = sys.platform == "linux"
    done = 0
    while done < length:
        start, at = source_offset + done, target_offset + done
        count = 0
        with storage_errors("copying", path):
            if in_kernel:
                wanted = min(length - done, _first_part(start, at))
                count = _copy_in_kernel(source_fd, start, target_fd, at, wanted)
                # Nothing copied means the end, or a file that only plain reading understands.
                in_kernel = count > 0
            if not in_kernel:
                count = _copy_plainly(source_fd, start, target_fd, at, min(length - done, BUFFER))
        if count == 0:
            raise StorageError(
                f"the source ended {length - done} bytes before its end should come",
                where=where,
                hint="it was cut while it was read: see that nothing else writes to the model",
            )
        done += count
        progress(count)


def _first_part(source_offset: int, target_offset: int) -> int:
    # Blocks are shared only from a block's start on, so a part goes up to one where both have it.
    beyond = source_offset % BLOCK
    return BLOCK - beyond if beyond and beyond == target_offset % BLOCK else CHUNK


def _copy_in_kernel(source_fd: int, source_offset: int, target_fd: int, target_offset: int, count: int) -> int:
    if sys.platform != "linux":
        return 0
    try:
        return os.copy_file_range(source_fd, target_fd, count, source_offset, target_offset)
    except OSError as error:
        if error.errno in _NO_COPY_RANGE:
            return 0
        raise


def _copy_plainly(source_fd: int, source_offset: int, target_fd: int, target_offset: int, count: int) -> int:
    data = memoryview(os.pread(source_fd, count, source_offset))
    written = 0
    while written < len(data):
        written += os.pwrite(target_fd, data[written:], target_offset + written)
    return written


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
