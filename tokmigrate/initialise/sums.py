"""Sums whose order of additions is fixed here and not by numpy, so that every machine gives the same bits.

`np.sum`, `np.dot` and `@` choose the order of their additions by the width of the processor's vectors, by
memory layout and by the BLAS that numpy was built with; element-wise additions leave nothing to choose.
"""

from __future__ import annotations

import numpy as np

from tokmigrate.vocabulary.recipes import Matrix


def tree_sum(a: Matrix, axis: int) -> Matrix:
    """Return the sum of `a` along `axis` by pairwise halving, 0.0 where that axis is empty.

    Of n slices, slice i takes slice i + ceil(n/2) to itself until one is left. The rounding error grows with
    log2(n), as in any pairwise sum (Higham, Accuracy and Stability of Numerical Algorithms, §4.2).

    Args:
        a: Numbers of any shape; they stay as they are.
        axis: The axis that goes.
    """
    moved = np.moveaxis(a, axis, 0)
    if not len(moved):
        return np.zeros(moved.shape[1:])
    return fold(np.array(moved, dtype=np.float64))


def fold(buffer: Matrix) -> Matrix:
    """Return the same sum along the first axis of `buffer`, which must not be empty and is overwritten."""
    left = len(buffer)
    while left > 1:
        half = (left + 1) // 2
        buffer[: left - half] += buffer[half:left]
        left = half
    first: Matrix = buffer[0]
    return first
