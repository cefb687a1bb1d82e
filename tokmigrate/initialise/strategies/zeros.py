"""The strategy `zeros`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from tokmigrate.initialise.strategies.base import RowStrategy
from tokmigrate.vocabulary.recipes import Matrix, Request, Side, Statistics


class Zeros(RowStrategy):
    """A row of zeros.

    For padding rows, and for tokens that are trained before anything reads them. On the output side it gives
    the token the logit 0, which wins the softmax wherever all other logits are negative: `mean` has a bound
    there, a row of zeros has none.
    """

    strategy: Literal["zeros"]

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:  # noqa: ARG002
        """Return zeros for each request, `(requests, hidden)`."""
        return np.zeros((len(requests), statistics.width))
