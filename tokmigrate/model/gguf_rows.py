"""Rows of a GGUF: computed from those of its model, and compared with them."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tokmigrate.errors import OutOfStepError
from tokmigrate.model.formats.dtype import Matrix, from_float64, to_float64
from tokmigrate.model.gguf_copy import GgufCopy
from tokmigrate.model.gguf_vocabulary import AGAIN
from tokmigrate.model.snapshot import Snapshot

if TYPE_CHECKING:
    import numpy.typing as npt

Floats: TypeAlias = "npt.NDArray[np.float32]"

_BLOCK = 32
_COMPARED = 64
_SMALLEST = 2.0**-24
"""The smallest number of F16 above zero."""
_TOLERANCE = 1 / 64
"""Rounding to Q8_0, the coarsest kind, moves a number by at most 1/254 of the largest one of its block."""


def encode_row(values: Matrix, kind: str) -> bytes:
    """Return a row as a GGUF stores it, rounded to nearest; Q8_0 as `quantize_row_q8_0_ref` of ggml makes it."""
    if kind != "Q8_0":
        return from_float64(values, kind)
    with np.errstate(all="ignore"):
        blocks = values.astype(np.float32).reshape(-1, _BLOCK)
        scales = np.abs(blocks).max(axis=1, keepdims=True) / np.float32(127)
        factors = np.where(scales == 0, np.float32(0), np.float32(1) / scales)
        numbers = _round_half_up(blocks * factors).astype(np.int8)
        return np.concatenate([scales.astype("<f2").view(np.uint8), numbers.view(np.uint8)], axis=1).tobytes()


def _round_half_up(values: Floats) -> Floats:
    """Return whole numbers, with halves rounded away from zero, as roundf of C does."""
    size = np.abs(values)
    whole = np.floor(size)
    rounded: Floats = np.sign(values) * (whole + np.floor(2 * (size - whole)))
    return rounded


def decode_row(raw: bytes, kind: str) -> Matrix:
    """Return the numbers of a row."""
    if kind != "Q8_0":
        return to_float64(raw, kind)
    blocks = np.frombuffer(raw, np.uint8).reshape(-1, 2 + _BLOCK)
    scales = np.ascontiguousarray(blocks[:, :2]).view("<f2").astype(np.float64)
    return (scales * np.ascontiguousarray(blocks[:, 2:]).view(np.int8)).reshape(-1)


def check_rows(copy: GgufCopy, base: Snapshot) -> None:
    """Raise OutOfStepError where rows of a GGUF, of a sample, are not those of its model, rounded."""
    rows = base.state.rows
    for tensor in copy.tensors:
        with (
            base.weights.open_rows(tensor.of.name, tensor.of.axis) as ours,
            copy.open_rows(tensor.name) as theirs,
        ):
            for place in range(min(rows, _COMPARED)):
                number = place * rows // min(rows, _COMPARED)
                values = ours.row(number)
                found = decode_row(theirs.read_run(number, number + 1).tobytes(), tensor.kind)
                with np.errstate(all="ignore"):
                    largest = np.abs(values).max(initial=0)
                    differs = not np.array_equal(values, found, equal_nan=True) and not bool(
                        (np.abs(values - found) <= max(largest * _TOLERANCE, _SMALLEST)).all()
                    )
                if differs:
                    raise OutOfStepError(
                        f"row {number} of '{tensor.name}' is not that of the model",
                        where=str(copy.path),
                        hint=f"the model was trained since it was converted: convert it as it is now; or {AGAIN}",
                    )
