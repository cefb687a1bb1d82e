"""What every strategy is: frozen, hashable data of a migration file that makes rows."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from tokmigrate.errors import OperationError, suggest
from tokmigrate.init.noise import gaussian
from tokmigrate.init.statistics import RowStatistics, tree_sum
from tokmigrate.model.formats.dtype import Matrix
from tokmigrate.vocabulary.row_edit import Side

WORD_START = ("Ġ", "▁")
"""What byte-level and SentencePiece vocabularies write for the space before a word."""


class Lookup(Protocol):
    """What a strategy may ask of the tokenizer as it was before the operation."""

    @property
    def ids(self) -> Mapping[str, int]: ...

    def pieces(self, text: str) -> tuple[int, ...]:
        """Return the ids of `text`, without special tokens around them."""
        ...


def source_of(lookup: Lookup, token: str, *, wanted_by: str) -> int:
    """Return the row of a token that the row of `wanted_by` is made from; raises OperationError where there is none."""
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


@dataclass(frozen=True)
class Request:
    """One row that a strategy has to make for one tensor.

    Args:
        sources: The rows that the strategy asked for, `(sources, hidden)`.
        seed: What its noise depends on: workspace, revision, token and tensor.
    """

    sources: Matrix
    seed: bytes

    def noise(self, count: int, start: int = 0) -> Matrix:
        """Return independent N(0, 1) numbers from the number `start` on, `(count,)`: the same on every machine."""
        return gaussian(self.seed, start, count)

    def sum_sources(self, weights: Matrix) -> Matrix:
        """Return the sum of the sources, each multiplied by its weight, `(hidden,)`."""
        return tree_sum(self.sources * weights[:, np.newaxis], 0)


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
    def unscaled_rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:
        """Return one row for each request, `(requests, hidden)`, before `norm` is applied.

        Each row must depend on its own request alone, and no value may come out of `np.sum`, `np.dot` or
        `@`, whose bits differ between machines; see `tokmigrate.init.statistics`.
        """

    def rows(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:
        """Return one row for each request, `(requests, hidden)`, each scaled for itself where `norm` says so."""
        made = self.unscaled_rows(side, requests, statistics)
        # Rows of one number are biases.
        if self.norm is None or statistics.width == 1:
            return made
        norms = np.sqrt(tree_sum(made * made, 1))[:, np.newaxis]
        scaled: Matrix = np.divide(statistics.median_norm, norms, out=np.ones_like(norms), where=norms > 0.0) * made
        return scaled

    def additions(self, side: Side, requests: Sequence[Request], statistics: RowStatistics) -> Matrix:
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
        """Return the rows that the strategy reads for the row of `token`; raises OperationError where one is missing.

        Args:
            lookup: The tokenizer as it was before the migration; its ids are rows.
        """
        return ()

    def resolve(self, attachments: Mapping[str, bytes], token: str) -> RowStrategy:  # noqa: ARG002
        """Return the strategy with what it needs of attached files taken in; raises OperationError where it is missing.

        Args:
            attachments: The files that the migration refers to, by the name used there.
        """
        return self

    def references(self) -> tuple[str, ...]:
        """Return the files that the strategy refers to, relative to the migration file."""
        return ()
