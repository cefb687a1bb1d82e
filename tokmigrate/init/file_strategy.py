"""The strategy `file`: rows that were computed elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from pydantic import Field

from tokmigrate.errors import OperationError, suggest
from tokmigrate.init.row_strategy import Request, RowStrategy
from tokmigrate.init.statistics import RowStatistics
from tokmigrate.memo import forget_with_all
from tokmigrate.model.formats.dtype import FLOATING, Matrix, to_float64
from tokmigrate.model.formats.safetensors_header import Header, parse_header
from tokmigrate.vocabulary.row_edit import Side


class File(RowStrategy):
    """A row computed elsewhere, from a safetensors file beside the migration.

    For rows that come out of a training run or of another tool. The file holds one tensor of one axis for
    each row, with as many numbers as the embeddings are wide, in BF16, F16, F32 or F64. It is part of the
    migration's checksum. Where input and output embeddings differ, give each side its own strategy. A
    bias of the output side has no row in the file: it starts as the mean of the baseline's biases.
    """

    strategy: Literal["file"]
    path: str = Field(min_length=1, description="The safetensors file, relative to the migration file.")
    tensor: str | None = Field(
        default=None, description="The tensor's name in the file; if not given, the new token's own text."
    )

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:  # noqa: ARG002
        """Refuse: what the file holds is known to the resolved strategy only."""
        raise ValueError(f"`file` has to be resolved before it makes rows: {self.path}")

    def references(self) -> tuple[str, ...]:
        return (self.path,)

    def resolve(self, attachments: Mapping[str, bytes], token: str) -> RowStrategy:
        """Return the row as data.

        Raises:
            OperationError: The file is not attached, or holds no such row of finite numbers.
            WeightsError: It is no safetensors file.
        """
        name = token if self.tensor is None else self.tensor
        if self.path not in attachments:
            raise OperationError(
                f"init of '{token}': the file '{self.path}' does not belong to the migration",
                where=token,
                hint="put it beside the migration file",
            )
        values = _row(attachments[self.path], self.path, name).astype("<f8").tobytes()
        return StoredRow(strategy="file", values=values, path=self.path, tensor=name, norm=self.norm)


class StoredRow(RowStrategy):
    """A row of little-endian float64 numbers that is known already, with the file and the tensor that it is from."""

    strategy: Literal["file"]
    path: str
    tensor: str
    values: bytes

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:  # noqa: ARG002
        """Return the row for each request, `(requests, hidden)`; the mean where a row is a single bias.

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
            row = statistics.mean
        return np.broadcast_to(row, (len(requests), len(row)))

    def describe(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_defaults=True, exclude={"values"})


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


# A migration often takes hundreds of rows from one file.
@lru_cache(maxsize=1)
def _header(data: bytes, path: str) -> Header:
    return parse_header(data, len(data), path)


forget_with_all(_header.cache_clear)
