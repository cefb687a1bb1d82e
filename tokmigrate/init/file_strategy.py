"""The strategy `file`: rows that were computed elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from pydantic import Field

from tokmigrate.errors import OperationError, WeightsError, suggest
from tokmigrate.init.row_strategy import Request, RowStrategy
from tokmigrate.init.statistics import RowStatistics
from tokmigrate.memo import forget_with_all
from tokmigrate.model.formats.dtype import FLOATING, Matrix, to_float64
from tokmigrate.model.formats.safetensors_header import Header, parse_header
from tokmigrate.vocabulary.row_edit import Side

PROVENANCE = "tokmigrate"
"""The key of a file's metadata under which it says, in JSON, how its rows were learned."""

LOSSES = "losses"
"""The key of a provenance with the loss by step."""

KEPT = "kept"
"""The key of a provenance with the tokens whose rows were not learned, but are those that the model had."""


class File(RowStrategy):
    """A row computed elsewhere, from a safetensors file beside the migration.

    For rows that come out of a training run or of another tool. The file holds one tensor of one axis for
    each row, with as many numbers as the embeddings are wide, in BF16, F16, F32 or F64. It is part of the
    migration's checksum. Where input and output embeddings differ, give each side its own strategy. A
    bias of the output side is the mean of the baseline's biases, unless `bias` names a file with it.
    """

    strategy: Literal["file"]
    path: str = Field(min_length=1, description="The safetensors file, relative to the migration file.")
    tensor: str | None = Field(
        default=None, description="The tensor's name in the file; if not given, the new token's own text."
    )
    bias: str | None = Field(
        default=None,
        min_length=1,
        description="A safetensors file with the token's bias of the output side: one number by the tensor's name.",
    )

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:  # noqa: ARG002
        """Refuse: what the file holds is known to the resolved strategy only."""
        raise ValueError(f"`file` has to be resolved before it makes rows: {self.path}")

    def references(self) -> tuple[str, ...]:
        return (self.path,) if self.bias is None else (self.path, self.bias)

    def resolve(self, attachments: Mapping[str, bytes], token: str) -> RowStrategy:
        """Return the row as data.

        Raises:
            OperationError: The file is not attached, or holds no such row of finite numbers.
            WeightsError: It is no safetensors file.
        """
        name = token if self.tensor is None else self.tensor
        for path in self.references():
            if path not in attachments:
                raise OperationError(
                    f"init of '{token}': the file '{path}' does not belong to the migration",
                    where=token,
                    hint="put it beside the migration file",
                )
        data = attachments[self.path]
        values = _row(data, self.path, name).astype("<f8").tobytes()
        learned, kept = _summarize_provenance(data, self.path)
        bias = None if self.bias is None else _row(attachments[self.bias], self.bias, name)
        if bias is not None and len(bias) != 1:
            raise OperationError("a bias is one number", where=f"{self.bias}: {name}", hint="store one for each token")
        return StoredRow(
            strategy="file",
            values=values,
            path=self.path,
            tensor=name,
            bias=None if bias is None else float(bias[0]),
            provenance="" if name in kept else learned,
            norm=self.norm,
        )


class StoredRow(RowStrategy):
    """A row that is known already, with the file and the tensor that it is from.

    Args:
        values: Its numbers, little-endian float64.
        bias: That of the output side, None for the mean of the baseline's.
        provenance: What its file says of how it was learned, as JSON without the figures of each step; "" for nothing.
    """

    strategy: Literal["file"]
    path: str
    tensor: str
    values: bytes
    bias: float | None = None
    provenance: str = ""

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:  # noqa: ARG002
        """Return the row for each request, `(requests, hidden)`; of one number where it is a bias.

        Raises:
            OperationError: The embeddings are not as wide as the row.
        """
        row = np.frombuffer(self.values, "<f8")
        if len(row) != statistics.width:
            if statistics.width != 1:
                raise OperationError(
                    f"the row has {len(row)} numbers, the embeddings are {statistics.width} wide",
                    where=f"{self.path}: {self.tensor}",
                    hint="compute the row for this model, or use another strategy",
                )
            row = statistics.mean if self.bias is None else np.array([self.bias])
        return np.broadcast_to(row, (len(requests), len(row)))

    def describe(self) -> dict[str, Any]:
        told = self.model_dump(mode="json", exclude_defaults=True, exclude={"values"})
        return {**told, "provenance": json.loads(self.provenance)} if self.provenance else told


def _row(data: bytes, path: str, name: str) -> Matrix:
    header = _header(data, path)
    found = {entry.name: entry for entry in header.entries}
    entry = found.get(name)
    if entry is None:
        known = f"its tensors are {', '.join(list(found)[:8])}" if found else "it holds no tensors"
        raise OperationError(f"the file has no tensor '{name}'", where=path, hint=suggest(name, found) or known)
    where = f"{path}: {name}"
    if entry.dtype not in FLOATING or len(entry.shape) != 1 or not entry.shape[0]:
        raise OperationError(
            f"a row is one axis of BF16, F16, F32 or F64 numbers, this is {entry.dtype} {list(entry.shape)}",
            where=where,
            hint="store each row as a tensor of its own",
        )
    values = to_float64(data[header.data_start + entry.begin : header.data_start + entry.end], entry.dtype)
    if not np.isfinite(values).all():
        raise OperationError("the row holds an infinity or a NaN", where=where, hint="compute the row again")
    return values


def read_provenance(data: bytes, path: str) -> dict[str, Any] | None:
    """Return what a file of rows says of how they were learned, None where it says nothing."""
    try:
        return parse_provenance(_header(data, path).metadata)
    except WeightsError:
        return None


def parse_provenance(metadata: Mapping[str, str] | None) -> dict[str, Any] | None:
    """Return what the metadata of a safetensors file says of how its rows were learned, None where it says nothing."""
    try:
        told = json.loads((metadata or {}).get(PROVENANCE, ""))
    except (ValueError, RecursionError):
        return None
    return told if isinstance(told, dict) and isinstance(told.get("command"), str) else None


def find_provenance(attachments: Mapping[str, bytes]) -> dict[str, Any] | None:
    """Return what the first file of rows beside a migration says of how they were learned; None where none does."""
    files = ((name, data) for name, data in attachments.items() if name.endswith(".safetensors"))
    return next(filter(None, (read_provenance(data, name) for name, data in files)), None)


@lru_cache(maxsize=4)
def _summarize_provenance(data: bytes, path: str) -> tuple[str, frozenset[str]]:
    """Return what a file says of all its rows, as JSON, and the tokens for whose rows it does not hold."""
    said = read_provenance(data, path) or {}
    kept = said.get(KEPT) if isinstance(said.get(KEPT), list) else None
    whole = {name: value for name, value in said.items() if name not in (LOSSES, KEPT)}
    return json.dumps(whole) if whole else "", frozenset(map(str, kept or ()))


# A migration often takes hundreds of rows from one file of each side.
@lru_cache(maxsize=4)
def _header(data: bytes, path: str) -> Header:
    return parse_header(data, len(data), path)


forget_with_all(_header.cache_clear)
forget_with_all(_summarize_provenance.cache_clear)
