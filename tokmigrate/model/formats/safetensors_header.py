"""The header of a safetensors file, read by every rule of the format and written with chosen padding.

A file is eight bytes of little-endian length, a JSON text of that length, and the data section:
https://github.com/huggingface/safetensors#format. The rules are those of the safetensors library, and
stricter where it accepts what a rewritten header could not give back: repeated names, unknown fields, a
tensor written as a list, a null `__metadata__`, leading white space and control characters in a name.
"""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import Any, NoReturn

from tokmigrate.errors import WeightsError, suggest
from tokmigrate.files import MissingFileError, open_for_reading
from tokmigrate.model.formats.dtype import ITEM_BITS

LENGTH_BYTES = 8
MAX_HEADER_BYTES = 100_000_000
BLOCK_BYTES = 4096
"""What filesystems share is whole blocks of this size."""

METADATA = "__metadata__"
_MAX_U64 = (1 << 64) - 1
_DAMAGED = "the file is damaged or was not written to its end: fetch it again or restore a copy"
_FIELDS = ("dtype", "shape", "data_offsets")


@dataclass(frozen=True)
class TensorEntry:
    """One tensor of a header; its bytes are counted from the start of the data section."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int

    def __len__(self) -> int:
        return self.end - self.begin

    def __bool__(self) -> bool:
        # A tensor without bytes is still there.
        return True


@dataclass(frozen=True)
class Header:
    """A header that keeps every rule of the format.

    Args:
        raw: The length bytes and the text with its padding, as in the file.
        entries: The tensors in the order of the JSON keys.
        metadata: `__metadata__`, None where there is none.
        metadata_at: How many tensors stand before `__metadata__`.
    """

    raw: bytes = field(repr=False)
    entries: tuple[TensorEntry, ...]
    metadata: Mapping[str, str] | None = field(hash=False)
    metadata_at: int = 0

    @property
    def data_start(self) -> int:
        return len(self.raw)

    @cached_property
    def data_size(self) -> int:
        return max((entry.end for entry in self.entries), default=0)

    @property
    def file_size(self) -> int:
        return self.data_start + self.data_size

    @cached_property
    def by_offset(self) -> tuple[TensorEntry, ...]:
        """The tensors in the order of their data."""
        return tuple(sorted(self.entries, key=lambda entry: (entry.begin, entry.end)))

    @cached_property
    def _by_name(self) -> dict[str, TensorEntry]:
        return {entry.name: entry for entry in self.entries}

    def entry(self, name: str) -> TensorEntry:
        """Return the tensor `name`; raises WeightsError where there is none."""
        found = self._by_name.get(name)
        if found is None:
            raise WeightsError("no such tensor in the file", where=name, hint=suggest(name, self._by_name))
        return found

    def reshape(self, shapes: Mapping[str, tuple[int, ...]], congruent_to: int) -> Header:
        """Return the header with other shapes of some tensors; the data section starts as given modulo 4096."""
        tensors = [(entry.name, entry.dtype, shapes.get(entry.name, entry.shape)) for entry in self.entries]
        order = [entry.name for entry in self.by_offset]
        raw = encode_header(tensors, self.metadata, congruent_to, data_order=order, metadata_at=self.metadata_at)
        offsets = _lay_out(_compute_sizes(tensors), order)
        entries = tuple(TensorEntry(name, dtype, shape, *offsets[name]) for name, dtype, shape in tensors)
        return Header(raw, entries, self.metadata, self.metadata_at)


def read_header(path: Path) -> Header:
    """Read and check the header of a safetensors file.

    Raises:
        WeightsError: The file is missing or breaks a rule of the format.
        StorageError: It cannot be read.
    """
    where = str(path)
    try:
        with open_for_reading(path) as file:
            size = os.fstat(file.fileno()).st_size
            prefix = file.read(LENGTH_BYTES)
            prefix += file.read(_header_length(prefix, size, where))
    except MissingFileError as error:
        raise WeightsError("the file is missing", where=where, hint="fetch it again") from error
    return parse_header(prefix, size, where)


def parse_header(prefix: bytes, file_size: int, where: str) -> Header:
    """Return the header that a file begins with; raises WeightsError where a rule of the format is broken.

    Args:
        prefix: The file's first bytes, at least its whole header.
        file_size: The bytes of the whole file.
        where: What errors name as the file.
    """
    length = _header_length(prefix, file_size, where)
    raw = prefix[: LENGTH_BYTES + length]
    if len(raw) < LENGTH_BYTES + length:
        raise WeightsError("the file ends inside its header", where=where, hint=_DAMAGED)
    header = _parse(raw, where)
    _check_cover(header, file_size, where)
    return header


NewTensor = tuple[str, str, tuple[int, ...]]
"""Name, dtype and shape of a tensor."""


def _compute_sizes(tensors: Sequence[NewTensor]) -> dict[str, int]:
    return {name: _tensor_bytes(name, dtype, shape, "the new header") for name, dtype, shape in tensors}


def _lay_out(sizes: Mapping[str, int], order: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return where each tensor begins and ends in the data section."""
    ends = list(accumulate(sizes[name] for name in order))
    return {name: (end - sizes[name], end) for name, end in zip(order, ends, strict=True)}


