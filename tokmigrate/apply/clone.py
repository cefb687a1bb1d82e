"""Files and directories taken over from a model, as cheaply as the filesystem can make it.

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
import shutil
import stat
import struct
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from tokmigrate.apply.file_metadata import copy_metadata
from tokmigrate.errors import StorageError
from tokmigrate.files import entries, exists, has_directory, kind_of, open_for_reading, storage_errors

# Source: the manual pages ioctl_ficlone(2) and ioctl_ficlonerange(2).
_FICLONE = 0x40049409
_FICLONERANGE = 0x4020940D
_NO_LINK = {errno.EPERM, errno.EOPNOTSUPP, errno.EXDEV, errno.EMLINK, errno.ENOSYS}
_NO_REFLINK = {*_NO_LINK, errno.EINVAL, errno.ENOTTY, errno.EBADF, errno.ETXTBSY}
_BUFFER_BYTES = 1 << 20


def clone_file(source: Path, target: Path) -> None:
    """Make `target` the same file as `source` by the cheapest way, with its mode, owner, times and attributes.

    Raises StorageError where the name is taken, or it cannot be made; then `target` is not left behind.
    """
    with _open_pair("share the blocks of the file", source, target) as (reader, writer):
        is_shared = _share(writer.fileno(), _FICLONE, reader.fileno())
        if is_shared:
            copy_metadata(source, target)
        else:
            target.unlink()
    if not is_shared and not link_file(source, target):
        copy_file(source, target)


def copy_file(source: Path, target: Path) -> None:
    """Make `target` a new file with the bytes and metadata of `source`; errors are those of `clone_file`."""
    with _open_pair("copy the file", source, target) as (reader, writer):
        shutil.copyfileobj(reader, writer, _BUFFER_BYTES)
        writer.flush()
        missing = os.fstat(reader.fileno()).st_size - writer.tell()
        if missing > 0:
            message = f"the source ended {missing} bytes before its end should come"
            hint = "it was cut while it was read: see that nothing else writes to the model"
            raise StorageError(message, where=str(source), hint=hint)
        copy_metadata(source, target)


def share_range(source: int, source_offset: int, target: int, target_offset: int, length: int) -> bool:
    """Let two open files share whole blocks; return whether the filesystem can do that."""
    return _share(target, _FICLONERANGE, struct.pack("qQQQ", source, source_offset, length, target_offset))


def _share(target: int, request: int, argument: int | bytes) -> bool:
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(target, request, argument)
    except OSError as error:
        if error.errno not in _NO_REFLINK:
            raise
        return False
    return True


def link_file(source: Path, target: Path) -> bool:
    """Make `target` a hard link to `source`; return whether the filesystem can do that."""
    with storage_errors("make a hard link", target):
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return False
    return True


@contextmanager
def _open_pair(doing: str, source: Path, target: Path) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open `source` and a new file `target`, which is removed again where the body fails."""
    if source.is_symlink():
        hint = "it was replaced while it was copied: run the command again when no other process writes there"
        raise StorageError("is not a regular file", where=str(source), hint=hint)
    with (
        open_for_reading(source) as reader,
        storage_errors(doing, target),
        open(target, "xb", opener=partial(os.open, mode=0o600)) as writer,
    ):
        try:
            yield reader, writer
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def clone_tree(source_dir: Path, target_dir: Path, except_names: Collection[str] = ()) -> None:
    """Make `target_dir` hold what `source_dir` holds, without `except_names`.

    Symbolic links stay links. Directories get their modes and times last; files that are written afterwards
    change the times again, and `seal_tree` sets them once more. Names are paths relative to `source_dir`. Raises
    StorageError for a pipe, socket or device, and for a relative link that points outside `source_dir`.
    """
    with storage_errors("make the directory", target_dir):
        target_dir.mkdir(exist_ok=True)
    _clone_entries(source_dir, target_dir, PurePosixPath(), frozenset(except_names))
    seal_tree(source_dir, target_dir)


def seal_tree(source_dir: Path, target_dir: Path) -> None:
    """Give `target_dir` and each directory in it the mode, owner and times that it has in `source_dir`."""
    for entry in entries(target_dir):
        if _is_directory(entry) and _is_directory(source_dir / entry.name):
            seal_tree(source_dir / entry.name, entry)
    copy_metadata(source_dir, target_dir)


def _clone_entries(source: Path, target: Path, within: PurePosixPath, except_names: frozenset[str]) -> None:
    for entry in entries(source):
        name, place = within / entry.name, target / entry.name
        if str(name) in except_names:
            continue
        kind = kind_of(entry)
        if kind == stat.S_IFDIR:
            with storage_errors("make the directory", place):
                place.mkdir(mode=0o700)
            _clone_entries(entry, place, name, except_names)
        elif kind == stat.S_IFLNK:
            _copy_link(entry, place, name)
        elif kind == stat.S_IFREG:
            clone_file(entry, place)
        else:
            hint = "move it out of the model directory"
            raise StorageError("is a pipe, a socket or a device, which no model has", where=str(entry), hint=hint)


def _copy_link(source: Path, target: Path, name: PurePosixPath) -> None:
    with storage_errors("copy the symbolic link", source):
        leads_to = source.readlink()
        outside = os.path.normpath(name.parent / leads_to).split(os.sep, 1)[0] == os.pardir
        if not leads_to.is_absolute() and outside and exists(source):
            message = "is a relative link that points outside the model directory, so it breaks beside it"
            hint = "make the link absolute, or put the file itself in its place"
            raise StorageError(message, where=str(source), hint=hint)
        target.symlink_to(leads_to)
    copy_metadata(source, target)


def _is_directory(path: Path) -> bool:
    return has_directory(path) and not path.is_symlink()
