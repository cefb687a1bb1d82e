"""The fingerprint of a new row, which shows later whether it is still as it was initialised: its digest and dtype.

As text: `input BF16 <BLAKE3 of the row's bytes>; output BF16 <…>`. A tied model has the input alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from blake3 import blake3

from tokmigrate.model.formats.dtype import from_float64, to_float64
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.vocabulary.row_edit import Side

_FINGERPRINT = re.compile(r"(input|output) (\w+) ([0-9a-f]{64})")
# To which dtypes the numbers of each can be cast without a change.
_WIDER: Mapping[str, frozenset[str]] = {
    "BF16": frozenset({"F32", "F64"}),
    "F16": frozenset({"F32", "F64"}),
    "F32": frozenset({"F64"}),
}


@dataclass(frozen=True)
class RowFingerprint:
    """The digest (BLAKE3, in hexadecimal) and dtype of a row of one matrix as a migration initialised it."""

    dtype: str
    digest: str

    @staticmethod
    def of(raw: bytes, dtype: str) -> RowFingerprint:
        """Return the fingerprint of a row that is stored as `raw`."""
        return RowFingerprint(dtype, blake3(raw).hexdigest())

    def still_is(self, raw: bytes, dtype: str) -> bool | None:
        """Return whether a row is as it was initialised.

        Args:
            dtype: The dtype that it is stored in now. Another one that holds every number of the first is no
                change: the numbers are compared.

        Returns:
            None where it is stored in a dtype that cannot hold the first numbers, so that it is not known.
        """
        if dtype == self.dtype:
            return blake3(raw).hexdigest() == self.digest
        if dtype not in _WIDER.get(self.dtype, ()):
            return None
        values = to_float64(raw, dtype)
        narrow = from_float64(values, self.dtype)
        if not np.array_equal(to_float64(narrow, self.dtype), values, equal_nan=True):
            return False
        return blake3(narrow).hexdigest() == self.digest


RowFingerprints = Mapping[Side, RowFingerprint]
"""The fingerprints of a token's rows: in the input embeddings, and in those of the output where they are not tied."""


def format_fingerprints(marks: RowFingerprints) -> str:
    return "; ".join(f"{side} {mark.dtype} {mark.digest}" for side, mark in sorted(marks.items()))


def parse_fingerprints(text: str) -> dict[Side, RowFingerprint]:
    """Return the fingerprints that a text holds; none where it is written in a way that is not known."""
    found = [_FINGERPRINT.fullmatch(part) for part in text.split("; ")]
    if not all(found):
        return {}
    return {"output" if part[1] == "output" else "input": RowFingerprint(part[2], part[3]) for part in found if part}


def embeddings(tensors: Iterable[VocabularyTensor]) -> dict[Side, VocabularyTensor]:
    """Return the matrices whose rows get fingerprints: the input embeddings, and those of the output unless tied.

    Biases, tables of integers and embeddings of single layers get none: what training makes of a token shows here.
    """
    known = tuple(tensors)
    names = {tensor.name: tensor for tensor in known}
    found: dict[Side, VocabularyTensor] = {}
    for tensor in known:
        if tensor.embeds:
            found.setdefault("input", names[tensor.canonical])
        elif tensor.side == "output" and tensor.canonical == tensor.name and _is_whole(tensor):
            found.setdefault("output", tensor)
    return found


def _is_whole(tensor: VocabularyTensor) -> bool:
    return tensor.width > 1 and tensor.window.stop is None and not tensor.is_table and not tensor.adds
