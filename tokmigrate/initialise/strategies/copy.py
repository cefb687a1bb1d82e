"""The strategy `copy`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from tokmigrate.initialise.lookup import Lookup, source_of
from tokmigrate.initialise.strategies.base import RowStrategy
from tokmigrate.vocabulary.recipes import Matrix, Request, Side, Statistics


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
