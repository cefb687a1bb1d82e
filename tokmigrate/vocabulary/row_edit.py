"""What a change does to the rows of every vocabulary tensor, as one value that composes.

A row edit says about each row of the new matrix whether it is an old row or a new one:

    old rows   0 1 2 3 4 5 …          CopiedRows(0, 3)  NewRow(r)  CopiedRows(4, 6)
    new rows   0 1 2 r 4 5 …
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Literal

from tokmigrate.vocabulary.ids import Run, expand, find_gaps, runs

Side = Literal["input", "output"]
"""Whether a row is one of the input or of the output embeddings."""
SIDES: tuple[Side, Side] = ("input", "output")


class Recipe(ABC):
    """What a new row is made of; a hashable value."""

    @abstractmethod
    def rebase(self, first: RowEdit) -> Recipe:
        """Return the same recipe in terms of the rows before `first`."""


@dataclass(frozen=True)
class CopiedRows:
    """The old rows from `start` up to, not including, `stop`."""

    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True)
class NewRow:
    """One row that the recipe makes."""

    recipe: Recipe

    def __len__(self) -> int:
        return 1


@dataclass(frozen=True)
class RowEdit:
    """The rows of a new matrix, from its first to its last, in terms of an old one that has `old_rows`."""

    old_rows: int
    pieces: tuple[CopiedRows | NewRow, ...]

    @staticmethod
    def identity(rows: int) -> RowEdit:
        return RowEdit(rows, (CopiedRows(0, rows),) if rows else ())

    @staticmethod
    def of(old_rows: int, rows: Iterable[int | Recipe]) -> RowEdit:
        """Return the edit that makes `rows`, each an old row's number or a recipe."""
        return RowEdit(
            old_rows, join_pieces(CopiedRows(row, row + 1) if isinstance(row, int) else NewRow(row) for row in rows)
        )

    @cached_property
    def populations(self) -> dict[tuple[Run, ...], tuple[Run, ...]]:
        """Populations of recipes in terms of the old rows, by those in terms of the new ones, as far as computed."""
        return {}

    @cached_property
    def adds_output_rows(self) -> bool:
        """Whether a row is new in some tensors only."""
        return any(isinstance(recipe, OutputRowAdded) for _, recipe in self.recipes())

    @cached_property
    def _starts(self) -> list[int]:
        return [0, *accumulate(map(len, self.pieces))]

    @property
    def new_rows(self) -> int:
        return self._starts[-1]

    @property
    def is_identity(self) -> bool:
        return self.pieces == RowEdit.identity(self.old_rows).pieces

    def row(self, number: int) -> int | Recipe:
        """Return what the new row `number` is: the number of an old row, or a recipe."""
        if not 0 <= number < self.new_rows:
            raise IndexError(number)
        index = bisect_right(self._starts, number) - 1
        piece = self.pieces[index]
        return piece.start + number - self._starts[index] if isinstance(piece, CopiedRows) else piece.recipe

    def slice(self, start: int, stop: int) -> Iterator[CopiedRows | NewRow]:
        """Yield the pieces of the new rows from `start` up to `stop`."""
        index = bisect_right(self._starts, start) - 1
        while start < stop:
            piece, first = self.pieces[index], self._starts[index]
            end = min(first + len(piece), stop)
            if isinstance(piece, CopiedRows):
                yield CopiedRows(piece.start + start - first, piece.start + end - first)
            else:
                yield piece
            start = end
            index += 1

    def rebase(self, row: int | Recipe) -> int | Recipe:
        """Return what a new row, by its number, or a recipe that reads new rows is in terms of the old ones."""
        return self.row(row) if isinstance(row, int) else row.rebase(self)

    def then(self, second: RowEdit) -> RowEdit:
        """Return the edit that does this one and then `second`."""
        if second.old_rows != self.new_rows:
            raise ValueError(f"an edit of {second.old_rows} rows cannot follow one that makes {self.new_rows}")
        if self.is_identity:
            return second
        pieces: list[CopiedRows | NewRow] = []
        for piece in second.pieces:
            if isinstance(piece, CopiedRows):
                pieces += self.slice(piece.start, piece.stop)
            else:
                pieces.append(NewRow(piece.recipe.rebase(self)))
        return RowEdit(self.old_rows, join_pieces(pieces))

    def with_recipes(self, recipes: Mapping[int, Recipe]) -> RowEdit:
        """Return the edit that makes these new rows by recipes, in place of what they are or behind the last one."""
        pieces: list[CopiedRows | NewRow] = []
        position = 0
        for row in sorted(recipes):
            pieces += [*self.slice(position, min(row, self.new_rows)), NewRow(recipes[row])]
            position = row + 1
        pieces += self.slice(position, self.new_rows)
        return RowEdit(self.old_rows, join_pieces(pieces))

    def copied_rows(self) -> Iterator[tuple[int, CopiedRows]]:
        """Yield each run of copied rows with the new row that it starts at."""
        for start, piece in zip(self._starts, self.pieces, strict=False):
            if isinstance(piece, CopiedRows):
                yield start, piece

    def recipes(self) -> Iterator[tuple[int, Recipe]]:
        """Yield each new row's number with its recipe."""
        for start, piece in zip(self._starts, self.pieces, strict=False):
            if isinstance(piece, NewRow):
                yield start, piece.recipe

    def positions(self) -> dict[int, int]:
        """Return the new row of every old row that is kept."""
        return {
            piece.start + offset: start + offset for start, piece in self.copied_rows() for offset in range(len(piece))
        }

    def find_lost_rows(self) -> tuple[Run, ...]:
        """Return the old rows that are in the new matrix no more, as runs in rising order."""
        return tuple(find_gaps(((piece.start, piece.stop) for _, piece in self.copied_rows()), self.old_rows))


