"""What every strategy is: frozen, hashable data of a migration file that makes rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tokmigrate.errors import OperationError, suggest
from tokmigrate.vocabulary.recipes import Matrix, Request, Side, Statistics, Strategy

WORD_START = ("Ġ", "▁")
"""What byte-level and SentencePiece vocabularies write for the space before a word."""


class Lookup(Protocol):
    """What a strategy may ask of the tokenizer as it was before the operation."""

    @property
    def ids(self) -> Mapping[str, int]:
        """The id of every token."""
        ...

    def pieces(self, text: str) -> tuple[int, ...]:
        """Return the ids of `text`, without special tokens around them."""
        ...


def source_of(lookup: Lookup, token: str, *, wanted_by: str) -> int:
    """Return the row of the token that a strategy reads.

    Args:
        wanted_by: The token whose row is being made; errors name it.

    Raises:
        OperationError: The tokenizer has no such token; the hint names the nearest one.
    """
    found = lookup.ids.get(token)
    if found is not None:
        return found
    variant = next((mark + token for mark in WORD_START if mark + token in lookup.ids), None)
    hint = f"did you mean '{variant}'?" if variant else suggest(token, lookup.ids)
    raise OperationError(
        f"init of '{wanted_by}': '{token}' is not a token of the tokenizer before this migration",
        where=wanted_by,
        hint=hint or "name a token as the vocabulary writes it, or use `description` for a text",
    )


def tree_sum(a: Matrix, axis: int) -> Matrix:
    """Return the sum of `a` along `axis` by pairwise halving, 0.0 where that axis is empty.

    Of n slices, slice i takes slice i + ceil(n/2) to itself until one is left. The rounding error grows with
    log2(n), as in any pairwise sum (Higham, Accuracy and Stability of Numerical Algorithms, §4.2).
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


Norm = Literal["match"]
_NORM = (
    "`match` scales the row to the median Euclidean norm of the baseline's rows; a row of zeros stays, and so"
    " do biases. The bound that `mean` has on the model's behaviour is then lost."
)


class RowStrategy(BaseModel, ABC):
    """A strategy that a migration file names.

    A subclass, also one of a plug-in, adds `strategy: Literal["its_name"]` without a default, the fields
    that it takes, all of them hashable, and `unscaled_rows`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    is_sum: ClassVar[bool] = False
    """Whether a row that it makes is a weighted sum of other rows, before `norm`."""
    needs_mean: ClassVar[bool] = False
    """Whether it asks for the mean row, which is then computed while the weights are copied."""

    norm: Norm | None = Field(default=None, description=_NORM)

    @abstractmethod
    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:
        """Return one row for each request, `(requests, hidden)`, before `norm` is applied.

        Each row must depend on its own request alone, and no value may come out of `np.sum`, `np.dot` or
        `@`, whose bits differ between machines; see `tokmigrate.init.strategies.base`.
        """

    def rows(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:
        """Return one row for each request, `(requests, hidden)`."""
        made = self.unscaled_rows(side, requests, statistics)
        return with_norm(made, self.norm, statistics)

    def additions(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:
        """Return what the low-rank factor of an adapter adds to each row, `(requests, rank)`.

        A row that is a sum of others gets the same sum of the factor's rows, so that with the adapter too it is
        that sum of theirs, before `norm`; to any other row the factor adds nothing.
        """
        if self.is_sum:
            return self.unscaled_rows(side, requests, statistics)
        return np.zeros((len(requests), statistics.width))

    def describe(self) -> dict[str, Any]:
        """Return what a migration file says about it, as JSON."""
        return self.model_dump(mode="json", exclude_defaults=True)

    def sources(self, side: Side, lookup: Lookup, token: str) -> tuple[int, ...]:  # noqa: ARG002
        """Return the rows that the strategy reads for the row of `token`.

        Args:
            side: Which embeddings the row is for.
            lookup: The tokenizer as it was before the migration; its ids are rows.
            token: The token that the new row belongs to.

        Raises:
            OperationError: The tokenizer has not what the strategy needs.
        """
        return ()

    def resolve(self, attachments: Mapping[str, bytes], token: str) -> Strategy:  # noqa: ARG002
        """Return the strategy with what it needs of the attached files taken in.

        Args:
            attachments: The files that the migration refers to, by the name used there.

        Raises:
            OperationError: A file holds no such row.
        """
        return self

    def references(self) -> tuple[str, ...]:
        """Return the files that the strategy refers to, relative to the migration file."""
        return ()


def with_norm(rows: Matrix, norm: Norm | None, statistics: Statistics) -> Matrix:
    """Return `rows`, `(rows, hidden)`, with the norm asked for.

    Args:
        rows: Each is scaled for itself; one of zeros stays.
        statistics: Of the baseline's rows. Rows of one number are biases, and are left.
    """
    if norm is None or statistics.width == 1:
        return rows
    norms = np.sqrt(tree_sum(rows * rows, 1))[:, np.newaxis]
    scaled: Matrix = np.divide(statistics.median_norm(), norms, out=np.ones_like(norms), where=norms > 0.0) * rows
    return scaled
