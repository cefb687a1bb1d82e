"""What the filesystem says about a file besides its bytes: mode, owner, times, extended attributes."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from tokmigrate.errors import UndoError
from tokmigrate.files import storage_errors

_XATTR_DENIED = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENODATA, errno.EINVAL}


@dataclass(frozen=True)
class FileFacts:
    """What a file, directory or symbolic link is given back besides its contents.

    Args:
        mode: The permission bits, without the kind of file.
        uid: The owner's number.
        gid: The group's number.
        mtime_ns: When its contents were last changed, in nanoseconds since 1970.
    """

    mode: int
    uid: int
    gid: int
    mtime_ns: int

    def at(self, mtime_ns: int) -> FileFacts:
        """Return the same facts with another time of change, in nanoseconds since 1970."""
        return replace(self, mtime_ns=mtime_ns)

    def to_json(self) -> dict[str, int]:
        """Return the facts as a JSON object."""
        return asdict(self)

    @staticmethod
    def from_json(document: Mapping[str, object]) -> FileFacts:
        """Return the facts that `to_json` gave; an UndoError where they are not whole."""
        numbers: dict[str, int] = {}
        for field in fields(FileFacts):
            number = document.get(field.name)
            if not isinstance(number, int) or isinstance(number, bool):
                raise UndoError(
                    f"the recorded facts of a file lack a whole number '{field.name}'",
                    hint="the record is damaged: restore the model and its state from a backup",
                )
            numbers[field.name] = number
        return FileFacts(**numbers)


def file_facts(path: Path) -> FileFacts:
    """Return the facts of `path`; those of a symbolic link itself, not of what it leads to.

    Raises:
        StorageError: It cannot be looked at.
    """
    with storage_errors("read mode and times", path):
        status = path.lstat()
    return FileFacts(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)


def set_facts(path: Path, facts: FileFacts) -> None:
    """Give `path` its mode, owner and time of change; what is right already is not touched.

    The owner is kept where permitted. A hard link shares its facts with every other name of the file.

    Raises:
        StorageError: Mode or time cannot be set.
    """
    with storage_errors("set mode and times", path):
        status = path.lstat()
        _chown(path, status, facts)
        # Links have no mode of their own; a change of owner may have cleared bits, so it is read again.
        if not stat.S_ISLNK(status.st_mode) and stat.S_IMODE(path.lstat().st_mode) != facts.mode:
            path.chmod(facts.mode)
        if status.st_mtime_ns != facts.mtime_ns:
            os.utime(path, ns=(status.st_atime_ns, facts.mtime_ns), follow_symlinks=False)


def carry_facts(source: Path, target: Path) -> None:
    """Give `target` the facts of `source`, its time of access and, where permitted, extended attributes.

    Raises:
        StorageError: Mode or times cannot be set.
    """
    with storage_errors("set mode and times", target):
        status = source.lstat()
        # Attributes come first: they need the right to write that the mode may take away.
        if not stat.S_ISLNK(status.st_mode):
            _carry_xattrs(source, target)
        set_facts(target, file_facts(source))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _chown(path: Path, status: os.stat_result, facts: FileFacts) -> None:
    if (status.st_uid, status.st_gid) == (facts.uid, facts.gid):
        return
    try:
        os.chown(path, facts.uid, facts.gid, follow_symlinks=False)
    except PermissionError:
        _chown_group(path, status, facts)


def _chown_group(path: Path, status: os.stat_result, facts: FileFacts) -> None:
    # Without privileges the owner stays, but a group of one's own can still be given.
    if status.st_gid == facts.gid:
        return
    try:
        os.chown(path, -1, facts.gid, follow_symlinks=False)
    except PermissionError:
        return


def _carry_xattrs(source: Path, target: Path) -> None:
    if sys.platform != "linux":
        return
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno in _XATTR_DENIED:
            return
        raise
    for name in names:
        try:
            os.setxattr(target, name, os.getxattr(source, name))
        except OSError as error:
            if error.errno not in _XATTR_DENIED:
                raise
