"""The shapes of the tensors in an ONNX file: only what names them is read.

`onnx.proto` of onnx/onnx: ModelProto.graph is field 7, GraphProto.initializer 5, TensorProto.dims 1 and name 8.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from tokmigrate.errors import WeightsError
from tokmigrate.files import open_for_reading

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_GRAPH, _INITIALIZER, _DIMS, _NAME = 7, 5, 1, 8


def read_onnx_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor that an ONNX file has by its name; raises WeightsError where it is none."""
    with open_for_reading(path) as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return dict(_read_tensors(data))
        except (ValueError, IndexError) as error:
            hint = "correct `copies:`, or export the model again"
            raise WeightsError("is not an ONNX file", where=str(path), hint=hint) from error


def _read_tensors(data: mmap.mmap) -> Iterator[tuple[str, tuple[int, ...]]]:
    for number, start, stop in _fields(data, 0, len(data)):
        for inner, first, last in _fields(data, start, stop) if number == _GRAPH else ():
            if inner == _INITIALIZER:
                yield _read_tensor(data, first, last)


def _read_tensor(data: mmap.mmap, start: int, stop: int) -> tuple[str, tuple[int, ...]]:
    name, dims = "", list[int]()
    for number, first, last in _fields(data, start, stop):
        if number == _NAME:
            name = data[first:last].decode("utf-8")
        elif number == _DIMS:
            # One number, or several of them packed.
            place = first
            while place < last:
                value, place = _varint(data, place)
                dims.append(value)
    return name, tuple(dims)


def _fields(data: mmap.mmap, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each field of a message, and where its value begins and ends; raises ValueError."""
    while start < stop:
        tag, place = _varint(data, start)
        kind = tag & 7
        if kind == _VARINT:
            end = _varint(data, place)[1]
        elif kind == _BYTES:
            size, place = _varint(data, place)
            end = place + size
        elif kind in (_FIXED32, _FIXED64):
            end = place + (4 if kind == _FIXED32 else 8)
        else:
            raise ValueError(kind)
        if end > stop:
            raise ValueError(end)
        yield tag >> 3, place, end
        start = end


def _varint(data: mmap.mmap, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        octet = data[place]
        place += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError(place)
