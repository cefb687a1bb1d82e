"""The strategy `mean`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np

from tokmigrate.initialise.strategies.base import RowStrategy
from tokmigrate.vocabulary.recipes import Matrix, Request, Side, Statistics


class Mean(RowStrategy):
    """The mean of the baseline's rows, (1/|T|) Σ E_i.

    The safe choice for any new token, and the one taken where a migration says nothing. While no new token
    is in the context, n rows of it change the model's next-token distribution by
    KL(p‖p') ≤ log(1 + n/|T|) nats, for a head without bias or one whose bias starts at its mean too
    (Jensen's inequality). New tokens start alike and are told apart by training only.
    Source: Hewitt, "Initializing New Word Embeddings for Pretrained Language Models" (2021).
    """

    is_sum: ClassVar[bool] = True

    strategy: Literal["mean"]

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:  # noqa: ARG002
        """Return the mean for each request, `(requests, hidden)`."""
        return np.tile(statistics.mean(), (len(requests), 1))
