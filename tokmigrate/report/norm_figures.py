"""The norms of a matrix's rows in a few figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tokmigrate.report.impact import share
from tokmigrate.runner.reporting.data import MatrixNorms


@dataclass(frozen=True)
class NormFigures:
    """Smallest, first hundredth, middle, last hundredth and greatest; None where there are no rows.

    Args:
        old: Of the baseline vocabulary's rows.
        new: Of the rows that migrations began.
    """

    old: tuple[float, float, float, float, float] | None
    new: tuple[float, float, float, float, float] | None


def norm_figures(norms: MatrixNorms) -> NormFigures:
    """Return the figures of a matrix."""
    new = np.array(list(norms.new.values()))
    return NormFigures(_quantiles(norms.old), _quantiles(new[np.isfinite(new)]))


def rank(norm: float, norms: MatrixNorms) -> str:
    """Return which part of the old rows are shorter than `norm`, in words; nothing where there are none."""
    if not norms.old.size or not np.isfinite(norm):
        return ""
    shorter = int(np.count_nonzero(norms.old < norm))
    if shorter == 0:
        return "shorter than all old rows" if norm < norms.old.min() else "as short as the shortest old row"
    if shorter == norms.old.size:
        return "longer than all old rows"
    return f"longer than {share(shorter, norms.old.size)} of the old rows"


def _quantiles(values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> tuple[float, float, float, float, float] | None:
    if not values.size:
        return None
    low, first, middle, last, high = (float(value) for value in np.quantile(values, (0, 0.01, 0.5, 0.99, 1)))
    return low, first, middle, last, high
