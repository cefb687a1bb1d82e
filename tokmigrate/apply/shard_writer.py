"""Writing a new shard from the blocks of old ones, with the digest of what was written by its place there."""

from __future__ import annotations

import ctypes
import os
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import Self

import numpy as np

from tokmigrate.apply.clone import share_range
from tokmigrate.files import open_for_reading, storage_errors
from tokmigrate.model.formats.safetensors_header import BLOCK_BYTES as PAGE
from tokmigrate.model.formats.safetensors_header import Header
from tokmigrate.model.weights.tensor_rows import (
    BLOCK_BYTES,
    DIGEST_BYTES,
    Octets,
    OpenFile,
    TensorRows,
    digest_rows,
    shard_digest,
)
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.vocabulary.ids import Run, find_gaps
from tokmigrate.vocabulary.row_edit import Recipe, RowEdit

_WRITE_BACK_BYTES = 32 << 20
"""After how many bytes the kernel is asked to write to the disk."""
_SYNC_FILE_RANGE_WRITE = 2
"""Source: the manual page sync_file_range(2)."""


class _Places:
    """Where the rows of an old tensor go in the new one."""

    def __init__(self, edit: RowEdit) -> None:
        runs = sorted((piece.start, piece.stop, row) for row, piece in edit.copied_rows())
        self._runs = runs
        self._starts = [start for start, _, _ in runs]
        # A row may go to several places, so that runs may overlap.
        self._reach = list(accumulate((stop for _, stop, _ in runs), max))

    def of(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Yield what of the rows from `start` up to `stop` is kept: from and up to where, and the first new row."""
        for begin, end, row in self._runs[bisect_right(self._reach, start) : bisect_right(self._starts, stop - 1)]:
            first, last = max(begin, start), min(end, stop)
            if first < last:
                yield first, last, row + first - begin


class ShardWriter:
    """Writes a new shard while old ones are read; open while the `with` statement runs, which may run again.

    A tensor is `in` it if the new shard has it; the vocabulary tensors may be those of the whole model.
    """

    def __init__(self, path: Path, header: Header, tensors: Mapping[str, VocabularyTensor], edit: RowEdit) -> None:
        self.path = path
        self._header = header
        self._names = {entry.name for entry in header.entries}
        self._tensors = {name: tensor for name, tensor in tensors.items() if name in self._names}
        self._edits = {name: tensor.window.of(edit) for name, tensor in self._tensors.items()}
        self._places = {name: _Places(own) for name, own in self._edits.items()}
        self._tables = {name: bytearray(DIGEST_BYTES * own.new_rows) for name, own in self._edits.items()}
        self._fixed: dict[str, str] = {}
        self._shared: list[Run] = []
        self._waiting = 0
        self._pool = ThreadPoolExecutor(1)
        self._descriptor = -1

    def __contains__(self, tensor: str) -> bool:
        return tensor in self._names

    def __enter__(self) -> Self:
        with storage_errors("write the file", self.path):
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        self._pool = ThreadPoolExecutor(1)
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)
        os.close(self._descriptor)
        self._descriptor = -1

    def start(self, sources: Mapping[Path, Header]) -> None:
        """Write the header, and share with the old files the blocks that the filesystem can share."""
        with storage_errors("write the file", self.path):
            os.ftruncate(self._descriptor, self._header.file_size)
        self._write(memoryview(self._header.raw), 0)
        for path, old in sources.items():
            with open_for_reading(path) as file:
                self._shared = sorted((*self._shared, *self._share(file.fileno(), old)))

    def _share(self, source: int, old: Header) -> Iterator[Run]:
        for start, target, size in self._copies(old):
            # Whole blocks are shared, and only where they begin at a block in both files.
            first = -start % PAGE
            length = (size - first) // PAGE * PAGE
            if (start - target) % PAGE or length <= 0:
                continue
            if not share_range(source, start + first, self._descriptor, target + first, length):
                return
            yield target + first, target + first + length

    def _copies(self, old: Header) -> Iterator[tuple[int, int, int]]:
        """Yield what is copied: where it begins in the old file and in the new one, and how many bytes it has."""
        pending: tuple[int, int, int] | None = None
        for part in self._parts(old):
            if pending and (pending[0] + pending[2], pending[1] + pending[2]) == part[:2]:
                pending = (pending[0], pending[1], pending[2] + part[2])
                continue
            if pending:
                yield pending
            pending = part
        if pending:
            yield pending

    def _parts(self, old: Header) -> Iterator[tuple[int, int, int]]:
        for entry in old.by_offset:
            if entry.name not in self:
                continue
            begin, target = old.data_start + entry.begin, self._position(entry.name)
            tensor = self._tensors.get(entry.name)
            if tensor is None:
                yield begin, target, len(entry)
            elif tensor.geometry.outer == 1:
                size = tensor.row_bytes
                for row, piece in self._edits[entry.name].copied_rows():
                    yield begin + piece.start * size, target + row * size, len(piece) * size

    def list_rest(self, tensor: str) -> list[Run]:
        """Return what of the bytes of a tensor, which is copied as a whole, is not shared with an old file."""
        begin, size = self._position(tensor), len(self._header.entry(tensor))
        return list(find_gaps(self._find_shared(begin, begin + size), size))

    def put_rows(self, tensor: str, start: int, rows: Octets, digests: bytes) -> None:
        """Write those of the rows from `start` on that are kept."""
        for first, last, row in self._places[tensor].of(start, start + len(rows)):
            kept = slice(first - start, last - start)
            self._put(tensor, row, rows[kept], digests[kept.start * DIGEST_BYTES : kept.stop * DIGEST_BYTES])

    def put_bytes(self, tensor: str, offset: int, data: memoryview) -> None:
        """Write bytes of a tensor that is copied as a whole."""
        self._write(data, self._position(tensor) + offset)

    def end_tensor(self, tensor: str, digest: str) -> None:
        """Take the digest of such a tensor."""
        self._fixed[tensor] = digest

    def put_new_rows(self, make: Callable[[str, Recipe], bytes]) -> None:
        """Write the new rows of all tensors; `make` returns the bytes of one by its recipe."""
        for name, own in self._edits.items():
            most = max(1, BLOCK_BYTES // max(1, self._tensors[name].row_bytes))
            group: list[bytes] = []
            first = 0
            for row, recipe in own.recipes():
                if group and (row != first + len(group) or len(group) == most):
                    self._put_joined(name, first, group)
                    group = []
                first = first if group else row
                group.append(make(name, recipe))
            if group:
                self._put_joined(name, first, group)

    def _put_joined(self, tensor: str, row: int, rows: list[bytes]) -> None:
        octets = np.frombuffer(b"".join(rows), np.uint8).reshape(len(rows), -1)
        self._put(tensor, row, octets, digest_rows(octets))

    def _put(self, tensor: str, row: int, rows: Octets, digests: bytes) -> None:
        geometry = self._tensors[tensor].geometry
        begin, inner, held = self._position(tensor), geometry.inner_bytes, self._edits[tensor].new_rows
        for outer in range(geometry.outer):
            part = np.ascontiguousarray(rows[:, outer * inner : (outer + 1) * inner])
            self._write(part.reshape(-1).data, begin + (outer * held + row) * inner)
        self._tables[tensor][row * DIGEST_BYTES : row * DIGEST_BYTES + len(digests)] = digests

    def digest(self) -> str:
        """Return the digest of the shard, made of those of what was written at each place."""
        tables = {name: bytes(table) for name, table in self._tables.items()}
        return shard_digest(self._header, tables, self._fixed)

    def is_in_place(self, sources: Mapping[Path, Header]) -> bool:
        """Return whether a sample reads back as it must: both ends of each tensor, and a row in the middle."""
        return all(self._is_copied(path, old) for path, old in sources.items()) and self._has_rows()

    def _is_copied(self, source: Path, old: Header) -> bool:
        with OpenFile(self.path) as new, OpenFile(source) as before:
            for name in (each.name for each in old.entries if each.name in self and each.name not in self._tensors):
                begin, target, size = old.data_start + old.entry(name).begin, self._position(name), len(old.entry(name))
                edge = min(size, PAGE)
                for offset in (0, size - edge):
                    if new.read(target + offset, edge) != before.read(begin + offset, edge):
                        return False
        return True

    def _has_rows(self) -> bool:
        for name, table in self._tables.items():
            count, tensor = len(table) // DIGEST_BYTES, self._tensors[name]
            lie = replace(tensor.geometry, rows=count)
            with TensorRows(self.path, self._position(name), lie, tensor.dtype) as rows:
                for row in {0, count // 2, count - 1} if count else ():
                    if digest_rows(rows.read_run(row, row + 1)) != table[row * DIGEST_BYTES : (row + 1) * DIGEST_BYTES]:
                        return False
        return True

    def _position(self, tensor: str) -> int:
        return self._header.data_start + self._header.entry(tensor).begin

    def _find_shared(self, begin: int, end: int) -> list[Run]:
        """Return what is shared of a part of the file, as seen from its beginning."""
        first_near = bisect_right(self._shared, begin, key=itemgetter(1))
        near = self._shared[first_near : bisect_left(self._shared, end, key=itemgetter(0))]
        return [(max(0, first - begin), last - begin) for first, last in near]

    def _write(self, data: memoryview, offset: int) -> None:
        for start, stop in find_gaps(self._find_shared(offset, offset + len(data)), len(data)):
            position = start
            with storage_errors("write the file", self.path):
                while position < stop:
                    position += os.pwrite(self._descriptor, data[position:stop], offset + position)
        self._waiting += len(data)
        if self._waiting > _WRITE_BACK_BYTES:
            self._waiting = 0
            # In a thread of its own: the call waits where the disk is busy.
            self._pool.submit(start_writing_back, self._descriptor)


def start_writing_back(descriptor: int) -> None:
    """Let the kernel begin to write a file to the disk, so that the last fsync has little left to wait for."""
    call = getattr(ctypes.CDLL(None), "sync_file_range", None)
    if call is not None:
        # Of the whole file. Only a hint: what it cannot do, fsync does, and reports.
        call(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(_SYNC_FILE_RANGE_WRITE))
