"""The rows of a tensor along its vocabulary axis, read from the file in blocks."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from blake3 import blake3

from tokmigrate.errors import ModelError, WeightsError
from tokmigrate.files import MissingFileError, open_file, storage_errors
from tokmigrate.model.formats.dtype import ITEM_BITS, to_float64
from tokmigrate.vocabulary.ids import Run

if TYPE_CHECKING:
    import numpy.typing as npt

BLOCK_BYTES = 8 * 1024 * 1024
DIGEST_BYTES = 32
_DIGESTED_AT_ONCE = 1 << 16  # A digest outweighs a bias of two bytes: blocks are bounded by it too.
TENSOR_DIGEST_PREFIX = "r1:"
"""Names the way of digesting a tensor, so that an old digest stays verifiable if it changes."""


@dataclass(frozen=True)
class Geometry:
    """How rows lie in a tensor's bytes: `outer` times `rows` pieces of `inner_bytes`.

    Args:
        outer: The product of the dimensions before the vocabulary axis.
        rows: The length of the vocabulary axis.
        inner_bytes: The bytes of the dimensions after it.
    """

    outer: int
    rows: int
    inner_bytes: int

    @staticmethod
    def of(shape: tuple[int, ...], dtype: str, axis: int) -> Geometry:
        """Return the geometry of a tensor.

        Args:
            shape: The tensor's shape.
            dtype: Its safetensors dtype.
            axis: Which dimension counts the vocabulary, from 0.

        Raises:
            ModelError: The tensor has no such axis, or a row would begin within a byte.
        """
        if not 0 <= axis < len(shape):
            raise ModelError(
                f"a tensor of shape {list(shape)} has no axis {axis}",
                hint="correct the axis under vocab_tensors",
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


class TensorRows:
    """The rows of one tensor of an open file; a context manager.

    It reads with pread and never maps the file, so that memory stays at one block.

    Args:
        path: The safetensors file.
        absolute_begin: The tensor's first byte, counted from the start of the file.
        geometry: How its rows lie.
        dtype: Its safetensors dtype.
    """

    def __init__(self, path: Path, absolute_begin: int, geometry: Geometry, dtype: str) -> None:
        self.path = path
        self.geometry = geometry
        self.dtype = dtype
        self._begin = absolute_begin
        self._file = -1

    def __enter__(self) -> Self:
        self._file = _open(self.path)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)
        self._file = -1

    @property
    def width(self) -> int:
        """The numbers in one row."""
        return self.geometry.row_bytes * 8 // ITEM_BITS[self.dtype]

    def read_run(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Return the rows from `start` up to `stop` as stored, `(stop - start, row_bytes)`.

        The whole run comes at once: who reads a long one asks for it in parts.

        Raises:
            IndexError: The tensor has no such rows.
            WeightsError: The file ends before them.
        """
        geometry = self.geometry
        if not 0 <= start <= stop <= geometry.rows:
            raise IndexError(f"rows {start} to {stop} of {geometry.rows}")
        inner = geometry.inner_bytes
        rows = np.empty((stop - start, geometry.row_bytes), np.uint8)
        if geometry.outer == 1:
            self._fill(rows.reshape(-1), start * inner)
            return rows
        piece = np.empty((stop - start) * inner, np.uint8)
        for outer in range(geometry.outer):
            self._fill(piece, (outer * geometry.rows + start) * inner)
            rows[:, outer * inner : (outer + 1) * inner] = piece.reshape(stop - start, inner)
        return rows

    def row(self, number: int) -> npt.NDArray[np.float64]:
        """Return one row as numbers, `(width,)`."""
        return to_float64(self.read_run(number, number + 1), self.dtype)

    def float_rows(self, runs: Iterable[Run], block_bytes: int = BLOCK_BYTES) -> Iterator[npt.NDArray[np.float64]]:
        """Yield the rows of `runs` as numbers, in their order, in blocks `(rows, width)`.

        Every block but the last has the same number of rows, wherever runs begin and end: sums over the
        blocks depend on which rows there are, and not on how they are cut into runs.

        Args:
            runs: Starts and stops of rows.
            block_bytes: The most bytes of float64 in a block, if a row is not longer.
        """
        size = _rows_in(block_bytes, self.width * 8)
        block = np.empty((size, self.width), np.float64)
        filled = 0
        for start, stop in runs:
            position = start
            while position < stop:
                taken = min(stop - position, size - filled)
                raw = self.read_run(position, position + taken)
                block[filled : filled + taken] = to_float64(raw, self.dtype).reshape(taken, self.width)
                position += taken
                filled += taken
                if filled == size:
                    yield block
                    # A new one: the caller may keep the last.
                    block = np.empty((size, self.width), np.float64)
                    filled = 0
        if filled:
            yield block[:filled]

    def row_digests(self, start: int, stop: int) -> bytes:
        """Return the BLAKE3 digest of each row from `start` up to `stop`, 32 bytes each."""
        row_bytes = self.geometry.row_bytes
        size = min(_rows_in(BLOCK_BYTES, row_bytes), _DIGESTED_AT_ONCE)
        digests = bytearray()
        for begin in range(start, stop, size):
            octets = self.read_run(begin, min(begin + size, stop)).tobytes()
            if row_bytes == 0:
                digests += blake3().digest() * (min(begin + size, stop) - begin)
                continue
            digests += b"".join(blake3(octets[at : at + row_bytes]).digest() for at in range(0, len(octets), row_bytes))
        return bytes(digests)

    def table(self) -> RowTable:
        """Return the digests of all rows."""
        return RowTable(self.row_digests(0, self.geometry.rows))

    def _fill(self, target: npt.NDArray[np.uint8], offset: int) -> None:
        view = target.data
        done = 0
        while done < len(view):
            with storage_errors("read the file", self.path):
                count = os.preadv(self._file, [view[done:]], self._begin + offset + done)
            if count == 0:
                raise WeightsError(
                    f"the file ends {len(view) - done} bytes too early",
                    where=str(self.path),
                    hint="something else changed it meanwhile: look at the model again",
                )
            done += count


