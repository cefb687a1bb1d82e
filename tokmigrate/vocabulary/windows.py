"""Tensors that have not exactly one row for each id: which ids theirs are, and what an edit does to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from tokmigrate.vocabulary.ids import Run
from tokmigrate.vocabulary.row_edit import CopiedRows, NewRow, Recipe, RowEdit, join_pieces


@dataclass(frozen=True)
class OutputRowAdded(Recipe):
    """A row that some tensors have already, and the shorter ones get.

    Args:
        row: What it is where it is there: an old row, or what made it.
        init: How it is initialised if it was not there.
    """

    row: int | Recipe
    init: Recipe

    def rebased(self, first: RowEdit) -> OutputRowAdded:
        """Return the same recipe in terms of the rows before `first`."""
        row = first.row(self.row) if isinstance(self.row, int) else self.row.rebased(first)
        return OutputRowAdded(row, self.init.rebased(first))


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
        if self == WHOLE:
            return RowEdit(edit.old_rows, join_pieces(map(self._piece, edit.pieces)))
        old, new = self.ids(edit.old_rows), self.ids(edit.new_rows)
        pieces = [self._piece(piece) for piece in edit.slice(0, new)]
        pieces += [CopiedRows(old, old + self.tail)] if self.tail else []
        return RowEdit(old + self.tail, join_pieces(pieces))

    def clipped(self, runs: Iterable[Run], ids: int) -> Iterator[Run]:
        """Yield the parts of `runs` that it has rows for where there are `ids` ids."""
        end = self.ids(ids)
        for start, stop in runs:
            if start < end:
                yield start, min(stop, end)

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
