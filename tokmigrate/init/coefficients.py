"""Coefficients of new rows: for each token the old rows that its row is a sum of, in a safetensors file.

The file holds `tokens`, the ids of the new tokens, and for the input side, and for the output side where it differs,
`…ends`, where the coefficients of each token end, `…rows`, the old rows, and `…weights`. It says in `__metadata__` how
they were computed, and which tokenizers the ids are of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from blake3 import blake3

from tokmigrate.errors import OperationError
from tokmigrate.formats import COEFFICIENTS, check_version
from tokmigrate.init.row_strategy import Request, RowStrategy
from tokmigrate.init.rows import SideInit
from tokmigrate.init.statistics import RowStatistics
from tokmigrate.model.formats.dtype import Matrix
from tokmigrate.model.formats.safetensors_header import Header, encode_header, parse_header
from tokmigrate.vocabulary.row_edit import SIDES, Side

if TYPE_CHECKING:
    import numpy.typing as npt

Sum = tuple["Sequence[int] | npt.NDArray[np.int64]", "Sequence[float] | Matrix"]
"""Rows and their weights."""

Terms = dict[int, Sum]
"""For each new token, by its id, the old rows that its row is a sum of."""

_KEY = "tokmigrate"
_DTYPES: Mapping[str, str] = {"I32": "<i4", "I64": "<i8", "F32": "<f4", "F64": "<f8"}
_DATA_START = 512
"""Where numbers begin in a file, or whole blocks of 4096 bytes later."""
_HINT = "write the file again with `tokmigrate learn transplant`"


class StoredWeights(RowStrategy):
    """A sum of rows whose weights are little-endian float64 numbers of a file, in the order of the rows."""

    is_sum: ClassVar[bool] = True

    strategy: Literal["weighted"]
    path: str
    weights: bytes

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:  # noqa: ARG002
        return np.stack([request.sum_sources(np.frombuffer(self.weights, "<f8")) for request in requests])

    def describe(self) -> dict[str, Any]:
        return {"strategy": "weighted", "path": self.path}


@dataclass(frozen=True)
class _SideCoefficients:
    ends: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Coefficients:
    """What rows are sums of.

    Args:
        path: The file, for messages.
        said: How they were computed, `{"method": …, …}`, with the digests `donor` and `sources` of the tokenizers.
    """

    path: str
    said: Mapping[str, Any]
    _places: Mapping[int, int] = field(repr=False)
    _sides: Mapping[Side, _SideCoefficients] = field(repr=False)

    @property
    def tokens(self) -> tuple[int, ...]:
        """The ids of the new tokens."""
        return tuple(self._places)

    def __contains__(self, token: int) -> bool:
        return token in self._places

    def start(self, side: Side, token: int, rows: Sequence[int]) -> SideInit:
        """Return how the row of a token is initialised on a side; `rows` has the number of each row, to be shared."""
        place = self._places[token]
        held = self._sides.get(side) or self._sides["input"]
        start, end = int(held.ends[place - 1]) if place else 0, int(held.ends[place])
        weights = held.weights[start:end].tobytes()
        strategy = StoredWeights(strategy="weighted", path=self.path, weights=weights)
        return SideInit(strategy, tuple(rows[row] for row in held.rows[start:end].tolist()))

    def check_sources(self, texts: Mapping[int, str]) -> None:
        """Raise OperationError where the rows are not those of the tokens that they were when this was computed."""
        rows = np.unique(np.concatenate([side.rows for side in self._sides.values()])).tolist()
        if any(row not in texts for row in rows) or digest_tokens(texts, rows) != self.said.get("sources"):
            raise OperationError(
                "the coefficients are for another tokenizer: the tokens whose rows they add up have other ids here",
                where=self.path,
                hint="compute them for this model: `tokmigrate learn transplant`",
            )


def digest_tokens(texts: Mapping[int, str], rows: Sequence[int]) -> str:
    """Return the digest of the tokens with these ids, which are in rising order."""
    said = json.dumps([[row, texts[row]] for row in rows], ensure_ascii=False, separators=(",", ":"))
    return blake3(said.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def write_coefficients(sides: Mapping[Side, Terms], texts: Mapping[int, str], said: Mapping[str, Any]) -> bytes:
    """Return the bytes of a file of coefficients, the same for the same ones.

    Args:
        sides: Those of the input side, and those of the output side where they differ, for the same tokens.
        texts: The old tokens by their rows.
        said: What the file says of how they were computed.
    """
    tokens = sorted(sides["input"])
    arrays: dict[str, npt.NDArray[Any]] = {"tokens": np.array(tokens, "<i4")}
    for side, terms in sides.items():
        sums = [terms[token] for token in tokens]
        arrays[f"{side}.ends"] = np.cumsum([len(rows) for rows, _ in sums]).astype("<i4")
        arrays[f"{side}.rows"] = np.concatenate([np.asarray(rows, "<i4") for rows, _ in sums])
        arrays[f"{side}.weights"] = np.concatenate([np.asarray(weights, "<f4") for _, weights in sums])
    used = np.unique(np.concatenate([arrays[f"{side}.rows"] for side in sides])).tolist()
    metadata = {
        _KEY: json.dumps(
            {"format": COEFFICIENTS.version, **said, "sources": digest_tokens(texts, used)}, ensure_ascii=False
        )
    }
    names = {dtype: name for name, dtype in _DTYPES.items()}
    tensors = [(name, names[array.dtype.newbyteorder("<").str], array.shape) for name, array in arrays.items()]
    header = encode_header(tensors, metadata, _DATA_START)
    return header + b"".join(array.tobytes() for array in arrays.values())


def read_coefficients(path: str, data: bytes) -> Coefficients:
    """Return the coefficients in the bytes of a file.

    Raises:
        WeightsError: It is no safetensors file.
        OperationError: It holds something else than coefficients, or numbers that are not finite.
        FormatError: A newer version of tokmigrate wrote it.
    """
    header = parse_header(data, len(data), path)
    try:
        said = json.loads((header.metadata or {})[_KEY])
        check_version(COEFFICIENTS, said["format"], path)
        tokens = _read(header, data, "tokens").astype(np.int64)
        there = {entry.name for entry in header.entries}
        sides = {side: _read_side(header, data, side) for side in SIDES if f"{side}.ends" in there}
        is_right = bool(tokens.size) and "input" in sides
        is_right &= len(np.unique(tokens)) == len(tokens)
        is_right &= all(_is_right(side, len(tokens)) for side in sides.values())
    except (KeyError, TypeError, ValueError) as error:
        raise OperationError("the file holds no coefficients", where=path, hint=_HINT) from error
    if not is_right:
        raise OperationError("the coefficients in the file do not fit its tokens", where=path, hint=_HINT)
    return Coefficients(path, said, {token: place for place, token in enumerate(tokens.tolist())}, sides)


def _read_side(header: Header, data: bytes, side: Side) -> _SideCoefficients:
    ends, rows = (_read(header, data, f"{side}.{name}").astype(np.int64) for name in ("ends", "rows"))
    return _SideCoefficients(ends, rows, _read(header, data, f"{side}.weights").astype("<f8"))


def _read(header: Header, data: bytes, name: str) -> npt.NDArray[Any]:
    entry = next((entry for entry in header.entries if entry.name == name), None)
    if entry is None or entry.dtype not in _DTYPES or len(entry.shape) != 1:
        raise KeyError(name)
    return np.frombuffer(data[header.data_start + entry.begin : header.data_start + entry.end], _DTYPES[entry.dtype])


def _is_right(side: _SideCoefficients, tokens: int) -> bool:
    ends, rows, weights = side.ends, side.rows, side.weights
    return bool(
        len(ends) == tokens
        and len(rows) == len(weights) == ends[-1]
        and np.diff(ends, prepend=0).min() > 0
        and rows.min() >= 0
        and np.isfinite(weights).all()
    )
