"""Bytes, files and directories taken over from a model, as cheaply as the filesystem can make it.

    reflink    two files share their blocks until one is written    Btrfs, XFS, bcachefs
    hard link  two names of one file                                most filesystems, not FAT or exFAT
    copy       the bytes twice                                      everywhere

A hard link is safe for a file that is not written in place: tokmigrate replaces files, it never writes
into one that has a name in a model directory.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path, PurePosixPath

from tokmigrate.apply.file_metadata import copy_metadata
from tokmigrate.errors import StorageError
from tokmigrate.files import UnsupportedError, exists, has_directory, storage_errors

# Source: the manual page ioctl_ficlone(2).
_FICLONE = 0x40049409
NO_REFLINK = {
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


class CloneMethod(StrEnum):
    """How a file came by the bytes of another."""

    REFLINK = "reflink"
    HARD_LINK = "hard link"
    COPY = "copy"


def clone_or_copy_file(source: Path, target: Path) -> CloneMethod:
    """Make `target` the same file as `source` with its mode, owner and times, and return how.

    Args:
        source: A regular file that the change leaves as it is.
        target: A name that is free; extended attributes and the owner are kept where permitted.

    Raises:
        StorageError: The name is taken, no space, or no permission; `target` is not left behind.
    """
    how = clone_file(source, target)
    if how is not CloneMethod.HARD_LINK:
        with _remove_on_failure(target):
            copy_metadata(source, target)
    return how


def clone_file(source: Path, target: Path) -> CloneMethod:
    """Make `target` a file with the bytes of `source` by the cheapest method, and return which.

    A hard link has the metadata of `source` too; otherwise the mode is 0600 and the time is now.

    Raises:
        StorageError: The name is taken, no space, or no permission; `target` is not left behind.
    """
    for way, how in ((reflink_file, CloneMethod.REFLINK), (link_file, CloneMethod.HARD_LINK)):
        try:
            way(source, target)
        except UnsupportedError:
            continue
        return how
    copy_file(source, target)
    return CloneMethod.COPY


def reflink_file(source: Path, target: Path) -> None:
    """Make `target` a new file that shares the blocks of `source`.

    Raises:
        UnsupportedError: The filesystem cannot share blocks between these two.
        StorageError: The name is taken, no space, or no permission.
    """
    if sys.platform != "linux":
        raise UnsupportedError("sharing blocks is not known on this system", where=str(target))
    with _open_pair("share the blocks of the file", source, target) as (source_fd, target_fd):
        try:
            fcntl.ioctl(target_fd, _FICLONE, source_fd)
        except OSError as error:
            if error.errno in NO_REFLINK:
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
    with _open_pair("copy the file", source, target) as (source_fd, target_fd):
        copy_range(source_fd, 0, target_fd, 0, os.fstat(source_fd).st_size, path=target)


def _require_regular(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise StorageError("is not a regular file", where=str(path))


@contextmanager
def _open_pair(doing: str, source: Path, target: Path) -> Iterator[tuple[int, int]]:
    """Open `source` and a new file `target`, which is removed again where the body fails."""
    with storage_errors(doing, source):
        # A pipe in the place of a file must not block.
        source_fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        _require_regular(source, os.fstat(source_fd))
        with storage_errors(doing, target):
            target_fd = os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            with _remove_on_failure(target):
                try:
                    yield source_fd, target_fd
                finally:
                    os.close(target_fd)
    finally:
        os.close(source_fd)


@contextmanager
def _remove_on_failure(target: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        target.unlink(missing_ok=True)
        raise


BLOCK = 4096
CHUNK = 64 << 20
BUFFER = 8 << 20

# EPERM: some sandboxes answer so to calls that they do not know; plain writing then tells the truth.
_NO_COPY_RANGE = {errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM}


def _no_progress(count: int) -> None:
    del count


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
        progress: Called with the bytes of each part once it is written; parts have at most 64 MiB.
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
        with storage_errors("copy the bytes", path):
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


def clone_tree(
    source_dir: Path, target_dir: Path, except_names: Collection[str] = ()
) -> dict[PurePosixPath, CloneMethod]:
    """Make `target_dir` hold what `source_dir` holds, without `except_names`, and return how each file came.

    Symbolic links stay links. Directories get their modes and times last; files that are written afterwards
    change the times again, and `seal_tree` sets them once more.

    Args:
        source_dir: The directory whose files are shared.
        target_dir: A directory that is empty or still to be made.
        except_names: Paths relative to `source_dir` with `/` between their parts; a directory goes as a whole.

    Raises:
        StorageError: A pipe, socket or device is among the files; a relative link points outside
            `source_dir`; no space, or no permission.
    """
    shared: dict[PurePosixPath, CloneMethod] = {}
    with storage_errors("make the directory", target_dir):
        target_dir.mkdir(exist_ok=True)
    _share_entries(source_dir, target_dir, PurePosixPath(), frozenset(except_names), shared)
    seal_tree(source_dir, target_dir)
    return shared


def seal_tree(source_dir: Path, target_dir: Path) -> None:
    """Give `target_dir` and each directory in it the mode, owner and times that it has in `source_dir`.

    Raises:
        StorageError: They cannot be set.
    """
    with storage_errors("list the directory", target_dir):
        inner = sorted(entry.name for entry in target_dir.iterdir() if _is_directory(entry))
    for name in inner:
        if _is_directory(source_dir / name):
            seal_tree(source_dir / name, target_dir / name)
    copy_metadata(source_dir, target_dir)


def _share_entries(
    source: Path,
    target: Path,
    within: PurePosixPath,
    except_names: frozenset[str],
    shared: dict[PurePosixPath, CloneMethod],
) -> None:
    with storage_errors("list the directory", source):
        entries = sorted(source.iterdir())
    for entry in entries:
        name = within / entry.name
        if str(name) in except_names:
            continue
        with storage_errors("look at the file", entry):
            mode = entry.lstat().st_mode
        if stat.S_ISDIR(mode):
            with storage_errors("make the directory", target / entry.name):
                (target / entry.name).mkdir(mode=0o700)
            _share_entries(entry, target / entry.name, name, except_names, shared)
        elif stat.S_ISLNK(mode):
            _copy_link(entry, target / entry.name, name)
            shared[name] = CloneMethod.COPY
        elif stat.S_ISREG(mode):
            shared[name] = clone_or_copy_file(entry, target / entry.name)
        else:
            raise StorageError(
                "is a pipe, a socket or a device, which no model has",
                where=str(entry),
                hint="move it out of the model directory",
            )


def _copy_link(source: Path, target: Path, name: PurePosixPath) -> None:
    with storage_errors("copy the symbolic link", source):
        leads_to = source.readlink()
        outside = os.path.normpath(name.parent / leads_to).split(os.sep, 1)[0] == os.pardir
        if not leads_to.is_absolute() and outside and exists(source):
            raise StorageError(
                "is a relative link that points outside the model directory, so it breaks beside it",
                where=str(source),
                hint="make the link absolute, or put the file itself in its place",
            )
        target.symlink_to(leads_to)
    copy_metadata(source, target)


def _is_directory(path: Path) -> bool:
    return has_directory(path) and not path.is_symlink()
