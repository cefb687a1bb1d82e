"""Undo data, addressed by content: an object is named by the BLAKE3 digest of its bytes.

An object lies at `ab/cdef…` under the root: one byte that says how it is stored (`r` raw, `z` zlib),
then the data. It appears whole or not at all, and never changes.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import tempfile
import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from io import BytesIO
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

from blake3 import blake3

from tokmigrate.errors import StorageError, UndoError
from tokmigrate.files import (
    MissingFileError,
    fsync_directory,
    has_directory,
    has_file,
    open_file,
    open_for_reading,
    read_file,
)
from tokmigrate.state.packing import RAW, ZLIB, Blocks, compress, pack

_CHUNK = 1 << 20
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UNFINISHED = ".unfinished-"
_DAMAGED = "damaged: its bytes do not match its digest"


class ObjectStore:
    """A folder of objects, which is made when the first one is put."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, data: bytes) -> str:
        """Keep `data` durably and return its digest; an object that is there is left alone, a damaged one replaced."""
        with self.open_batch() as batch:
            return batch.put(data)

    @contextmanager
    def open_batch(self) -> Iterator[ObjectBatch]:
        """Give what keeps many objects, durably when the context ends; what is alike is compressed once."""
        with ExitStack() as files:
            batch = ObjectBatch(self, files)
            yield batch
            batch.finish()

    def get(self, digest: str) -> bytes:
        """Return the bytes of an object; raises UndoError where it is missing or damaged."""
        return b"".join(self._stream(digest))

    def open(self, digest: str) -> OpenObject:
        """Give an object to be read from any place; raises UndoError where it is missing or damaged.

        A large one that is compressed is written to a file without a name, which goes when nobody reads it any more.
        """
        held = b"".join(islice(self._stream(digest), _IN_MEMORY // _CHUNK))
        if len(held) < _IN_MEMORY:
            return OpenObject(BytesIO(held))
        del held
        if _is_raw(self._path(digest)):
            self.check(digest)
            return OpenObject(os.fdopen(open_file(self._path(digest)), "rb"), len(RAW))
        with _storage(self.root, "unpacked"):
            unpacked = OpenObject(tempfile.TemporaryFile(dir=self.root))  # noqa: SIM115 - closed with what is given
            for data in self._stream(digest):
                unpacked.file.write(data)
        return unpacked

    def require(self, digest: str) -> None:
        """Raise UndoError where an object is missing; its bytes are not looked at."""
        if not self.has(digest):
            raise _undo_error(self._path(digest), digest, "missing")

    def check(self, digest: str) -> None:
        """Read an object; raises UndoError where it is missing or damaged."""
        for _ in self._stream(digest):
            pass

    def _stream(self, digest: str) -> Iterator[bytes]:
        """Yield the bytes of an object in chunks of about 1 MiB; that it is damaged may show after the last one."""
        path = self._path(digest)
        seen = blake3()
        try:
            with open_for_reading(path) as file:
                for data in _unpack(file):
                    seen.update(data)
                    yield data
        except MissingFileError as error:
            raise _undo_error(path, digest, "missing") from error
        except zlib.error as error:
            raise _undo_error(path, digest, _DAMAGED) from error
        if seen.hexdigest() != digest:
            raise _undo_error(path, digest, _DAMAGED)

    def has(self, digest: str) -> bool:
        """Return whether an object of this digest is there; its bytes are not looked at."""
        return has_file(self._path(digest))

    def remove_unfinished(self) -> None:
        """Remove the files that killed processes were writing; those that are being written stay."""
        for path in self.root.glob(f"{_UNFINISHED}*"):
            with suppress(OSError, StorageError), open_for_reading(path) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()

    def _new_file(self) -> tuple[Path, BinaryIO]:
        """Return a new file, locked for as long as it is open: a file without a lock is no longer written."""
        while True:
            path = self.root / f"{_UNFINISHED}{secrets.token_hex(8)}"
            file = path.open("xb")
            with suppress(OSError):
                fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_nlink:
                return path, file
            # Another process removed it as left behind before it was locked.
            file.close()

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise UndoError(
                f"{digest!r} is not the digest of an object",
                where=str(self.root),
                hint="the record that names it is damaged: restore .tokmigrate from a backup",
            )
        return self.root / digest[:2] / digest[2:]


class OpenObject:
    """The bytes of an object; the file that has them, from `start` on, is closed with it."""

    def __init__(self, file: BinaryIO, start: int = 0) -> None:
        self.file = file
        self._start = start

    @property
    def size(self) -> int:
        """How many bytes it has."""
        return self.file.seek(0, os.SEEK_END) - self._start

    def read(self, begin: int, size: int) -> bytes:
        """Return `size` bytes from `begin` on; fewer where the object ends."""
        self.file.seek(self._start + begin)
        return self.file.read(size)

    def __del__(self) -> None:
        self.file.close()


_OPEN_FILES = 100
_LARGEST_ALIKE = 64 << 20
_IN_MEMORY = 8 << 20
"""Larger objects that come in parts, or are read in parts, are not held as a whole."""
_ALIKE = 8
"""So many objects are kept to compare others with, up to so many bytes."""


class ObjectBatch:
    """Objects that are kept together: see `ObjectStore.open_batch`."""

    def __init__(self, store: ObjectStore, files: ExitStack) -> None:
        self._store = store
        self._files = files
        self._kept: set[str] = set()
        self._folders: set[Path] = set()
        self._written: list[tuple[BinaryIO, Path, Path]] = []
        self._alike: deque[Blocks] = deque(maxlen=_ALIKE)

    def put(self, data: bytes) -> str:
        """Keep `data` and return its digest, as `ObjectStore.put` does, but that it is durable when the batch ends."""
        digest = blake3(data).hexdigest()
        if digest in self._kept:
            return digest
        stored = self._encode(data)
        path = self._store._path(digest)
        with _storage(self._store.root):
            if not (has_file(path) and read_file(path) == stored) and not self._is_sound(digest):
                unfinished, file = self._open_new()
                file.write(stored)
                self._name(digest, unfinished, file)
        self._kept.add(digest)
        return digest

    def put_parts(self, parts: Iterable[bytes]) -> str:
        """Keep parts, joined, and return their digest, as `put` does; few of them are held in memory."""
        rest = iter(parts)
        held: list[bytes] = []
        size = 0
        while size < _IN_MEMORY:
            part = next(rest, None)
            if part is None:
                return self.put(b"".join(held))
            held.append(part)
            size += len(part)
        seen = blake3()

        def hash_parts() -> Iterator[bytes]:
            for part in chain(held, rest):
                seen.update(part)
                yield part

        with _storage(self._store.root):
            unfinished, file = self._open_new()
            for data in pack(hash_parts()):
                file.write(data)
            digest = seen.hexdigest()
            if digest not in self._kept and not self._is_sound(digest):
                self._name(digest, unfinished, file)
        self._kept.add(digest)
        return digest

    def finish(self) -> None:
        """Make durable what was put so far."""
        with _storage(self._store.root), self._files:
            for file, unfinished, path in self._written:
                os.fsync(file.fileno())
                unfinished.replace(path)
            for folder in sorted(self._folders):
                fsync_directory(folder)
        self._written.clear()
        self._folders.clear()

    def _encode(self, data: bytes) -> bytes:
        packed, blocks = compress(data, self._alike)
        if len(blocks) > 1 and len(data) <= _LARGEST_ALIKE:
            self._alike.append(blocks)
        return ZLIB + packed if blocks else RAW + data

    def _is_sound(self, digest: str) -> bool:
        try:
            self._store.check(digest)
        except UndoError:
            return False
        return True

    def _open_new(self) -> tuple[Path, BinaryIO]:
        _make_folder(self._store.root)
        unfinished, file = self._store._new_file()
        # What cannot be removed harms nothing, and must not hide why it is left.
        self._files.callback(_remove, unfinished)
        # Closing unlocks it, and it has its name by then.
        return unfinished, self._files.enter_context(file)

    def _name(self, digest: str, unfinished: Path, file: BinaryIO) -> None:
        """Give a file the name of its digest when the batch ends."""
        file.flush()
        path = self._store._path(digest)
        if not path.parent.is_dir():
            path.parent.mkdir(exist_ok=True)
            self._folders.add(self._store.root)
        self._folders.add(path.parent)
        self._written.append((file, unfinished, path))
        if len(self._written) >= _OPEN_FILES:
            self.finish()


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _undo_error(path: Path, digest: str, what: str) -> UndoError:
    return UndoError(
        f"the undo data {digest} is {what}",
        where=str(path),
        hint="restore the workspace's .tokmigrate/objects from a backup",
    )


def _is_raw(path: Path) -> bool:
    with open_for_reading(path) as file:
        return file.read(1) == RAW


def _unpack(file: BinaryIO) -> Iterator[bytes]:
    kind = file.read(1)
    if kind == RAW:
        while data := file.read(_CHUNK):
            yield data
        return
    if kind != ZLIB:
        raise zlib.error("no object")
    unpacker = zlib.decompressobj()
    while not unpacker.eof:
        packed = unpacker.unconsumed_tail or file.read(_CHUNK)
        data = unpacker.decompress(packed, _CHUNK)
        if not packed and not data:
            raise zlib.error("cut off")
        yield data
    if unpacker.unused_data or file.read(1):
        raise zlib.error("too long")


@contextmanager
def _storage(root: Path, failed: str = "kept") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StorageError(
            f"undo data cannot be {failed}: {error.strerror}",
            where=str(error.filename or root),
            hint="check the free space and the permissions of the folder, then try again",
        ) from error


def _make_folder(folder: Path) -> None:
    """Make a folder and those above it, each durable before something is put into it."""
    if has_directory(folder):
        return
    _make_folder(folder.parent)
    folder.mkdir(exist_ok=True)
    fsync_directory(folder.parent)