def encode_header(
    tensors: Sequence[NewTensor],
    metadata: Mapping[str, str] | None,
    congruent_to: int,
    *,
    data_order: Sequence[str] | None = None,
    metadata_at: int = 0,
) -> bytes:
    """Return a header's length bytes and text, compact as the safetensors library writes it.

    The text is padded with spaces, which the format allows, until the data section's start has the asked
    remainder. Readers need no alignment; kernels read faster with a multiple of 8, which is what the
    library writes.

    Args:
        congruent_to: The start of the data section modulo 4096.
        data_order: The names in the order of their data; that of the keys if not given.
        metadata_at: How many tensors stand before `__metadata__`.

    Raises:
        WeightsError: The header would be longer than the format allows, or a shape takes part of a byte.
    """
    sizes = _compute_sizes(tensors)
    order = tuple(sizes) if data_order is None else tuple(data_order)
    if len(sizes) != len(tensors) or sorted(order) != sorted(sizes):
        raise ValueError("each tensor must be named once, and once in the order of the data")
    offsets = _lay_out(sizes, order)
    members: list[tuple[str, Any]] = [
        (name, {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets[name])})
        for name, dtype, shape in tensors
    ]
    if metadata is not None:
        members.insert(metadata_at, (METADATA, dict(metadata)))
    text = json.dumps(dict(members), separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * ((congruent_to - LENGTH_BYTES - len(text)) % BLOCK_BYTES)
    if len(text) > MAX_HEADER_BYTES:
        raise WeightsError(
            f"the new header would have {len(text)} bytes, more than the {MAX_HEADER_BYTES} of the format",
            hint="save the model in smaller shards",
        )
    return struct.pack("<Q", len(text)) + text


def _header_length(prefix: bytes, file_size: int, where: str) -> int:
    if file_size < LENGTH_BYTES or len(prefix) < LENGTH_BYTES:
        raise WeightsError(f"{file_size} bytes are too few for a safetensors file", where=where, hint=_DAMAGED)
    length = int.from_bytes(prefix[:LENGTH_BYTES], "little")
    if length > MAX_HEADER_BYTES:
        raise WeightsError(
            f"the header needs {length} bytes, more than the {MAX_HEADER_BYTES} of the format",
            where=where,
            hint="this is not a safetensors file, or its start is damaged",
        )
    if LENGTH_BYTES + length > file_size:
        raise WeightsError(f"the header needs {length} bytes, the file has {file_size}", where=where, hint=_DAMAGED)
    return length


def _parse(raw: bytes, where: str) -> Header:
    document = _document(raw[LENGTH_BYTES:], where)
    metadata, metadata_at = None, 0
    if METADATA in document:
        metadata_at = list(document).index(METADATA)
        metadata = _metadata(document.pop(METADATA), where)
    return Header(raw, tuple(_entry(name, value, where) for name, value in document.items()), metadata, metadata_at)


def _document(text: bytes, where: str) -> dict[str, Any]:
    def refuse(message: str) -> NoReturn:
        raise _fault(f"the header {message}", where)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            name = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
            refuse(f"names {name!r} twice, and readers would drop one of the two")
        return found

    def whole(digits: str) -> int:
        # Check for `-` first: Python reads -0 as 0, and refuses very long numbers with an error of its own.
        if digits.startswith("-") or len(digits) > 20 or int(digits) > _MAX_U64:
            refuse(f"holds {digits[:24]}, which is not an unsigned 64-bit integer")
        return int(digits)

    if not text.startswith(b"{"):
        refuse("does not begin with '{'")
    try:
        document = json.loads(
            text.decode("utf-8"),
            object_pairs_hook=unique,
            parse_int=whole,
            parse_float=lambda digits: refuse(f"holds {digits[:24]}, which is not an integer"),
            parse_constant=lambda word: refuse(f"holds {word}, which is not JSON"),
        )
    except UnicodeDecodeError as error:
        refuse(f"is not UTF-8: {error.reason}")
    except json.JSONDecodeError as error:
        refuse(f"is not JSON: {error.msg} at character {error.pos}")
    except RecursionError:
        refuse("is nested too deeply")
    return dict(document)


def _metadata(value: Any, where: str) -> Mapping[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise _fault("__metadata__ is not an object that holds strings", where)
    if not all(_is_unicode(name + text) for name, text in value.items()):
        raise _fault("__metadata__ holds half a surrogate pair, which UTF-8 cannot write", where)
    return value


def _entry(name: str, value: Any, where: str) -> TensorEntry:
    def refuse(message: str) -> NoReturn:
        raise _fault(f"tensor {name!r}: {message}", where)

    # A terminal would obey them, and databases refuse NUL in a text.
    if any(ord(character) < 32 or ord(character) == 127 for character in name):
        refuse("a control character in the name, which neither a message nor the ledger can hold")
    if not _is_unicode(name):
        refuse("half a surrogate pair in the name, which UTF-8 cannot write")
    if not isinstance(value, dict):
        refuse("not an object")
    # A header that is written again would lose a field that this reader does not know.
    for unknown in value.keys() - set(_FIELDS):
        refuse(f"the field {unknown!r} is not one of {', '.join(_FIELDS)}")
    for missing in (known for known in _FIELDS if known not in value):
        refuse(f"the field {missing!r} is missing")
    dtype, shape, offsets = (value[known] for known in _FIELDS)
    if not isinstance(dtype, str) or dtype not in ITEM_BITS:
        refuse(f"unknown dtype {dtype!r}")
    if not _is_integers(shape):
        refuse(f"the shape {shape!r} is not a list of integers")
    if not _is_integers(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        refuse(f"the offsets {offsets!r} are not a range")
    size = _tensor_bytes(name, dtype, tuple(shape), where)
    if size != offsets[1] - offsets[0]:
        refuse(f"{dtype} {shape} takes {size} bytes, the offsets give it {offsets[1] - offsets[0]}")
    return TensorEntry(name, dtype, tuple(shape), offsets[0], offsets[1])


def _is_integers(value: Any) -> bool:
    # Not isinstance: true and false are integers to Python.
    return isinstance(value, list) and all(type(item) is int for item in value)


def _is_unicode(text: str) -> bool:
    return not any(0xD800 <= ord(character) <= 0xDFFF for character in text)


def _tensor_bytes(name: str, dtype: str, shape: tuple[int, ...], where: str) -> int:
    bits = 1
    for factor in (*shape, ITEM_BITS[dtype]):
        bits *= factor
        if bits > _MAX_U64:
            raise _fault(f"tensor {name!r}: {dtype} {list(shape)} is larger than 64 bits can count", where)
    if bits % 8:
        raise _fault(f"tensor {name!r}: {dtype} {list(shape)} does not end on a whole byte", where)
    return bits // 8


def _check_cover(header: Header, file_size: int, where: str) -> None:
    position = 0
    for entry in header.by_offset:
        if entry.begin != position:
            fault = "a hole before it" if entry.begin > position else "an overlap with the one before it"
            raise _fault(f"tensor {entry.name!r}: {fault}: it begins at {entry.begin}, not at {position}", where)
        position = entry.end
    if header.file_size != file_size:
        message = f"the header describes {header.file_size} bytes, the file has {file_size}"
        raise WeightsError(message, where=where, hint=_DAMAGED)


def _fault(message: str, where: str) -> WeightsError:
    return WeightsError(
        message, where=where, hint="the header is damaged or was written wrongly: save the file again with safetensors"
    )