@dataclass(frozen=True)
class RowTable:
    """The digest of every row of a tensor.

    Args:
        digests: 32 bytes for each row, in the order of the rows.
    """

    digests: bytes = field(repr=False)

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return len(self.digests) // DIGEST_BYTES

    @property
    def digest(self) -> str:
        """The digest of the whole tensor, as `tensor_digest` makes it."""
        return tensor_digest(self.digests)

    def row(self, number: int) -> bytes:
        """Return the digest of one row, 32 bytes."""
        if not 0 <= number < self.rows:
            raise IndexError(number)
        return self.digests[number * DIGEST_BYTES : (number + 1) * DIGEST_BYTES]


def tensor_digest(digests: bytes) -> str:
    """Return the digest of a tensor from those of its rows: `r1:` and BLAKE3 over them in hexadecimal.

    It follows from the rows' digests alone, so moving rows changes it without reading the tensor again.
    """
    return TENSOR_DIGEST_PREFIX + blake3(digests).hexdigest()


def plain_digest(path: Path, begin: int, end: int) -> str:
    """Return BLAKE3 over the bytes of a file from `begin` up to `end`, in hexadecimal.

    Raises:
        WeightsError: The file is missing or ends before `end`.
        StorageError: It cannot be read.
    """
    hasher = blake3()
    file = _open(path)
    try:
        position = begin
        while position < end:
            with storage_errors("read the file", path):
                octets = os.pread(file, min(BLOCK_BYTES, end - position), position)
            if not octets:
                raise WeightsError(
                    f"the file ends {end - position} bytes too early",
                    where=str(path),
                    hint="something else changed it meanwhile: look at the model again",
                )
            hasher.update(octets)
            position += len(octets)
    finally:
        os.close(file)
    return hasher.hexdigest()


def _rows_in(block_bytes: int, row_bytes: int) -> int:
    return max(1, block_bytes // max(1, row_bytes))


def _open(path: Path) -> int:
    try:
        return open_file(path)
    except MissingFileError as error:
        raise WeightsError("the file is missing", where=str(path), hint="fetch it again") from error
