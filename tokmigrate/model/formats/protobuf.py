"""Messages of Protocol Buffers as lists of fields: what is not changed keeps its bytes.

Format: the wire format of protobuf.dev/programming-guides/encoding.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from tokmigrate.errors import TokenizerError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


@dataclass(frozen=True)
class Field:
    """One field of a message.

    Args:
        number: Its number in the message's definition.
        value: A whole number, or the bytes of anything else.
        raw: The field as it is written, with its number.
    """

    number: int
    value: int | bytes
    raw: bytes

    @property
    def data(self) -> bytes:
        """The bytes of a text, a message or a fixed number."""
        return self.value if isinstance(self.value, bytes) else b""


def fields(message: bytes) -> Iterator[Field]:
    """Yield the fields of a message in the order of its bytes; raises TokenizerError where it is none."""
    position = 0
    while position < len(message):
        start = position
        tag, position = _varint(message, position)
        value: int | bytes
        if tag & 7 == _VARINT:
            value, position = _varint(message, position)
        else:
            if tag & 7 == _BYTES:
                size, position = _varint(message, position)
            else:
                size = {_FIXED64: 8, _FIXED32: 4}.get(tag & 7, len(message))
            value, position = message[position : position + size], position + size
        if position > len(message):
            raise TokenizerError(f"not a message of Protocol Buffers: it breaks off at byte {start}")
        yield Field(tag >> 3, value, message[start:position])


def join_fields(message: Iterable[Field]) -> bytes:
    """Return the bytes of a message."""
    return b"".join(field.raw for field in message)


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


def last(message: Iterable[Field], number: int) -> Field | None:
    """Return the field that counts where a number occurs more than once: the last."""
    return next((field for field in reversed(tuple(message)) if field.number == number), None)


def with_field(message: Sequence[Field], new: Field) -> tuple[Field, ...]:
    """Return the message with `new` in the place of every field of its number, else at the end."""
    start = next((place for place, field in enumerate(message) if field.number == new.number), len(message))
    return (*message[:start], new, *(field for field in message[start:] if field.number != new.number))


def signed(value: int) -> int:
    """Return the 32-bit number that a varint holds."""
    value %= 1 << 32
    return value - (1 << 32) if value >> 31 else value


def _varint(message: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while position < len(message) and shift < 70:
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
    raise TokenizerError(f"not a message of Protocol Buffers: no number ends at byte {position}")


def _encode(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)
