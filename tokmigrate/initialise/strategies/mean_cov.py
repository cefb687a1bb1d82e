"""The strategy `mean_cov`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.initialise.strategies.base import RowStrategy
from tokmigrate.vocabulary.recipes import Matrix, Request, Side, Statistics

# Rows made in one pass over the baseline; each holds |T| numbers of noise in memory meanwhile.
_BATCH = 32


class MeanCov(RowStrategy):
    """A draw from N(μ, scale · Σ), with the mean μ and the covariance Σ of the baseline's rows.

    For new tokens that shall differ from the start. The draw is
    μ + sqrt(scale / (|T| - 1)) Σ_i z_i (E_i - μ) with independent z_i ~ N(0, 1), which has exactly that
    distribution and needs no matrix of the covariance; every 32 rows cost one pass over the embeddings. A
    `scale` of 1 is what mergekit draws with, 1e-9 what transformers does. The bound of `mean` holds
    approximately while `scale` is small. A bias is drawn in the same way, independently of its row.
    Source: Hewitt (2021); `resize_token_embeddings(mean_resizing=True)` of transformers.
    """

    strategy: Literal["mean_cov"]
    scale: float = Field(
        default=1e-9,
        ge=0.0,
        description="What the covariance is multiplied by: 1e-9 as in transformers, 1 as in mergekit.",
    )

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:  # noqa: ARG002
        """Return a draw for each request, `(requests, hidden)`.

        Raises:
            OperationError: The baseline has fewer than two rows left.
        """
        count = statistics.count
        if count < 2:
            raise OperationError(
                f"mean_cov needs two rows of the baseline vocabulary, {count} left", hint="use `mean` or `copy`"
            )
        draws = np.empty((len(requests), statistics.width))
        for first in range(0, len(requests), _BATCH):
            weights = [_weighting(request.noise(count)) for request in requests[first : first + _BATCH]]
            draws[first : first + len(weights)] = statistics.weighted_sums(weights)
        factor = np.sqrt(np.float64(self.scale) / np.float64(count - 1))
        made: Matrix = statistics.mean() + factor * draws
        return made

    def additions(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:  # noqa: ARG002
        """Return the mean of the factor's rows for each request, `(requests, rank)`: the draw is the matrix's own."""
        return np.tile(statistics.mean(), (len(requests), 1))


def _weighting(noise: Matrix) -> Callable[[int, int], Matrix]:
    return lambda start, stop: noise[start:stop]
