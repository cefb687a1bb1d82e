"""One pass over a matrix: how long each of its rows is, and which rows point the same way as a few of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from tokmigrate.model.weights.tensor_rows import BLOCK_BYTES, TensorRows

_DIGITS = 9
"""Cosines that agree so far are told apart by the id, so that no order hangs on a rounding."""

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Neighbour:
    """A row near another.

    Args:
        id: Its id.
        cosine: The cosine of the angle between the two.
    """

    id: int
    cosine: float


@dataclass(frozen=True, eq=False)
class RowSurvey:
    """What one pass over a matrix tells.

    Args:
        norms: The Euclidean norm of each row, `(rows,)`; not finite where the row is not.
        nearest: For each row that was asked about its nearest, the nearest first; none where it has no direction.
        twins: For each row that was to be compared how many others of these hold the same numbers.
    """

    norms: Numbers
    nearest: dict[int, tuple[Neighbour, ...]]
    twins: dict[int, int]


def survey_rows(
    rows: TensorRows,
    stop: int,
    asked: Sequence[int] = (),
    among: npt.NDArray[np.bool_] | None = None,
    compared: Collection[int] = (),
    count: int = 5,
    told: Callable[[int], None] = lambda _: None,
    block_bytes: int = BLOCK_BYTES,
) -> RowSurvey:
    """Read the rows before `stop` once, in blocks; memory stays at one block and the rows asked about.

    Args:
        rows: The open tensor.
        stop: Up to which row.
        asked: The rows whose nearest are wanted.
        among: Which rows may be named as nearest, `(stop,)`; all of them if it is None.
        compared: The rows that are looked through for equal ones.
        count: How many of the nearest.
        told: Called with the bytes of each block that was read.
        block_bytes: The most bytes of float64 in a block.
    """
    norms = np.empty(stop, np.float64)
    wanted = _directions(np.stack([rows.row(number) for number in asked])) if asked else np.empty((0, rows.width))
    best = _Best(asked, count)
    digests: dict[int, bytes] = {}
    position = 0
    for block in rows.float_rows([(0, stop)], block_bytes):
        with np.errstate(over="ignore", invalid="ignore"):
            norms[position : position + len(block)] = np.sqrt(np.einsum("ij,ij->i", block, block))
        if asked:
            ids = np.arange(position, position + len(block))
            allowed = np.ones(len(block), np.bool_) if among is None else among[position : position + len(block)]
            best.offer(ids, wanted @ _directions(block).T, allowed)
        for number in compared:
            if position <= number < position + len(block):
                digests[number] = blake3(block[number - position].tobytes()).digest()
        position += len(block)
        told(len(block) * rows.geometry.row_bytes)
    times = Counter(digests.values())
    return RowSurvey(norms, best.neighbours(), {number: times[held] - 1 for number, held in digests.items()})


def _directions(rows: Numbers) -> Numbers:
    """Return the rows scaled to norm 1; NaN where a row has no direction."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        # Scaled by the largest number first: the squares of very small or large ones leave the range of float64.
        scaled = rows / np.max(np.abs(rows), axis=1, keepdims=True, initial=0.0)
        directions: Numbers = scaled / np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, np.newaxis]
    return directions


class _Best:
    """The best cosines so far for each row that was asked about."""

    def __init__(self, asked: Sequence[int], count: int) -> None:
        self._asked = asked
        self._count = count
        self._ids = np.full((len(asked), count), -1)
        self._cosines = np.full((len(asked), count), -np.inf)

    def offer(self, ids: npt.NDArray[np.int64], cosines: Numbers, allowed: npt.NDArray[np.bool_]) -> None:
        """Take in a block of rows."""
        cosines = np.where(allowed & np.isfinite(cosines), np.round(cosines, _DIGITS), -np.inf)
        cosines[np.asarray(self._asked)[:, np.newaxis] == ids] = -np.inf
        # Most blocks have nothing better for most rows, and sorting is what costs.
        better = np.flatnonzero(cosines.max(axis=1) > self._cosines[:, -1])
        cosines = np.concatenate([self._cosines[better], cosines[better]], axis=1)
        numbers = np.concatenate([self._ids[better], np.broadcast_to(ids, (len(better), len(ids)))], axis=1)
        # Ids rise along each line, so a stable sort lets the lower one stand first among equals.
        order = np.argsort(-cosines, axis=1, kind="stable")[:, : self._count]
        self._ids[better] = np.take_along_axis(numbers, order, axis=1)
        self._cosines[better] = np.take_along_axis(cosines, order, axis=1)

    def neighbours(self) -> dict[int, tuple[Neighbour, ...]]:
        """Return the best of each."""
        return {
            asked: tuple(
                Neighbour(int(number), float(cosine))
                for number, cosine in zip(ids, cosines, strict=True)
                if np.isfinite(cosine)
            )
            for asked, ids, cosines in zip(self._asked, self._ids, self._cosines, strict=True)
        }
