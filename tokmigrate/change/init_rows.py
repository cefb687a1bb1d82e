"""New rows as a migration left them, and rows to compare their later movement with, as an undo record keeps them.

Rows are named by what a lineage knows of them, so that they are found again wherever they moved: a new row by its
label, a row of the baseline by its number there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.dtype import FLOATING
from tokmigrate.model.weights.birth_marks import BirthMark
from tokmigrate.vocabulary.recipes import Begun
from tokmigrate.vocabulary.rows import RowEdit
from tokmigrate.vocabulary.tokens import expand

REFERENCES = 64
"""So many rows of each kind are kept for comparison: of the vocabulary, and without a token."""


class StoredInitRows(BaseModel):
    """Rows of one matrix as an undo record holds them; `rows` is the digest of them all, joined."""

    dtype: str
    new: dict[str, int]
    spare: list[tuple[int, int]]
    sample: list[tuple[int, int]]
    count: int
    rows: str


@dataclass(frozen=True)
class InitRows:
    """Rows of one matrix after a migration.

    Args:
        dtype: The dtype that they were stored in.
        new: The place of each new row among `rows`, by its label.
        spare: The places of rows of the baseline without a token, by their numbers there.
        sample: Those of a sample of rows with a token.
        rows: The rows, each once.
    """

    dtype: str
    new: Mapping[str, int]
    spare: Mapping[int, int]
    sample: Mapping[int, int]
    rows: tuple[bytes, ...] = field(repr=False)

    def mark(self, label: str) -> BirthMark:
        """Return the mark of a new row."""
        return BirthMark.of(self.rows[self.new[label]], self.dtype)

    def stored(self, put: Callable[[bytes], str]) -> StoredInitRows:
        """Return it as an undo record holds it, with its rows kept by `put`, which returns their digest."""
        return StoredInitRows(
            dtype=self.dtype,
            new=dict(self.new),
            spare=list(self.spare.items()),
            sample=list(self.sample.items()),
            count=len(self.rows),
            rows=put(b"".join(self.rows)),
        )

    @staticmethod
    def of(held: StoredInitRows, data: bytes) -> InitRows:
        """Return what an undo record holds.

        Args:
            held: What it says.
            data: The rows, joined.
        """
        size = len(data) // held.count if held.count else 0
        rows = tuple(data[place * size : (place + 1) * size] for place in range(held.count))
        return InitRows(held.dtype, held.new, dict(held.spare), dict(held.sample), rows)


def init_rows(
    after: ModelState, reached: RowEdit, dtype: str, made: Mapping[Any, bytes], kept: Callable[[int], bytes | None]
) -> InitRows | None:
    """Return the rows of a matrix that a step makes, with rows to compare them with; None where it makes none.

    Args:
        after: The state after the step.
        reached: The rows after it in terms of the rows on disk.
        dtype: The dtype of the matrix.
        made: The bytes of each row that the upgrade makes, by its recipe.
        kept: Gives the bytes of a row that the step keeps, by its number after it; None where the matrix has none.
    """
    if dtype not in FLOATING:
        return None
    places: dict[bytes, int] = {}
    new: dict[str, int] = {}
    for row, _ in after.edit.fresh():
        recipe = reached.row(row)
        if isinstance(recipe, Begun) and recipe in made:
            new[recipe.label] = places.setdefault(made[recipe], len(places))
    if not new:
        return None

    def held(numbers: Iterable[int]) -> dict[int, int]:
        found: dict[int, int] = {}
        for row in numbers:
            origin, data = after.lineage.row(row), kept(row)
            if isinstance(origin, int) and data is not None:
                found[origin] = places.setdefault(data, len(places))
        return found

    texts = after.tokenizer.texts
    free = [row for row in range(after.rows) if row not in texts and isinstance(after.lineage.row(row), int)]
    sample = held(row for row in spread(list(expand(after.population))) if row in texts)
    return InitRows(dtype, new, held(spread(free)), sample, tuple(places))


def spread(rows: Sequence[int]) -> Sequence[int]:
    """Return at most `REFERENCES` of the rows, spread over all of them."""
    if len(rows) <= REFERENCES:
        return rows
    return [rows[place * len(rows) // REFERENCES] for place in range(REFERENCES)]
