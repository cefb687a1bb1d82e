"""Recipes of new rows: from other rows with a strategy, or from an undo record."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

from tokmigrate.vocabulary.ids import Run
from tokmigrate.vocabulary.row_edit import CopiedRows, Recipe, RowEdit, join_pieces

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Side = Literal["input", "output"]
Matrix: TypeAlias = "npt.NDArray[np.float64]"


class Noise(Protocol):
    """A stream of independent N(0, 1) numbers, set by revision, token, tensor and seed: the same on every machine."""

    def __call__(self, count: int, start: int = 0) -> Matrix:
        """Return `count` numbers of the stream, `(count,)`, from the number `start` on."""
        ...


@dataclass(frozen=True)
class Request:
    """One row that a strategy has to make for one tensor.

    Args:
        sources: The rows that the strategy asked for, `(sources, hidden)`.
        noise: The random numbers of the row.
    """

    sources: Matrix
    noise: Noise


class Statistics(Protocol):
    """What is known of the rows of the baseline vocabulary that are still there, called T."""

    @property
    def count(self) -> int:
        """|T|."""

    @property
    def width(self) -> int:
        """The numbers in a row."""

    def mean(self) -> Matrix:
        """Return the mean row, `(hidden,)`."""

    def median_norm(self) -> float:
        """Return the median Euclidean norm of T's rows."""

    def weighted_sums(self, weights: Sequence[Callable[[int, int], Matrix]]) -> Matrix:
        """Return Σ w_i (E_i - mean) for each weighting, `(len(weights), hidden)`.

        Args:
            weights: For each sum a function that gives the weights of T's rows from a start to a stop.
        """


class Strategy(Protocol):
    """Frozen data that makes rows; see `tokmigrate.init` for the ones that come with the package."""

    @property
    def needs_mean(self) -> bool:
        """Whether it asks for the mean row."""
        ...

    def rows(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:
        """Return one row for each request, `(requests, hidden)`."""

    def additions(self, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:
        """Return what a factor that is added to the rows adds to each, `(requests, rank)`."""

    def describe(self) -> dict[str, Any]:
        """Return what a migration file says about it, as JSON, for the record."""


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

    def rebase(self, first: RowEdit) -> InitRecipe:
        return replace(
            self,
            input=_rebase_init(self.input, first),
            output=_rebase_init(self.output, first),
            population=_rebase_population(self.population, first),
            table=None if self.table is None else first.rebase(self.table),
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

    def rebase(self, first: RowEdit) -> RestoredRow:  # noqa: ARG002
        return self


def _rebase_init(init: SideInit, first: RowEdit) -> SideInit:
    return SideInit(init.strategy, tuple(map(first.rebase, init.sources)))


def _rebase_population(population: tuple[Run, ...], first: RowEdit) -> tuple[Run, ...]:
    pieces = join_pieces(piece for start, stop in population for piece in first.slice(start, stop))
    rebased = tuple((piece.start, piece.stop) for piece in pieces if isinstance(piece, CopiedRows))
    if len(rebased) < len(pieces):
        raise TypeError("a row of the baseline vocabulary cannot be a new one")
    return rebased
