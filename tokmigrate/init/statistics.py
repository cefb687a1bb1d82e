"""What strategies need to know of all rows of the baseline, in passes of flat memory and fixed order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property

import numpy as np

from tokmigrate.errors import ModelError, OperationError
from tokmigrate.init.strategies.base import fold, tree_sum
from tokmigrate.vocabulary.recipes import Matrix

BLOCK_ROWS = 1024
"""The rows that are summed as one tree; part of what fixes the bits of every result."""

# Columns of a block that are summed at a time: about what a processor's cache holds; no result depends on it.
_SLAB = 64


class RowStatistics:
    """The statistics of T, the rows of the baseline vocabulary that are still there.

    Nothing is read before it is asked for, and mean and median norm are computed once. No result depends on
    how the rows are cut into blocks. The memory is that of a few blocks of 1024 rows in float64, and of the
    weights for as many rows.

    Args:
        blocks: Begins a pass over T in the order of the baseline's ids; yields `(any, hidden)` in float64.
        count: |T|.
        width: The numbers in a row.
    """

    def __init__(self, blocks: Callable[[], Iterator[Matrix]], count: int, width: int) -> None:
        self._blocks = blocks
        self._count = count
        self._width = width

    @property
    def count(self) -> int:
        """|T|."""
        return self._count

    @property
    def width(self) -> int:
        """The numbers in a row."""
        return self._width

    def mean(self) -> Matrix:
        """Return the mean row, `(hidden,)`.

        Raises:
            OperationError: T is empty.
            ModelError: A row holds an infinity or a NaN.
        """
        return self._mean

    def median_norm(self) -> float:
        """Return the median Euclidean norm of T's rows; with an even |T| the mean of the middle two.

        Raises:
            OperationError: T is empty.
            ModelError: A row holds an infinity or a NaN.
        """
        return self._median_norm

    def weighted_sums(self, weights: Sequence[Callable[[int, int], Matrix]]) -> Matrix:
        """Return Σ w_i (E_i - mean) for each weighting, `(len(weights), hidden)`, in one pass.

        Each sum is the same bits whichever others are asked for along with it.

        Args:
            weights: For each sum a function that gives the weights of T's rows from a start to a stop.
        """
        mean = self.mean()
        sums = np.zeros((len(weights), self._width))
        for start, block in self._canonical():
            centred = block - mean
            columns = [weighting(start, start + len(block))[:, np.newaxis] for weighting in weights]
            for left in range(0, self._width, _SLAB):
                slab = np.ascontiguousarray(centred[:, left : left + _SLAB])
                for total, column in zip(sums, columns, strict=True):
                    total[left : left + _SLAB] += fold(slab * column)
        return sums

    @cached_property
    def _mean(self) -> Matrix:
        self._refuse_empty()
        total = np.zeros(self._width)
        for _, block in self._canonical():
            total += tree_sum(block, 0)
        mean: Matrix = total / float(self._count)
        self._refuse_unless_finite(mean)
        mean.flags.writeable = False
        return mean

    @cached_property
    def _median_norm(self) -> float:
        self._refuse_empty()
        norms = np.concatenate([np.sqrt(tree_sum(block * block, 1)) for _, block in self._canonical()])
        self._refuse_unless_finite(norms)
        norms.sort()
        middle = self._count // 2
        return float(norms[middle] if self._count % 2 else (norms[middle - 1] + norms[middle]) * 0.5)

    def _canonical(self) -> Iterator[tuple[int, Matrix]]:
        """Yield T in blocks of `BLOCK_ROWS` rows, each with the number of its first row."""
        buffer = np.empty((min(BLOCK_ROWS, self._count), self._width))
        filled = start = 0
        for block in self._blocks():
            position = 0
            while position < len(block):
                taken = min(len(buffer) - filled, len(block) - position)
                if not taken:
                    raise ValueError(f"more than the {self._count} rows that were announced")
                buffer[filled : filled + taken] = block[position : position + taken]
                filled, position = filled + taken, position + taken
                if filled == len(buffer):
                    yield start, buffer
                    start, filled = start + filled, 0
                    buffer = buffer[: self._count - start]
        if filled or start != self._count:
            raise ValueError(f"{start + filled} rows, but {self._count} were announced")

    def _refuse_empty(self) -> None:
        if not self._count:
            raise OperationError(
                "no row of the baseline vocabulary is left to take a mean or a norm over",
                hint="use `zeros`, `normal` or `file`, without `norm`",
            )

    def _refuse_unless_finite(self, values: Matrix) -> None:
        if not np.isfinite(values).all():
            raise ModelError(
                "a row of the baseline vocabulary holds an infinity or a NaN, so it has no mean and no norm",
                hint="use `copy`, `average` or `subtokens`, which read single rows only",
            )
