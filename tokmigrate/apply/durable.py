"""Bytes and names that outlast a loss of power.

A failed fsync is never tried again: the kernel may have dropped the pages that it could not write, and a
second call would then report success (the fsync errors that PostgreSQL met in 2018).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from tokmigrate.apply.file_metadata import read_metadata, write_metadata
from tokmigrate.errors import StorageError
from tokmigrate.files import entries, exists, fsync_directory, kind_of, open_for_reading, storage_errors


class NotDurableError(StorageError):
    """A file was written or removed, and the disk does not confirm it."""


def fsync_file(path: Path) -> None:
    """Return once the bytes of `path` are on the disk; StorageError where it is not known which of them are."""
    with storage_errors("write the file to the disk", path):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            fsync_descriptor(descriptor)
        finally:
            os.close(descriptor)


def fsync_descriptor(descriptor: int) -> None:
    """Return once the bytes of an open file are on the disk; an OSError where they are not."""
    if sys.platform == "darwin":
        # There fsync alone stops at the cache of the drive.
        fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
    else:
        os.fsync(descriptor)


def drop_cache(path: Path) -> None:
    """Write a file to the disk, and let the next read come from there."""
    fsync_file(path)
    with open_for_reading(path) as file:
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def fsync_parents(*paths: Path) -> None:
    """Return once the names of `paths` are on the disk; each parent directory is written once."""
    for parent in dict.fromkeys(path.parent for path in paths):
        fsync_directory(parent)


def fsync_tree_bottom_up(directory: Path) -> None:
    """Return once all of `directory` is on the disk: files first, then each directory after what it holds."""
    for entry in entries(directory):
        kind = kind_of(entry)
        if kind == stat.S_IFDIR:
            fsync_tree_bottom_up(entry)
        elif kind == stat.S_IFREG:
            fsync_file(entry)
    fsync_directory(directory)


def write_durably(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put a file of `data` in the place of `path`: at every instant the old file or the new one, whole.

    Its permission bits are `mode`, whatever the umask; owner and attributes of the old file are kept where permitted.

    Raises:
        NotDurableError: The new file is there, and a loss of power may bring the old one back.
        StorageError: The old file is still there, and nothing else.
    """
    temporary = temporary_path(path)
    with storage_errors("write the file", path):
        try:
            # One that a killed process left is no use to anyone.
            temporary.unlink(missing_ok=True)
            _write_new(temporary, data, mode)
            if exists(path):
                written_ns = temporary.stat().st_mtime_ns
                write_metadata(temporary, replace(read_metadata(path), mode=mode, mtime_ns=written_ns))
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    _fsync_name(path)


def remove_durably(path: Path) -> None:
    """Remove a file.

    Raises:
        NotDurableError: It is gone, and a loss of power may bring it back.
        StorageError: It is still there.
    """
    with storage_errors("remove the file", path):
        path.unlink()
    _fsync_name(path)


@contextmanager
def open_new_directory(path: Path) -> Iterator[Path]:
    """Give a directory that becomes `path`, where nothing is, once all in it is on the disk; none if that fails."""
    temporary = temporary_path(path)
    # One that a killed process left is no use to anyone.
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir()
        yield temporary
        fsync_tree_bottom_up(temporary)
        temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    fsync_parents(path)


def temporary_path(path: Path) -> Path:
    """Return the name under which what is new is written, and which a process that was killed leaves behind."""
    return path.with_name(f".{path.name}.new")


def _fsync_name(path: Path) -> None:
    try:
        fsync_directory(path.parent)
    except StorageError as error:
        raise NotDurableError(error.message, where=error.where, hint=error.hint) from error


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fchmod(descriptor, mode)
        fsync_descriptor(descriptor)
    finally:
        os.close(descriptor)
