"""The strategies that need no text: `mean`, `mean_cov`, `zeros`, `normal`, `copy`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from tokmigrate.errors import OperationError
from tokmigrate.init.strategies.base import Lookup, RowStrategy, source_of
from tokmigrate.vocabulary.recipes import Matrix, Request, Side, Statistics


class Mean(RowStrategy):
    """The mean of the baseline's rows, (1/|T|) Σ E_i.

    The safe choice for any new token, and the one taken where a migration says nothing. While no new token
    is in the context, n rows of it change the model's next-token distribution by
    KL(p‖p') ≤ log(1 + n/|T|) nats, for a head without bias or one whose bias starts at its mean too
    (Jensen's inequality). New tokens have the same values at first; only training makes them different.
    Source: Hewitt, "Initializing New Word Embeddings for Pretrained Language Models" (2021).
    """

    is_sum: ClassVar[bool] = True
    needs_mean: ClassVar[bool] = True

    strategy: Literal["mean"]

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:  # noqa: ARG002
        """Return the mean for each request, `(requests, hidden)`."""
        return np.tile(statistics.mean(), (len(requests), 1))


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


class Copy(RowStrategy):
    """The row of another token.

    For a token that takes over another one's part, such as `<|im_end|>` that of `</s>`. Until training tells
    the two apart, the model gives both the same probability: p / (1 + p) where the other one had p.
    """

    is_sum: ClassVar[bool] = True

    strategy: Literal["copy"]
    token: str = Field(description="The token to copy, as the vocabulary before this migration writes it.")

    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:  # noqa: ARG002
        """Return the source row of each request, `(requests, hidden)`."""
        return np.stack([request.sources[0] for request in requests])

    def sources(self, side: Side, lookup: Lookup, token: str) -> tuple[int, ...]:  # noqa: ARG002
        """Return the row of the token to copy; raises OperationError where there is none."""
        return (source_of(lookup, self.token, wanted_by=token),)


class MeanCov(RowStrategy):
    """A draw from N(μ, scale · Σ), with the mean μ and the covariance Σ of the baseline's rows.

    For new tokens that must differ at once. The draw is
    μ + sqrt(scale / (|T| - 1)) Σ_i z_i (E_i - μ) with independent z_i ~ N(0, 1), which has exactly that
    distribution and needs no matrix of the covariance; all rows cost one pass over the embeddings. A
    `scale` of 1 is what mergekit draws with, 1e-9 what transformers does. The bound of `mean` holds
    approximately while `scale` is small. A bias is drawn in the same way, independently of its row.
    Source: Hewitt (2021); `resize_token_embeddings(mean_resizing=True)` of transformers.
    """

    needs_mean: ClassVar[bool] = True

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
        draws = statistics.weighted_sums([partial(_weigh, request) for request in requests])
        factor = np.sqrt(np.float64(self.scale) / np.float64(count - 1))
        made: Matrix = statistics.mean() + factor * draws
        return made

    def additions(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:  # noqa: ARG002
        """Return the mean of the factor's rows for each request, `(requests, rank)`: the draw is the matrix's own."""
        return np.tile(statistics.mean(), (len(requests), 1))


def _weigh(request: Request, start: int, stop: int) -> Matrix:
    return request.noise(stop - start, start)
