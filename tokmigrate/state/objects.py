"""Undo data, addressed by content: an object is named by the BLAKE3 digest of its bytes.

An object lies at `ab/cdef…` under the root: one byte that says how it is stored (`r` raw, `z` zlib),
then the data. It appears whole or not at all, and never changes.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from tokmigrate.errors import StorageError, UndoError
from tokmigrate.files import MissingFileError, entries, has_directory, has_file, opened

_RAW = b"r"
_ZLIB = b"z"
_LEVEL = 3
_SAMPLE = 1 << 18
_CHUNK = 1 << 20
_PAYS_BELOW = 0.9
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = ".unfinished-"


class ObjectStore:
    """A folder of objects.

    Args:
        root: The folder; made when the first object is put.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, data: bytes) -> str:
        """Keep `data` durably and return its digest.

        An object that is there already is read back and left alone; a damaged one is replaced.
        Raises StorageError where the filesystem will not do it.
        """
        digest = blake3(data).hexdigest()
        if self._intact(digest):
            with _storage(self.root):
                _sync_folder(self._path(digest).parent)
            return digest
        return self.put_stream([data])

    def put_stream(self, chunks: Iterable[bytes]) -> str:
        """Keep the joined `chunks` durably, in flat memory, and return the digest of them all.

        Raises StorageError where the filesystem will not do it.
        """
        with _storage(self.root):
            _make_folder(self.root)
        unfinished, file = self._new_file()
        try:
            # Closing unlocks it, and it has its name by then.
            with file:
                with _storage(self.root):
                    digest = _write(file, chunks)
                    file.flush()
                    os.fsync(file.fileno())
                path = self._path(digest)
                present = self._intact(digest)
                with _storage(self.root):
                    _make_folder(path.parent)
                    if not present:
                        unfinished.replace(path)
                    _sync_folder(path.parent)
        finally:
            # What cannot be removed harms nothing, and must not hide why it is left.
            with suppress(OSError):
                unfinished.unlink(missing_ok=True)
        return digest

    def get(self, digest: str) -> bytes:
        """Return the bytes of an object; raises UndoError where it is missing or damaged."""
        return b"".join(self.stream(digest))

    def check(self, digest: str) -> None:
        """Read an object; raises UndoError where it is missing or damaged."""
        for _ in self.stream(digest):
            pass

    def stream(self, digest: str) -> Iterator[bytes]:
        """Yield the bytes of an object in chunks of about 1 MiB.

        Raises UndoError where it is missing or damaged. Damage may show only after the last chunk,
        so use nothing of it before the end.
        """
        path = self._path(digest)
        seen = blake3()
        try:
            with opened(path) as file:
                for data in _unpack(file):
                    seen.update(data)
                    yield data
        except MissingFileError as error:
            raise UndoError(
                f"the undo data {digest} is missing",
                where=str(path),
                hint="restore the workspace's .tokmigrate/objects from a backup",
            ) from error
        except (zlib.error, _DamagedError) as error:
            raise _damaged_error(path, digest) from error
        if seen.hexdigest() != digest:
            raise _damaged_error(path, digest)

    def has(self, digest: str) -> bool:
        """Return whether an object of this digest is there; its bytes are not looked at."""
        return has_file(self._path(digest))

    def digests(self) -> Iterator[str]:
        """Yield the digest of every object, sorted."""
        if not has_directory(self.root):
            return
        for folder in entries(self.root):
            if len(folder.name) == 2 and has_directory(folder):
                for path in entries(folder):
                    if _DIGEST.fullmatch(folder.name + path.name):
                        yield folder.name + path.name

    def remove_unfinished(self) -> None:
        """Remove the files that killed processes were writing; those that are being written stay."""
        for path in self.unfinished():
            with suppress(OSError, StorageError), opened(path) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()

    def _new_file(self) -> tuple[Path, BinaryIO]:
        """Return a new file, locked for as long as it is open: a file without a lock is no longer written."""
        while True:
            path = self.root / f"{_UNFINISHED}{secrets.token_hex(8)}"
            with _storage(self.root):
                file = path.open("xb")
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                return path, file
            # Another process removed it as left behind before it was locked.
            file.close()

    def unfinished(self) -> tuple[Path, ...]:
        """Return the files that are being written, or that a crash left behind."""
        return tuple(sorted(self.root.glob(f"{_UNFINISHED}*")))

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise UndoError(
                f"{digest!r} is not the digest of an object",
                where=str(self.root),
                hint="the record that names it is damaged: restore .tokmigrate from a backup",
            )
        return self.root / digest[:2] / digest[2:]

    def _intact(self, digest: str) -> bool:
        if not self.has(digest):
            return False
        try:
            self.check(digest)
        except UndoError:
            return False
        return True


class _DamagedError(Exception):
    pass


def _damaged_error(path: Path, digest: str) -> UndoError:
    return UndoError(
        f"the undo data {digest} is damaged: its bytes do not match its digest",
        where=str(path),
        hint="restore the workspace's .tokmigrate/objects from a backup",
    )


def _write(file: BinaryIO, chunks: Iterable[bytes]) -> str:
    seen = blake3()
    source = iter(chunks)
    first = next(source, b"")
    sample = first[:_SAMPLE]
    if len(zlib.compress(sample, _LEVEL)) < _PAYS_BELOW * len(sample):
        packer = zlib.compressobj(_LEVEL)
        file.write(_ZLIB)
        for data in chain([first], source):
            seen.update(data)
            file.write(packer.compress(data))
        file.write(packer.flush())
    else:
        file.write(_RAW)
        for data in chain([first], source):
            seen.update(data)
            file.write(data)
    return seen.hexdigest()


def _unpack(file: BinaryIO) -> Iterator[bytes]:
    kind = file.read(1)
    if kind == _RAW:
        while data := file.read(_CHUNK):
            yield data
        return
    if kind != _ZLIB:
        raise _DamagedError
    unpacker = zlib.decompressobj()
    while not unpacker.eof:
        packed = unpacker.unconsumed_tail or file.read(_CHUNK)
        data = unpacker.decompress(packed, _CHUNK)
        if not packed and not data:
            raise _DamagedError
        yield data
    if unpacker.unused_data or file.read(1):
        raise _DamagedError


@contextmanager
def _storage(root: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"undo data cannot be kept: {error.strerror}",
            where=str(error.filename or root),
            hint="check the free space and the permissions of the folder, then try again",
        ) from error


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each durable before something is put into it."""
    if has_directory(folder):
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
