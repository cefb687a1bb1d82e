"""Messages of Protocol Buffers: their fields, of which those that are not changed keep their bytes.

The wire format of protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from mmap import mmap
from typing import NamedTuple

from tokmigrate.errors import TokenizerError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
DAMAGED = "the file is damaged or of another kind: copy it again from where the model was published"
"""What to do about a file that is no such message."""


class Field(NamedTuple):
    """One field of a message: its number, a whole number or the bytes of anything else, and how it is written."""

    number: int
    value: int | bytes
    raw: bytes

    @property
    def data(self) -> bytes:
        """The bytes of a text, a message or a fixed number."""
        return self.value if isinstance(self.value, bytes) else b""


def number_field(number: int, value: int) -> Field:
    """Return a field that holds a whole number; a negative one takes ten bytes, as the format wants it."""
    return Field(number, value, _encode(number << 3 | _VARINT) + _encode(value % (1 << 64)))


def bytes_field(number: int, value: bytes) -> Field:
    """Return a field that holds a text or a message."""
    return Field(number, value, _encode(number << 3 | _BYTES) + _encode(len(value)) + value)


def float_field(number: int, value: float) -> Field:
    """Return a field that holds a number of single precision."""
    data = struct.pack("<f", value)
    return Field(number, data, _encode(number << 3 | _FIXED32) + data)


def read_fields(message: bytes) -> Iterator[Field]:
    """Yield the fields of a message in the order of its bytes; raises TokenizerError where it is none."""
    start = 0
    for number, place, end, value in find_fields(message, 0, len(message)):
        yield Field(number, message[place:end] if value is None else value, message[start:end])
        start = end


def find_fields(data: bytes | mmap, start: int, stop: int) -> Iterator[tuple[int, int, int, int | None]]:
    """Yield the number of each field of a message, where its value begins and ends, and the value of a whole number.

    Raises:
        TokenizerError: There is no message from `start` up to `stop`.
    """
    while start < stop:
        value = None
        tag, place = read_varint(data, start, stop)
        if tag & 7 == _VARINT:
            value, end = read_varint(data, place, stop)
        elif tag & 7 == _BYTES:
            size, place = read_varint(data, place, stop)
            end = place + size
        else:
            end = place + {_FIXED64: 8, _FIXED32: 4}.get(tag & 7, stop)
        if end > stop:
            raise TokenizerError(f"not a message of Protocol Buffers: it breaks off at byte {start}", hint=DAMAGED)
        yield tag >> 3, place, end, value
        start = end


def read_varint(data: bytes | mmap, place: int, stop: int) -> tuple[int, int]:
    """Return the whole number that begins at `place`, and where it ends; raises TokenizerError where it does not."""
    value = shift = 0
    while place < stop and shift < 70:
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
    raise TokenizerError(f"not a message of Protocol Buffers: no number ends at byte {place}", hint=DAMAGED)


def _encode(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


@dataclass(frozen=True)
class Message:
    """A message of Protocol Buffers."""

    data: bytes

    @cached_property
    def fields(self) -> tuple[Field, ...]:
        return tuple(read_fields(self.data))

    def last(self, number: int) -> Field | None:
        """Return the field that counts where a number occurs more than once: the last."""
        return next((field for field in reversed(self.fields) if field.number == number), None)

    def integer(self, number: int, default: int) -> int:
        found = self.last(number)
        return found.value if found and isinstance(found.value, int) else default

    def octets(self, number: int, default: bytes = b"") -> bytes:
        found = self.last(number)
        return found.data if found else default

    def with_field(self, *new: Field) -> bytes:
        """Return the message with `new`, fields of one number, in the place of all of that number, else at the end."""
        number = new[0].number
        start = next((place for place, field in enumerate(self.fields) if field.number == number), len(self.fields))
        after = (field for field in self.fields[start:] if field.number != number)
        return b"".join(field.raw for field in (*self.fields[:start], *new, *after))
