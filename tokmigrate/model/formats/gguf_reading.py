"""Reading the head of a GGUF file, with every length checked against the size of the file."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, NoReturn, TypeVar

from tokmigrate.errors import WeightsError
from tokmigrate.files import MissingFileError, open_for_reading
from tokmigrate.model.formats.gguf import ALIGNMENT, DAMAGED, FORMS, Head, Kind, TensorInfo, Value

_MAX_ALIGNMENT = 1 << 16
_MAX_HEAD_BYTES = 1 << 30
_MAX_DIMENSIONS = 4
_CHUNK = 1 << 20

_Read = TypeVar("_Read")


def read_head(path: Path) -> Head:
    """Read and check the head of a GGUF file.

    Raises:
        WeightsError: The file is missing, damaged or of a kind that is not read.
        StorageError: It cannot be read.
    """
    try:
        with open_for_reading(path) as file:
            return _Reader(file, os.fstat(file.fileno()).st_size, str(path)).read()
    except MissingFileError as error:
        raise WeightsError("the file is missing", where=str(path), hint="correct its path") from error


def parse_head(data: bytes, file_size: int, where: str) -> Head:
    """Return the head that a file of `file_size` bytes begins with; raises WeightsError as `read_head`."""
    return _Reader(BytesIO(data), file_size, where).read()


class _Reader:
    """Reads a head from the beginning of a file, and no more of it than the head."""

    def __init__(self, file: BinaryIO, size: int, where: str) -> None:
        self._file, self._size, self._where = file, size, where
        self._data = bytearray()
        self._place = 0

    def read(self) -> Head:
        if self._size < 24:
            self._refuse(f"{self._size} bytes are too few for a GGUF file")
        magic, version, tensors, pairs = struct.unpack("<4sIQQ", self._take(24))
        if magic != b"GGUF":
            self._refuse("not a GGUF file", "name a file that llama.cpp's converter wrote")
        if version & 0xFFFF == 0:
            self._refuse("a GGUF of a big-endian machine, which is not read", "convert the model again here")
        if version not in (2, 3):
            self._refuse(f"GGUF version {version}, and versions 2 and 3 are read", "convert the model again")
        # Each needs some bytes, so that the file's size bounds both.
        if tensors + pairs > self._size // 12:
            self._refuse(f"it names {tensors} tensors and {pairs} keys, more than its {self._size} bytes hold")
        found = self._read_named(pairs, "the key", self._value)
        infos = self._read_named(tensors, "the tensor", self._tensor)
        listed = tuple(replace(info, name=name) for name, info in infos.items())
        self._check_alignment(found.get(ALIGNMENT))
        head = Head(version, found, listed, self._size)
        end = len(head.raw)
        if end > self._size:
            self._refuse("it ends inside its head")
        self._take(end - self._place)
        if self._data[:end] != head.raw:
            self._refuse("the padding behind its head is not zero")
        self._check_offsets(head)
        return head

    def _read_named(self, count: int, what: str, read: Callable[[], _Read]) -> dict[str, _Read]:
        found: dict[str, _Read] = {}
        for _ in range(count):
            name = self._text()
            if name in found:
                self._refuse(f"{what} '{name}' comes twice")
            found[name] = read()
        return found

    def _value(self) -> Value:
        kind = self._kind()
        if kind is not Kind.ARRAY:
            return Value(kind, self._items(kind, 1))
        item, count = self._kind(), self._number("Q")
        if item is Kind.ARRAY:
            self._refuse("an array of arrays, which llama.cpp does not read either")
        return Value(item, self._items(item, count), count)

    def _items(self, kind: Kind, count: int) -> bytes:
        start = self._place
        if kind is not Kind.STRING:
            return self._take(count * struct.calcsize(f"<{FORMS[kind]}"))
        self._check_left(count * 8)
        data, place = self._data, self._place
        for _ in range(count):
            if place + 8 > len(data):
                self._load(place + 8)
            place += 8 + int.from_bytes(data[place : place + 8], "little")
            if place > len(data):
                self._load(place)
        self._place = place
        return bytes(data[start:place])

    def _tensor(self) -> TensorInfo:
        count = self._number("I")
        if not 0 < count <= _MAX_DIMENSIONS:
            self._refuse(f"a tensor of {count} dimensions, and ggml knows 1 to {_MAX_DIMENSIONS}")
        dimensions = struct.unpack(f"<{count}Q", self._take(8 * count))
        return TensorInfo("", dimensions, self._number("I"), self._number("Q"))

    def _check_alignment(self, value: Value | None) -> None:
        if value is None:
            return
        size = int(value.numbers[0]) if value.kind is Kind.UINT32 and value.count is None else 0
        if not 8 <= size <= _MAX_ALIGNMENT or size & (size - 1):
            self._refuse(f"{ALIGNMENT} is no power of two from 8 to {_MAX_ALIGNMENT}")

    def _check_offsets(self, head: Head) -> None:
        """Refuse tensors of which it is not certain where they end."""
        offsets = sorted(tensor.offset for tensor in head.tensors)
        if not offsets:
            return
        if offsets[0] != 0:
            self._refuse("no tensor begins where the data begins")
        for first, second in pairwise([*offsets, head.data_size]):
            if first % head.alignment or first >= second:
                self._refuse(f"the tensor at {first} overlaps another one, or is not aligned, or not in the file")

    def _kind(self) -> Kind:
        number = self._number("I")
        try:
            return Kind(number)
        except ValueError:
            self._refuse(f"a value of the unknown kind {number}")

    def _text(self) -> str:
        try:
            return self._take(self._number("Q")).decode("utf-8")
        except UnicodeDecodeError:
            self._refuse("a name is not UTF-8")

    def _number(self, form: str) -> int:
        (found,) = struct.unpack(f"<{form}", self._take(struct.calcsize(f"<{form}")))
        return int(found)

    def _take(self, size: int) -> bytes:
        self._load(self._place + size)
        start, self._place = self._place, self._place + size
        return bytes(self._data[start : self._place])

    def _load(self, end: int) -> None:
        """Read the file up to `end`."""
        self._check_left(end - self._place)
        while len(self._data) < end:
            data = self._file.read(max(_CHUNK, end - len(self._data)))
            if not data:
                self._refuse("it ends inside its head")
            self._data += data

    def _check_left(self, size: int) -> None:
        if self._place + size > self._size:
            self._refuse("it ends inside its head")
        if self._place + size > _MAX_HEAD_BYTES:
            self._refuse(f"its head has more than {_MAX_HEAD_BYTES} bytes")

    def _refuse(self, message: str, hint: str = DAMAGED) -> NoReturn:
        raise WeightsError(message, where=self._where, hint=hint)
