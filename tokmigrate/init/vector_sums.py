"""Vectors as sums of a few others: by orthogonal matching pursuit, or by likeness (FOCUS, arXiv 2305.14481)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from tokmigrate.model.formats.dtype import Matrix

if TYPE_CHECKING:
    import numpy.typing as npt

Places: TypeAlias = "npt.NDArray[np.int64]"

_BLOCK_BYTES = 64 << 20
"""About the memory for the products of some targets with all others."""

_NONE_LEFT = 1e-12
"""The share of a target's length below which nothing of it is left."""


def _cut_blocks(targets: Matrix, others: Matrix) -> Iterator[Matrix]:
    size = max(1, _BLOCK_BYTES // (8 * max(1, len(others))))
    return (targets[start : start + size] for start in range(0, len(targets), size))


def approximate(targets: Matrix, atoms: Matrix, most: int) -> Iterator[tuple[Places, Matrix]]:
    """Yield for each of `targets`, `(targets, width)`, the places of at most `most` of `atoms` and their weights.

    Each step takes the atom whose product with what is left of the target is the largest, of equal ones the first, and
    the weights of all atoms taken so far are those of the least squares. The atoms, `(atoms, width)`, are neither
    normalised nor centred. Everything is float64. Where two products differ in their last bits alone, the linear
    algebra of the machine decides.
    """
    for block in _cut_blocks(targets, atoms):
        yield from _approximate_block(block, atoms, min(most, len(atoms)))


def _approximate_block(targets: Matrix, atoms: Matrix, most: int) -> Iterator[tuple[Places, Matrix]]:
    count, width = targets.shape
    every = np.arange(count)
    taken = np.zeros((count, most), np.int64)
    # Of the atoms taken, A = Q R: the columns of Q are orthonormal.
    basis, upper = np.zeros((count, most, width)), np.zeros((count, most, most))
    products = np.zeros((count, most))
    left, lengths = targets.copy(), np.linalg.norm(targets, axis=1)
    goes_on = lengths > 0.0
    for step in range(most):
        scores = np.abs(left @ atoms.T)
        scores[every[:, np.newaxis], taken[:, :step]] = -1.0
        taken[:, step] = scores.argmax(axis=1)
        rest = atoms[taken[:, step]]
        sizes = np.linalg.norm(rest, axis=1)
        # Twice, since one pass leaves errors where an atom is nearly a sum of others.
        for _ in range(2):
            shares = np.einsum("btd,bd->bt", basis[:, :step], rest)
            upper[:, :step, step] += shares
            rest = rest - np.einsum("btd,bt->bd", basis[:, :step], shares)
        norms = np.linalg.norm(rest, axis=1)
        goes_on &= (norms > 1e-10 * sizes) & (np.linalg.norm(left, axis=1) > _NONE_LEFT * lengths)
        upper[:, step, step] = np.where(goes_on, norms, 1.0)
        basis[goes_on, step] = rest[goes_on] / norms[goes_on, np.newaxis]
        products[:, step] = np.einsum("bd,bd->b", basis[:, step], left)
        left -= products[:, step, np.newaxis] * basis[:, step]
        if not goes_on.any():
            break
    else:
        step = most
    upper[:, range(step, most), range(step, most)] = 1.0
    weights = np.linalg.solve(upper, products[:, :, np.newaxis])[:, :, 0]
    for places, row in zip(taken, weights, strict=True):
        used = row != 0.0
        # A row of zeros is nothing of the first.
        used[0] |= not used.any()
        yield places[used], row[used]


def weigh_similar(targets: Matrix, others: Matrix, most: int) -> Iterator[tuple[Places, Matrix]]:
    """Yield for each of `targets`, `(targets, width)`, the places of at most `most` of `others` and their weights.

    The weights are the sparsemax of the cosines with the `most` vectors that are most like the target: they are above
    zero, and their sum is 1.
    """
    others = _normalise(others)
    for block in _cut_blocks(targets, others):
        cosines = _normalise(block) @ others.T
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
