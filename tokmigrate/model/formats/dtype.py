"""The number formats of safetensors, and the four in which a row can be computed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

Matrix: TypeAlias = "npt.NDArray[np.float64]"

_NAMES = (
    "BOOL F4 F6_E2M3 F6_E3M2 U8 I8 F8_E5M2 F8_E4M3 F8_E8M0 F8_E4M3FNUZ F8_E5M2FNUZ I16 U16 F16 BF16 I32 U32 F32 C64 F64"
    " I64 U64"
)
ITEM_BITS: Mapping[str, int] = MappingProxyType(
    {name: int(re.sub(r"^\D+|_.*", "", name) or 8) for name in _NAMES.split()}
)
"""The bits of one number in each dtype of safetensors 0.8 (its `Dtype` enumeration)."""

FLOATING = frozenset({"BF16", "F16", "F32", "F64"})
"""The dtypes in which a row can be computed."""

_VIEWS: Mapping[str, str] = MappingProxyType({"F16": "<f2", "F32": "<f4", "F64": "<f8"})
# Exponent and fraction bits of the IEEE 754 formats narrower than float64, and of bfloat16.
_NARROW: Mapping[str, tuple[int, int]] = MappingProxyType({"BF16": (8, 7), "F16": (5, 10), "F32": (8, 23)})


def to_float64(raw: npt.NDArray[np.uint8] | bytes, dtype: str) -> Matrix:
    """Return stored numbers, little-endian bytes of any shape in a dtype of `FLOATING`, exactly: `(numbers,)`."""
    octets = np.frombuffer(raw, np.uint8) if isinstance(raw, bytes) else np.ascontiguousarray(raw).reshape(-1)
    # Widening a signalling NaN makes it quiet, of which numpy would warn.
    with np.errstate(invalid="ignore"):
        if dtype == "BF16":
            # A bfloat16 is the upper half of a float32.
            upper = octets.view("<u2").astype(np.uint32) << np.uint32(16)
            return upper.view(np.float32).astype(np.float64)
        return octets.view(_VIEWS[dtype]).astype(np.float64)


def from_float64(values: Matrix, dtype: str) -> bytes:
    """Return float64 numbers as they are stored in a dtype of `FLOATING`, in C order, each rounded once.

    To nearest, ties to even. What lies beyond the largest finite number becomes infinity as IEEE 754 says; a NaN stays
    one, with the upper bits of its payload.
    """
    numbers = np.ascontiguousarray(values, dtype="<f8")
    if dtype == "F64":
        return numbers.tobytes()
    exponent_bits, fraction_bits = _NARROW[dtype]
    narrow = _narrow(numbers.reshape(-1).view(np.uint64), exponent_bits, fraction_bits)
    return narrow.astype("<u4" if dtype == "F32" else "<u2").tobytes()


def _narrow(bits: npt.NDArray[np.uint64], exponent_bits: int, fraction_bits: int) -> npt.NDArray[np.uint64]:
    # In integers and straight from float64: by way of float32 a number would be rounded twice.
    bias = (1 << (exponent_bits - 1)) - 1
    infinity = np.uint64(((1 << exponent_bits) - 1) << fraction_bits)
    dropped = 52 - fraction_bits
    sign = (bits >> np.uint64(63)) << np.uint64(exponent_bits + fraction_bits)
    fraction = bits & np.uint64((1 << 52) - 1)
    wide_exponent = ((bits >> np.uint64(52)) & np.uint64(0x7FF)).astype(np.int64)
    exponent = wide_exponent - 1023 + bias

    # A normal result keeps its exponent above the fraction, so that rounding up carries into it.
    normal = (np.maximum(exponent, 0).astype(np.uint64) << np.uint64(52)) | fraction
    subnormal = fraction | np.uint64(1 << 52)
    wide = np.where(exponent > 0, normal, subnormal)
    shift = np.minimum(dropped + np.maximum(1 - exponent, 0), 63).astype(np.uint64)
    below_half = (np.uint64(1) << (shift - np.uint64(1))) - np.uint64(1)
    odd = (wide >> shift) & np.uint64(1)
    rounded = np.minimum((wide + below_half + odd) >> shift, infinity)

    is_nan = (wide_exponent == 0x7FF) & (fraction != 0)
    quiet = infinity | np.uint64(1 << (fraction_bits - 1)) | (fraction >> np.uint64(dropped))
    return sign | np.where(is_nan, quiet, rounded)
