"""Sums of fixed order, and what strategies need to know of all rows of the baseline, in passes of flat memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from tokmigrate.errors import ModelError, OperationError
from tokmigrate.model.formats.dtype import ITEM_BITS, Matrix, to_float64
from tokmigrate.model.weights.tensor_rows import Octets
from tokmigrate.parallel import run_in_order
from tokmigrate.vocabulary.ids import Run, count, cut_runs

BLOCK_ROWS = 1024
"""The rows that are summed as one tree; part of what fixes the bits of every result."""

# Columns of a block that are summed at a time: about what a processor's cache holds; no result depends on it.
_SLAB = 256
_ALONE_BYTES = 8 << 20


def tree_sum(a: Matrix, axis: int) -> Matrix:
    """Return the sum of `a` along `axis` by pairwise halving, 0.0 where that axis is empty.

    Of n slices, slice i takes slice i + ceil(n/2) to itself until one is left. The rounding error grows with
    log2(n), as in any pairwise sum (Higham, Accuracy and Stability of Numerical Algorithms, §4.2).
    """
    moved = np.moveaxis(a, axis, 0)
    if not len(moved):
        return np.zeros(moved.shape[1:])
    return _fold(np.array(moved, dtype=np.float64))


def _fold(buffer: Matrix) -> Matrix:
    """Return the same sum along the first axis of `buffer`, which must not be empty and is overwritten."""
    left = len(buffer)
    while left > 1:
        half = (left + 1) // 2
        buffer[: left - half] += buffer[half:left]
        left = half
    first: Matrix = buffer[0]
    return first


def sum_blocks(rows: Octets, dtype: str) -> list[Matrix]:
    """Return the sum of each `BLOCK_ROWS` of stored rows, `(rows, row_bytes)`; the last block may have fewer."""
    return [_sum_block(rows[start : start + BLOCK_ROWS], dtype) for start in range(0, len(rows), BLOCK_ROWS)]


def _sum_block(rows: Octets, dtype: str) -> Matrix:
    total = np.empty(rows.shape[1] * 8 // ITEM_BITS[dtype])
    for left in range(0, len(total), _SLAB):
        total[left : left + _SLAB] = _fold(_slab(rows, dtype, left))
    return total


def _slab(rows: Octets, dtype: str, left: int) -> Matrix:
    """Return some columns of stored rows as numbers, in memory of their own."""
    item = ITEM_BITS[dtype] // 8
    return to_float64(rows[:, left * item : (left + _SLAB) * item], dtype).reshape(len(rows), -1)


@dataclass(eq=False)
class RowStatistics:
    """The statistics of T, the rows of the baseline vocabulary that are still there.

    Nothing is read before it is asked for, and mean and median norm are computed once. Blocks of 1024 rows are read by
    all cores, and what is found in them is added in their order, so that no result depends on the number of threads.
    Mean and median norm raise OperationError where T is empty, and ModelError where a row holds an infinity or a NaN.

    Args:
        read: Returns the stored rows of some runs, `(rows, row_bytes)`; called by several threads.
        population: T as runs of rows, in the order of the baseline's ids.
        known_mean: The mean, where it was computed before.
    """

    read: Callable[[Sequence[Run]], Octets]
    dtype: str
    population: Sequence[Run]
    width: int
    known_mean: Matrix | None = None

    @cached_property
    def count(self) -> int:
        """|T|."""
        return count(self.population)

    @cached_property
    def mean(self) -> Matrix:
        """The mean row, `(hidden,)`."""
        self._refuse_empty()
        mean = self.known_mean
        if mean is None:
            total = np.zeros(self.width)
            self._pass(lambda _, rows: _sum_block(rows, self.dtype), lambda found: np.add(total, found, out=total))
            mean = total / float(self.count)
        _refuse_unless_finite(mean)
        mean.flags.writeable = False
        return mean

    @cached_property
    def median_norm(self) -> float:
        """The median Euclidean norm of T's rows; with an even |T| the mean of the middle two."""
        self._refuse_empty()
        blocks: list[Matrix] = []
        self._pass(self._norms, blocks.append)
        norms = np.concatenate(blocks)
        _refuse_unless_finite(norms)
        norms.sort()
        middle = self.count // 2
        return float(norms[middle] if self.count % 2 else (norms[middle - 1] + norms[middle]) * 0.5)

    def weighted_sums(self, weights: Sequence[Callable[[int, int], Matrix]]) -> Matrix:
        """Return Σ w_i (E_i - mean) for each weighting, `(len(weights), hidden)`, in one pass.

        Each sum is the same bits whichever others are asked for along with it.

        Args:
            weights: For each sum a function that gives the weights of so many of T's rows, from a start on.
        """
        mean = self.mean

        def compute(start: int, rows: Octets) -> Matrix:
            columns = [weighting(len(rows), start)[:, np.newaxis] for weighting in weights]
            found = np.empty((len(weights), self.width))
            for left in range(0, self.width, _SLAB):
                centred = _slab(rows, self.dtype, left) - mean[left : left + _SLAB]
                for total, column in zip(found, columns, strict=True):
                    total[left : left + _SLAB] = _fold(centred * column)
            return found

        sums = np.zeros((len(weights), self.width))
        self._pass(compute, lambda found: np.add(sums, found, out=sums))
        return sums

    def _norms(self, _start: int, rows: Octets) -> Matrix:
        numbers = to_float64(rows, self.dtype).reshape(len(rows), self.width)
        norms: Matrix = np.sqrt(tree_sum(numbers * numbers, 1))
        return norms

    def _pass(self, compute: Callable[[int, Octets], Matrix], add: Callable[[Matrix], object]) -> None:
        """Call `compute` with each block of T and the number of its first row, and `add` with what it returns."""

        def work(block: tuple[int, Sequence[Run]]) -> Matrix:
            return compute(block[0] * BLOCK_ROWS, self.read(block[1]))

        def collect(_: object, found: Matrix) -> None:
            add(found)

        alone = self.count * self.width * ITEM_BITS[self.dtype] // 8 < _ALONE_BYTES
        run_in_order(work, list(enumerate(cut_runs(self.population, BLOCK_ROWS))), collect, alone=alone)

    def _refuse_empty(self) -> None:
        if not self.count:
            raise OperationError(
                "no row of the baseline vocabulary is left to take a mean or a norm over",
                hint="use `zeros`, `normal` or `file`, without `norm`",
            )


def _refuse_unless_finite(values: Matrix) -> None:
    if not np.isfinite(values).all():
        raise ModelError(
            "a row of the baseline vocabulary holds an infinity or a NaN, so it has no mean and no norm",
            hint="use `copy`, `average` or `subtokens`, which read single rows only",
        )
