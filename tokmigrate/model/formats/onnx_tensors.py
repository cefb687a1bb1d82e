"""The shapes of the tensors in an ONNX file: only what names them is read.

`onnx.proto` of onnx/onnx: ModelProto.graph is field 7, GraphProto.initializer 5, TensorProto.dims 1 and name 8.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from tokmigrate.errors import TokenizerError, WeightsError
from tokmigrate.files import open_for_reading
from tokmigrate.model.formats.protobuf import find_fields, read_varint

_GRAPH, _INITIALIZER, _DIMS, _NAME = 7, 5, 1, 8


def read_onnx_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor that an ONNX file has by its name; raises WeightsError where it is none."""
    with open_for_reading(path) as file:
        try:
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return dict(_read_tensors(data))
        except (TokenizerError, ValueError) as error:
            hint = "correct `copies:`, or export the model again"
            raise WeightsError("is not an ONNX file", where=str(path), hint=hint) from error


def _read_tensors(data: mmap.mmap) -> Iterator[tuple[str, tuple[int, ...]]]:
    for number, start, stop, _ in find_fields(data, 0, len(data)):
        for inner, first, last, _ in find_fields(data, start, stop) if number == _GRAPH else ():
            if inner == _INITIALIZER:
                yield _read_tensor(data, first, last)


def _read_tensor(data: mmap.mmap, start: int, stop: int) -> tuple[str, tuple[int, ...]]:
    name, dims = "", list[int]()
    for number, first, last, _ in find_fields(data, start, stop):
        if number == _NAME:
            name = data[first:last].decode("utf-8")
        elif number == _DIMS:
            # One number, or several of them packed.
            place = first
            while place < last:
                value, place = read_varint(data, place, last)
                dims.append(value)
    return name, tuple(dims)
