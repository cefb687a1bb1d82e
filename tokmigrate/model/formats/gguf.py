"""The head of a GGUF file, its key-value pairs and the list of its tensors; what is not changed keeps its bytes.

Versions 2 and 3 of docs/gguf.md in ggml-org/ggml, little-endian. A file is refused where a head that is written again
would not be the same bytes, or where it is not certain where a tensor ends.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import cached_property

from tokmigrate.errors import WeightsError
from tokmigrate.model.formats.safetensors_header import BLOCK_BYTES, Header, TensorEntry

ALIGNMENT = "general.alignment"
_DEFAULT_ALIGNMENT = 32
DAMAGED = "the file is damaged or was not written to its end: convert the model again"
"""What to do about a file that is no whole GGUF."""

Number = int | float | bool


class Kind(IntEnum):
    """The kinds of values."""

    UINT8 = 0
    INT8 = 1
    UINT16 = 2
    INT16 = 3
    UINT32 = 4
    INT32 = 5
    FLOAT32 = 6
    BOOL = 7
    STRING = 8
    ARRAY = 9
    UINT64 = 10
    INT64 = 11
    FLOAT64 = 12


# A bool is read as a byte, so that one that is neither 0 nor 1 stays what it is.
FORMS: Mapping[Kind, str] = {
    Kind.UINT8: "B",
    Kind.INT8: "b",
    Kind.UINT16: "H",
    Kind.INT16: "h",
    Kind.UINT32: "I",
    Kind.INT32: "i",
    Kind.FLOAT32: "f",
    Kind.BOOL: "B",
    Kind.UINT64: "Q",
    Kind.INT64: "q",
    Kind.FLOAT64: "d",
}


@dataclass(frozen=True)
class Value:
    """A value as the file holds it.

    Args:
        kind: Its kind, of an array that of its items.
        data: Its bytes, of an array those of its items.
        count: How many items the array has, None where it is no array.
    """

    kind: Kind
    data: bytes = field(repr=False)
    count: int | None = None

    @cached_property
    def numbers(self) -> tuple[Number, ...]:
        """The numbers in it, none where it holds texts."""
        if self.kind is Kind.STRING:
            return ()
        found = struct.unpack(f"<{1 if self.count is None else self.count}{FORMS[self.kind]}", self.data)
        return tuple(map(bool, found)) if self.kind is Kind.BOOL else found

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The texts in it, none where it holds numbers; raises ValueError where they are not UTF-8."""
        if self.kind is not Kind.STRING:
            return ()
        found: list[str] = []
        data, place = self.data, 0
        while place < len(data):
            start = place + 8
            place = start + int.from_bytes(data[place:start], "little")
            found.append(data[start:place].decode())
        return tuple(found)

    @staticmethod
    def of_texts(texts: Iterable[str]) -> Value:
        """Return an array of texts."""
        encoded = [_encode_text(text) for text in texts]
        return Value(Kind.STRING, b"".join(encoded), len(encoded))

    @staticmethod
    def of_text(text: str) -> Value:
        return Value(Kind.STRING, _encode_text(text))

    def with_numbers(self, numbers: Sequence[Number]) -> Value:
        """Return a value of the same kind with other numbers; raises struct.error where one does not fit."""
        data = struct.pack(f"<{len(numbers)}{FORMS[self.kind]}", *numbers)
        return Value(self.kind, data, None if self.count is None else len(numbers))

    def encode(self) -> bytes:
        if self.count is None:
            return struct.pack("<I", self.kind) + self.data
        return struct.pack("<IIQ", Kind.ARRAY, self.kind, self.count) + self.data


@dataclass(frozen=True)
class TensorInfo:
    """A tensor of the list.

    Args:
        dimensions: Its sizes, the one of the numbers that lie side by side first.
        kind: The number that ggml gives how its numbers are stored.
        offset: Where its bytes begin, counted from the start of the data.
    """

    name: str
    dimensions: tuple[int, ...]
    kind: int
    offset: int

    def encode(self) -> bytes:
        form = f"<I{len(self.dimensions)}QIQ"
        return _encode_text(self.name) + struct.pack(
            form, len(self.dimensions), *self.dimensions, self.kind, self.offset
        )


