"""Runs of bytes from one open file to another, inside the kernel where it can."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Callable
from pathlib import Path

from tokmigrate.errors import StorageError
from tokmigrate.files import storage_errors

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
