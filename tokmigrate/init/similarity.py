"""Vectors as weights of those that are most like them: sparsemax of cosines (FOCUS, arXiv 2305.14481)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from tokmigrate.model.formats.dtype import Matrix

if TYPE_CHECKING:
    import numpy.typing as npt

_BLOCK_BYTES = 64 << 20
"""About the memory for the cosines of some targets with all others."""


def weigh_similar(targets: Matrix, others: Matrix, most: int) -> Iterator[tuple[npt.NDArray[np.int64], Matrix]]:
    """Yield for each of `targets`, `(targets, width)`, the places of at most `most` of `others` and their weights.

    The weights are the sparsemax of the cosines with the `most` vectors that are most like the target: they are above
    zero, and their sum is 1.
    """
    others = _normalise(others)
    size = max(1, _BLOCK_BYTES // (8 * max(1, len(others))))
    for start in range(0, len(targets), size):
        cosines = _normalise(targets[start : start + size]) @ others.T
        places = np.argpartition(-cosines, min(most, len(others)) - 1, axis=1)[:, :most]
        held = np.take_along_axis(cosines, places, axis=1)
        for row, weights in zip(places, compute_sparsemax(held), strict=True):
            yield row[weights > 0.0], weights[weights > 0.0]


def compute_sparsemax(scores: Matrix) -> Matrix:
    """Return for each row of `scores`, `(rows, scores)`, the nearest numbers of at least 0 whose sum is 1."""
    ordered = -np.sort(-scores, axis=1)
    counts = np.arange(1, scores.shape[1] + 1)
    excess = np.cumsum(ordered, axis=1) - 1.0
    used = np.count_nonzero(ordered * counts > excess, axis=1)[:, np.newaxis]
    weights: Matrix = np.maximum(scores - np.take_along_axis(excess, used - 1, axis=1) / used, 0.0)
    return weights


def _normalise(vectors: Matrix) -> Matrix:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0.0, lengths, 1.0)
