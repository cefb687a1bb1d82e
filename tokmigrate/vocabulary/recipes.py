"""Recipes of new rows: from other rows with a strategy, or from an undo record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from tokmigrate.vocabulary.ids import Run
from tokmigrate.vocabulary.row_edit import CopiedRows, Recipe, RowEdit

Side = Literal["input", "output"]
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Request:
    """One row that a strategy has to make for one tensor.

    Args:
        sources: The rows that the strategy asked for, `(sources, hidden)`.
        noise: Returns that many independent N(0, 1) numbers, the same on every machine; the stream
            depends on revision, token, tensor and the workspace's seed alone.
    """

    sources: Matrix
    noise: Callable[[int], Matrix]


class Statistics(Protocol):
    """What is known of the rows of the baseline vocabulary that are still there, called T."""

    @property
    def count(self) -> int:
        """|T|."""
        ...

    @property
    def width(self) -> int:
        """The numbers in a row."""
        ...

    def mean(self) -> Matrix:
        """Return the mean row, `(hidden,)`."""
        ...

    def median_norm(self) -> float:
        """Return the median Euclidean norm of T's rows."""
        ...

    def weighted_sums(self, weights: Sequence[Callable[[int, int], Matrix]]) -> Matrix:
        """Return Σ w_i (E_i - mean) for each weighting, `(len(weights), hidden)`.

        Args:
            weights: For each sum a function that gives the weights of T's rows from a start to a stop.
        """
        ...


class Strategy(Protocol):
    """Frozen data that makes rows; see `tokmigrate.init` for the ones that come with the package."""

    def rows(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:
        """Return one row for each request, `(requests, hidden)`."""
        ...

    def additions(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:
        """Return what a factor that is added to the rows adds to each, `(requests, rank)`."""
        ...

    def described(self) -> dict[str, Any]:
        """Return what a migration file says about it, as JSON, for the record."""
        ...


@dataclass(frozen=True)
class SideInit:
    """How a row is initialised on one side: a strategy and the rows that it reads."""

    strategy: Strategy
    sources: tuple[int | Recipe, ...] = ()


@dataclass(frozen=True)
class InitRecipe(Recipe):
    """A row that a strategy initialises.

    Args:
        revision: The revision that makes the row; part of the seed.
        label: The token's text, or `row N` for a row without token; part of the seed.
        input: How it starts in input embeddings, and in tied ones.
        output: How it starts in output embeddings and their biases.
        population: T as runs of rows, in the order of the baseline's ids.
        table: The row that it copies in tables of integers, None where the model has none.
    """

    revision: str
    label: str
    input: SideInit
    output: SideInit
    population: tuple[Run, ...]
    table: int | Recipe | None = None

    def start(self, side: Side) -> SideInit:
        """Return how the row is initialised on `side`."""
        return self.input if side == "input" else self.output

    def rebased(self, first: RowEdit) -> InitRecipe:
        """Return the same recipe in terms of the rows before `first`."""
        return InitRecipe(
            self.revision,
            self.label,
            _rebase_init(self.input, first),
            _rebase_init(self.output, first),
            _rebase_population(self.population, first),
            None if self.table is None else _rebase_row(self.table, first),
        )


@dataclass(frozen=True)
class RestoredRow(Recipe):
    """A row that an undo record holds.

    Args:
        record: The digest of the record.
        slot: The row's place among the rows that the record keeps.
    """

    record: str
    slot: int

    def rebased(self, first: RowEdit) -> RestoredRow:  # noqa: ARG002
        """Return itself."""
        return self


def _rebase_init(start: SideInit, first: RowEdit) -> SideInit:
    return SideInit(start.strategy, tuple(_rebase_row(source, first) for source in start.sources))


def _rebase_row(row: int | Recipe, first: RowEdit) -> int | Recipe:
    return first.row(row) if isinstance(row, int) else row.rebased(first)


def _rebase_population(population: tuple[Run, ...], first: RowEdit) -> tuple[Run, ...]:
    rebased: list[Run] = []
    for start, stop in population:
        for piece in first.slice(start, stop):
            if not isinstance(piece, CopiedRows):
                raise TypeError("a row of the baseline vocabulary cannot be a new one")
            if rebased and rebased[-1][1] == piece.start:
                rebased[-1] = (rebased[-1][0], piece.stop)
            else:
                rebased.append((piece.start, piece.stop))
    return tuple(rebased)
