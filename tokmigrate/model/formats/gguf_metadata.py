"""The key-value section of a GGUF file, which says what its tokenizer is; tensors are not read.

As docs/gguf.md of ggml-org/ggml describes versions 2 and 3 of the format.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from pathlib import Path

from tokmigrate.errors import WeightsError
from tokmigrate.files import open_for_reading

TOKENS = "tokenizer.ggml.tokens"

Value = int | float | bool | str | list["Value"]

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def read_gguf_metadata(path: Path, wanted: Collection[str]) -> dict[str, Value]:
    """Return those of the `wanted` keys that a GGUF file has; raises WeightsError where it is none."""
    with open_for_reading(path) as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _Reader(data).read_keys(set(wanted))
        except (struct.error, ValueError, KeyError, UnicodeDecodeError) as error:
            raise WeightsError(
                "is not a GGUF file of version 2 or 3",
                where=str(path),
                hint="correct `copies:`, or convert the model again",
            ) from error


class _Reader:
    """Reads values one after the other."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        magic, version, _, self.keys = struct.unpack_from("<4sIQQ", data)
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(magic)
        self.place = 24

    def read_keys(self, wanted: set[str]) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for _ in range(self.keys):
            key = self._read_text()
            value = self._read(self._scalar("I"))
            if key in wanted:
                found[key] = value
                if len(found) == len(wanted):
                    break
        return found

    def _read(self, kind: int) -> Value:
        if kind == _STRING:
            return self._read_text()
        if kind != _ARRAY:
            return self._scalar(_SCALARS[kind])
        inner, length = self._scalar("I"), self._scalar("Q")
        if inner in _SCALARS:
            form = f"<{length}{_SCALARS[inner]}"
            values = list(struct.unpack_from(form, self.data, self.place))
            self.place += struct.calcsize(form)
            return values
        return [self._read(inner) for _ in range(length)]

    def _read_text(self) -> str:
        length = self._scalar("Q")
        octets = self.data[self.place : self.place + length]
        if len(octets) != length:
            raise ValueError(length)
        self.place += length
        return octets.decode("utf-8", "surrogateescape")

    def _scalar(self, form: str) -> int:
        (value,) = struct.unpack_from(f"<{form}", self.data, self.place)
        self.place += struct.calcsize(form)
        return value  # type: ignore[no-any-return]
