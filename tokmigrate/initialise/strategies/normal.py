"""The strategy `normal`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import Field

from tokmigrate.initialise.strategies.base import RowStrategy
from tokmigrate.vocabulary.recipes import Matrix, Request, Side, Statistics


class Normal(RowStrategy):
    """Independent draws from N(mean, std²), each number of the row for itself.

    What most models start their training with (`initializer_range`, 0.02). It knows nothing of the trained
    rows, so it suits vocabularies that are trained for long; otherwise prefer `mean` or `mean_cov`.
    A bias is one such draw too.
    """

    strategy: Literal["normal"]
    std: float = Field(default=0.02, ge=0.0, description="The standard deviation.")
    mean: float = Field(default=0.0, description="The mean of every number, not the mean row.")

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:  # noqa: ARG002
        """Return draws for each request, `(requests, hidden)`."""
        draws = np.stack([request.noise(statistics.width) for request in requests])
        made: Matrix = draws * self.std + self.mean
        return made
