"""What the filesystem says about a file besides its bytes: mode, owner, times, extended attributes."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokmigrate.files import storage_errors
from tokmigrate.model.model_files import read_link

_DENIED = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENODATA, errno.EINVAL}
_KERNELS_OWN = ("security.", "trusted.overlay.")  # Attributes that the system itself gives to files, by its own rules

Attributes = tuple[tuple[str, str], ...]
"""Extended attributes, access control lists among them: names and values in hexadecimal, sorted."""


@dataclass(frozen=True)
class FileMetadata:
    """What a file, directory or link is given back besides its contents; its mode without the kind of file."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    attributes: Attributes = ()

    def to_json(self) -> dict[str, Any]:
        """Return the metadata as a JSON object."""
        held = asdict(self)
        return held if self.attributes else {name: held[name] for name in held if name != "attributes"}

    def differences(self, found: FileMetadata) -> list[str]:
        """Return what else than the time of change is not as in these metadata, in words."""
        items: list[str] = []
        if (self.uid, self.gid) != (found.uid, found.gid):
            items.append(f"owner {self.uid}:{self.gid}")
        if self.mode != found.mode:
            items.append(f"mode {self.mode:o}")
        names = sorted({name for name, _ in {*self.attributes} ^ {*found.attributes}})
        return [*items, *(f"attribute {name}" for name in names)]


@dataclass(frozen=True)
class LinkMetadata:
    """What a symbolic link holds, and its own owner and times."""

    target: str
    metadata: FileMetadata

    def to_json(self) -> dict[str, Any]:
        """Return the link as a JSON object."""
        return {"target": self.target, "metadata": self.metadata.to_json()}


def read_link_metadata(path: Path) -> LinkMetadata | None:
    """Return what the symbolic link at `path` is given back, None where there is no link."""
    target = read_link(path)
    return None if target is None else LinkMetadata(target, read_metadata(path))


def read_metadata(path: Path) -> FileMetadata:
    """Return the metadata of `path`; those of a symbolic link itself, not of what it leads to."""
    with storage_errors("read mode, owner, times and attributes", path):
        status = path.lstat()
        attributes = _attributes(path)
    return FileMetadata(stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns, attributes)


def write_metadata(path: Path, metadata: FileMetadata) -> None:
    """Give `path` its mode, owner, attributes and time of change; what is right already is not touched.

    Owner and attributes are set where permitted; `metadata_check` finds what is not as it should be. A hard link
    shares its metadata with every other name of the file. Raises StorageError where mode or time cannot be set.
    """
    with storage_errors("set mode, owner, times and attributes", path):
        status = path.lstat()
        _chown(path, status, metadata)
        # Attributes come first: they need the right to write that the mode may take away.
        _set_attributes(path, metadata.attributes)
        # Links have no mode of their own; a change of owner may have cleared bits, so it is read again.
        if not stat.S_ISLNK(status.st_mode) and stat.S_IMODE(path.lstat().st_mode) != metadata.mode:
            path.chmod(metadata.mode)
        if status.st_mtime_ns != metadata.mtime_ns:
            os.utime(path, ns=(status.st_atime_ns, metadata.mtime_ns), follow_symlinks=False)


def copy_metadata(source: Path, target: Path) -> None:
    """Give `target` the metadata of `source` and its time of access."""
    with storage_errors("set mode, owner, times and attributes", target):
        status = source.lstat()
        write_metadata(target, read_metadata(source))
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _chown(path: Path, status: os.stat_result, metadata: FileMetadata) -> None:
    if (status.st_uid, status.st_gid) == (metadata.uid, metadata.gid):
        return
    # Without privileges the owner stays, but a group of one's own can still be given.
    for uid in (metadata.uid, -1):
        with suppress(PermissionError):
            os.chown(path, uid, metadata.gid, follow_symlinks=False)
            return


def _attributes(path: Path) -> Attributes:
    if sys.platform != "linux":
        return ()
    found: list[tuple[str, str]] = []
    try:
        for name in os.listxattr(path, follow_symlinks=False):
            if not name.startswith(_KERNELS_OWN):
                found.append((name, os.getxattr(path, name, follow_symlinks=False).hex()))
    except OSError as error:
        if error.errno not in _DENIED:
            raise
    return tuple(sorted(found))


def _set_attributes(path: Path, attributes: Attributes) -> None:
    held = _attributes(path)
    if held == attributes or sys.platform != "linux":
        return
    for name in dict(held).keys() - dict(attributes).keys():
        with _where_permitted():
            os.removexattr(path, name, follow_symlinks=False)
    for name, value in attributes:
        with _where_permitted():
            os.setxattr(path, name, bytes.fromhex(value), follow_symlinks=False)


@contextmanager
def _where_permitted() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in _DENIED:
            raise