def join_pieces(pieces: Iterable[CopiedRows | NewRow]) -> tuple[CopiedRows | NewRow, ...]:
    """Return `pieces` with runs that continue each other made one."""
    result: list[CopiedRows | NewRow] = []
    for piece in pieces:
        last = result[-1] if result else None
        if isinstance(piece, CopiedRows) and isinstance(last, CopiedRows) and last.stop == piece.start:
            result[-1] = CopiedRows(last.start, piece.stop)
        elif len(piece):
            result.append(piece)
    return tuple(result)


@dataclass(frozen=True)
class OutputRowAdded(Recipe):
    """A row that some tensors have already, and the shorter ones get.

    Args:
        row: What it is where it is there: an old row, or what made it.
        init: How it is initialised if it was not there.
    """

    row: int | Recipe
    init: Recipe

    def rebase(self, first: RowEdit) -> OutputRowAdded:
        return OutputRowAdded(first.rebase(self.row), self.init.rebase(first))


@dataclass(frozen=True)
class RestoredRow(Recipe):
    """A row that an undo record holds, by the record's digest and the row's place among those that it keeps."""

    record: str
    slot: int

    def rebase(self, first: RowEdit) -> RestoredRow:  # noqa: ARG002
        return self


@dataclass(frozen=True)
class Window:
    """Which ids a tensor has rows for.

    Args:
        short: How many of the last ids it has no row for.
        stop: The id that it ends at however many there are, None where it grows with them.
        tail: How many rows it has behind those of the ids; they stay the last ones.
    """

    short: int = 0
    stop: int | None = None
    tail: int = 0

    def ids(self, ids: int) -> int:
        """Return how many of the first `ids` ids it has rows for."""
        return min(ids, self.stop) if self.stop is not None else ids - self.short

    def rows(self, ids: int) -> int:
        """Return how many rows it has where there are `ids` ids."""
        return self.ids(ids) + self.tail

    def of(self, edit: RowEdit) -> RowEdit:
        """Return what an edit of all ids does to the rows of this tensor."""
        if self == WHOLE and not edit.adds_output_rows:
            return edit
        old, new = self.ids(edit.old_rows), self.ids(edit.new_rows)
        pieces = [self._piece(piece) for piece in edit.slice(0, new)]
        pieces += [CopiedRows(old, old + self.tail)] if self.tail else []
        return RowEdit(old + self.tail, join_pieces(pieces))

    def clip(self, held: Iterable[Run], ids: int) -> Iterator[Run]:
        """Yield the parts of `held` that it has rows for where there are `ids` ids."""
        end = self.ids(ids)
        for start, stop in held:
            if start < end:
                yield start, min(stop, end)

    def lost_rows(self, edit: RowEdit) -> tuple[Run, ...]:
        """Return the old rows of this tensor that `edit` loses: those of lost ids, then those of ids that are kept.

        A row of a kept id is lost where the id gets among the last ones, for which the tensor has no row.
        """
        lost = tuple(self.clip(edit.find_lost_rows(), edit.old_rows))
        return (*lost, *self.dropped_rows(edit))

    def dropped_rows(self, edit: RowEdit) -> tuple[Run, ...]:
        """Return the old rows of this tensor whose ids `edit` keeps, at places that it has no row for."""
        if not self.short:
            return ()
        lost = {*expand(edit.find_lost_rows())}
        return runs(row for row in expand(self.of(edit).find_lost_rows()) if row not in lost)

    def source(self, row: int | Recipe) -> int | Recipe:
        """Return what `row`, the number of an old row or a recipe, is in this tensor."""
        while isinstance(row, OutputRowAdded):
            row = row.init if self.short else row.row
        return row

    def _piece(self, piece: CopiedRows | NewRow) -> CopiedRows | NewRow:
        if isinstance(piece, CopiedRows):
            return piece
        held = self.source(piece.recipe)
        return CopiedRows(held, held + 1) if isinstance(held, int) else NewRow(held)


WHOLE = Window()
"""One row for each id, as nearly every vocabulary tensor has."""