@dataclass(frozen=True)
class Head:
    """The head of a file.

    Args:
        pairs: The values by their keys, in the order of the file.
        file_size: The bytes of the whole file.
    """

    version: int
    pairs: Mapping[str, Value] = field(repr=False)
    tensors: tuple[TensorInfo, ...] = field(repr=False)
    file_size: int

    @cached_property
    def alignment(self) -> int:
        """What the offsets of tensors are multiples of."""
        value = self.pairs.get(ALIGNMENT)
        return int(value.numbers[0]) if value else _DEFAULT_ALIGNMENT

    @cached_property
    def raw(self) -> bytes:
        """Its bytes, with the padding before the data; a file of a vocabulary alone need not have any."""
        parts = [struct.pack("<4sIQQ", b"GGUF", self.version, len(self.tensors), len(self.pairs))]
        for key, value in self.pairs.items():
            parts += [_encode_text(key), value.encode()]
        parts += [tensor.encode() for tensor in self.tensors]
        data = b"".join(parts)
        return data + bytes(_pad(len(data), self.alignment) if self.tensors else 0)

    @property
    def data_size(self) -> int:
        return self.file_size - len(self.raw)

    @cached_property
    def spans(self) -> Mapping[str, int]:
        """The bytes from the beginning of each tensor to that of the next one, or to the end, by name."""
        ordered = sorted(self.tensors, key=lambda tensor: tensor.offset)
        ends = [*(tensor.offset for tensor in ordered[1:]), self.data_size]
        return {tensor.name: end - tensor.offset for tensor, end in zip(ordered, ends, strict=True)}

    def text(self, key: str) -> str | None:
        """Return the text of a key, None where it holds none; what of it is not UTF-8 is replaced."""
        value = self.pairs.get(key)
        is_text = value is not None and value.count is None and value.kind is Kind.STRING
        return value.data[8:].decode("utf-8", "replace") if value and is_text else None

    def with_pairs(self, changes: Mapping[str, Value | None]) -> Head:
        """Return the head with other values; a new key comes last, and None removes one."""
        pairs = {key: value for key, value in {**self.pairs, **changes}.items() if value is not None}
        changed = replace(self, pairs=pairs)
        return replace(changed, file_size=len(changed.raw) + self.data_size)

    def with_rows(self, row_bytes: Mapping[str, int], rows: int) -> Head:
        """Return the head with another number of rows in some tensors.

        Args:
            row_bytes: The bytes of a row of each of them, by name.
        """
        found: dict[str, TensorInfo] = {}
        begin = 0
        for tensor in sorted(self.tensors, key=lambda each: each.offset):
            span, size = self.spans[tensor.name], row_bytes.get(tensor.name)
            dimensions = tensor.dimensions
            if size is not None:
                old = size * dimensions[-1]
                dimensions = (*dimensions[:-1], rows)
                # The last tensor may end with the file, without padding.
                is_padded = span == old + _pad(old, self.alignment)
                span = size * rows + (_pad(size * rows, self.alignment) if is_padded else 0)
            found[tensor.name] = replace(tensor, dimensions=dimensions, offset=begin)
            begin += span
        changed = replace(self, tensors=tuple(found[tensor.name] for tensor in self.tensors))
        return replace(changed, file_size=len(changed.raw) + begin)

    def with_start_of(self, name: str, start: int, padding: str) -> Head:
        """Return the head with a text under the key `padding` that lets a tensor begin where `start` is in a block.

        Filesystems share whole blocks, and only where they begin at a block in both files.
        """
        plain = self.with_pairs({padding: None})
        (begin,) = (tensor.offset for tensor in plain.tensors if tensor.name == name)
        missing = (start - len(plain.raw) - begin) % BLOCK_BYTES
        if not missing:
            return plain
        with_key = plain.with_pairs({padding: Value.of_text("")})
        # The head ends at a multiple of the alignment, which `missing` is too.
        size = (len(plain.raw) + missing - len(with_key.raw)) % BLOCK_BYTES
        return plain.with_pairs({padding: Value.of_text(" " * size)})

    def layout(self, row_bytes: Mapping[str, int], where: str) -> GgufHeader:
        """Return where the bytes of its tensors are: of those with rows without the padding, of others with it.

        Args:
            row_bytes: The bytes of a row of the tensors with rows, by name.
            where: What errors name as the file.

        Raises:
            WeightsError: A tensor with rows does not have the bytes that its size needs.
        """
        entries: list[TensorEntry] = []
        for tensor in self.tensors:
            begin, span, size = tensor.offset, self.spans[tensor.name], row_bytes.get(tensor.name)
            if size is None:
                entries.append(TensorEntry(tensor.name, "U8", (span,), begin, begin + span))
                continue
            needed = size * tensor.dimensions[-1]
            is_last = begin + span == self.data_size
            if span != needed + _pad(needed, self.alignment) and not (is_last and span == needed):
                raise WeightsError(
                    f"the tensor '{tensor.name}' needs {needed} bytes, and {span} are there", where=where, hint=DAMAGED
                )
            entries.append(TensorEntry(tensor.name, "U8", (tensor.dimensions[-1], size), begin, begin + needed))
        return GgufHeader(self.raw, tuple(entries), None, file_bytes=self.file_size)


@dataclass(frozen=True)
class GgufHeader(Header):
    """Where the bytes of the tensors of a GGUF are; `file_bytes` is the size of the file."""

    file_bytes: int = 0

    @property
    def file_size(self) -> int:
        return self.file_bytes


def _pad(size: int, alignment: int) -> int:
    return -size % alignment


def _encode_text(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data
