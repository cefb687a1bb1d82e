"""The rows of a tensor along its vocabulary axis, read from the file in blocks."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeAlias

import numpy as np
from blake3 import blake3

from tokmigrate.errors import ModelError, WeightsError
from tokmigrate.files import MissingFileError, open_file, open_for_reading, storage_errors
from tokmigrate.model.formats.dtype import ITEM_BITS, to_float64
from tokmigrate.model.formats.safetensors_header import Header
from tokmigrate.vocabulary.ids import Run, count, cut_runs

if TYPE_CHECKING:
    import numpy.typing as npt

Octets: TypeAlias = "npt.NDArray[np.uint8]"
BLOCK_BYTES = 4 << 20
DIGEST_BYTES = 32
TENSOR_DIGEST_PREFIX = "r1:"
"""Names the way of digesting a tensor, so that an old digest stays verifiable if it changes."""


@dataclass(frozen=True)
class Geometry:
    """How rows lie in a tensor's bytes: `outer` times `rows`, the vocabulary axis, times `inner_bytes`."""

    outer: int
    rows: int
    inner_bytes: int

    @staticmethod
    def of(shape: tuple[int, ...], dtype: str, axis: int) -> Geometry:
        """Return the geometry of a tensor.

        Raises:
            ModelError: The tensor has no such axis, or a row would begin within a byte.
        """
        if not 0 <= axis < len(shape):
            raise ModelError(
                f"a tensor of shape {list(shape)} has no axis {axis}", hint="correct the axis under vocab_tensors"
            )
        inner_bits = math.prod(shape[axis + 1 :]) * ITEM_BITS[dtype]
        if inner_bits % 8:
            raise ModelError(
                f"quantized dtype {dtype}: in shape {list(shape)} a row does not begin on a whole byte",
                hint="migrate the checkpoint that it was quantized from, then quantize again",
            )
        return Geometry(math.prod(shape[:axis]), shape[axis], inner_bits // 8)

    @property
    def row_bytes(self) -> int:
        """The bytes of one row, all its pieces together."""
        return self.outer * self.inner_bytes

    @property
    def size(self) -> int:
        """The bytes of the tensor."""
        return self.row_bytes * self.rows


class OpenFile:
    """A file that is read at any place, by any number of threads; a context manager.

    It reads with pread and never maps the file, so that memory stays at one block.

    Raises:
        WeightsError: The file is missing.
        StorageError: It cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor = -1

    def __enter__(self) -> Self:
        try:
            self._descriptor = open_file(self.path)
        except MissingFileError as error:
            raise WeightsError("the file is missing", where=str(self.path), hint="fetch it again") from error
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
        self._descriptor = -1

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes of the file from `offset` on; errors are those of `fill`."""
        octets = bytearray(size)
        self.fill(memoryview(octets), offset)
        return bytes(octets)

    def fill(self, target: memoryview, offset: int) -> None:
        """Fill `target`, a view of bytes, with what the file holds from `offset` on.

        Raises:
            WeightsError: The file ends before.
            StorageError: It cannot be read.
        """
        done = 0
        while done < len(target):
            with storage_errors("read the file", self.path):
                taken = os.preadv(self._descriptor, [target[done:]], offset + done)
            if taken == 0:
                raise WeightsError(
                    f"the file ends {len(target) - done} bytes too early",
                    where=str(self.path),
                    hint="something else changed it meanwhile: look at the model again",
                )
            done += taken


class TensorRows(OpenFile):
    """The rows of one tensor of an open file.

    Args:
        begin: The tensor's first byte, counted from the start of the file.
    """

    def __init__(self, path: Path, begin: int, geometry: Geometry, dtype: str) -> None:
        super().__init__(path)
        self.begin = begin
        self.geometry = geometry
        self.dtype = dtype

    @property
    def width(self) -> int:
        """The numbers in one row."""
        return self.geometry.row_bytes * 8 // ITEM_BITS[self.dtype]

    def read_run(self, start: int, stop: int) -> Octets:
        """Return the rows from `start` up to `stop` as stored, `(stop - start, row_bytes)`; errors as `read_runs`."""
        return self.read_runs([(start, stop)])

    def read_runs(self, runs: Sequence[Run], memory: Octets | None = None) -> Octets:
        """Return the rows of `runs` as stored, `(rows, row_bytes)`.

        They come at once: who reads many asks for them in parts.

        Args:
            memory: Where they go, as many bytes as they have; new memory if it is not given.

        Raises:
            IndexError: The tensor has no such rows.
            WeightsError: The file ends before them.
        """
        geometry = self.geometry
        for start, stop in runs:
            if not 0 <= start <= stop <= geometry.rows:
                raise IndexError(f"rows {start} to {stop} of {geometry.rows}")
        shape = (count(runs), geometry.row_bytes)
        rows = np.empty(shape, np.uint8) if memory is None else memory.reshape(shape)
        inner, done = geometry.inner_bytes, 0
        for start, stop in runs:
            part = rows[done : done + stop - start]
            done += stop - start
            if geometry.outer == 1:
                self.fill(part.reshape(-1).data, self.begin + start * inner)
                continue
            piece = np.empty((stop - start) * inner, np.uint8)
            for outer in range(geometry.outer):
                self.fill(piece.data, self.begin + (outer * geometry.rows + start) * inner)
                part[:, outer * inner : (outer + 1) * inner] = piece.reshape(stop - start, inner)
        return rows

    def row(self, number: int) -> npt.NDArray[np.float64]:
        """Return one row as numbers, `(width,)`."""
        return to_float64(self.read_run(number, number + 1), self.dtype)

    def float_rows(self, runs: Sequence[Run], block_bytes: int = 2 * BLOCK_BYTES) -> Iterator[npt.NDArray[np.float64]]:
        """Yield the rows of `runs` as numbers, in their order, in blocks `(rows, width)` of equal length but the last.

        Args:
            block_bytes: The most bytes of float64 in a block, if a row is not longer.
        """
        for group in cut_runs(runs, max(1, block_bytes // max(1, self.width * 8))):
            yield to_float64(self.read_runs(group), self.dtype).reshape(count(group), self.width)


def digest_rows(rows: Octets) -> bytes:
    """Return the BLAKE3 digest of each of `rows`, `(rows, row_bytes)`, 32 bytes each."""
    if not rows.size:
        return blake3().digest() * len(rows)
    octets, size = rows.reshape(-1).data, rows.shape[1]
    return b"".join([blake3(octets[at : at + size]).digest() for at in range(0, len(octets), size)])


def tensor_digest(digests: bytes) -> str:
    """Return the digest of a tensor from those of its rows: `r1:` and BLAKE3 over them in hexadecimal.

    It follows from the rows' digests alone, so moving rows changes it without reading the tensor again.
    """
    return TENSOR_DIGEST_PREFIX + blake3(digests).hexdigest()


def shard_digest(header: Header, tables: Mapping[str, bytes], fixed: Mapping[str, str]) -> str:
    """Return the digest of a shard with that header, those rows and those other tensors."""
    hasher = blake3(b"shard 1\n" + blake3(header.raw).digest())
    for entry in header.by_offset:
        found = tensor_digest(tables[entry.name]) if entry.name in tables else fixed[entry.name]
        hasher.update(f"{entry.name}\n{found}\n".encode())
    return "s1:" + hasher.hexdigest()


_SAMPLES, _SAMPLE_BYTES = 16, 4096


def digest_samples(path: Path, size: int, head: bytes) -> str:
    """Return BLAKE3 over `head` and sixteen evenly spaced blocks of a file: a full digest would read it all."""
    hasher = blake3(head)
    with open_for_reading(path) as file:
        for number in range(_SAMPLES):
            file.seek(max(0, size - _SAMPLE_BYTES) * number // (_SAMPLES - 1))
            hasher.update(file.read(_SAMPLE_BYTES))
    return hasher.hexdigest()


def digest_range(path: Path, begin: int, end: int) -> str:
    """Return BLAKE3 over the bytes of a file from `begin` up to `end`, in hexadecimal; errors as `OpenFile`."""
    hasher = blake3()
    with OpenFile(path) as file:
        for start in range(begin, end, BLOCK_BYTES):
            block = np.empty(min(BLOCK_BYTES, end - start), np.uint8)
            file.fill(block.data, start)
            hasher.update(block.data)
    return hasher.hexdigest()
