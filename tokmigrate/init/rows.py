"""How a row is initialised, and the rows that strategies make for one tensor, each by its own seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from blake3 import blake3

from tokmigrate.errors import ModelError
from tokmigrate.init.row_strategy import Request, RowStrategy
from tokmigrate.init.statistics import RowStatistics
from tokmigrate.model.formats.dtype import Matrix
from tokmigrate.vocabulary.ids import Run
from tokmigrate.vocabulary.row_edit import CopiedRows, Recipe, RowEdit, Side, join_pieces

_DOMAIN = b"tokmigrate row noise 1"

# The most bytes of rows, those that are made and those that they are made from, in memory at the same time. `mean_cov`
# reads the baseline once for each batch; no row depends on it.
_BATCH_BYTES = 32 << 20


@dataclass(frozen=True)
class SideInit:
    """How a row is initialised on one side: a strategy and the rows that it reads."""

    strategy: RowStrategy
    sources: tuple[int | Recipe, ...] = ()

    def rebase(self, first: RowEdit) -> SideInit:
        """Return the same in terms of the rows before `first`."""
        return SideInit(self.strategy, tuple(map(first.rebase, self.sources))) if self.sources else self


@dataclass(frozen=True)
class InitRecipe(Recipe):
    """A row that a strategy initialises.

    Args:
        revision: The revision that makes the row; part of the seed.
        label: The token's text, or `row N` for a row without token; part of the seed.
        population: The rows of the baseline vocabulary that are still there, in the order of the baseline's ids.
        table: The row that it copies in tables of integers, None where the model has none.
    """

    revision: str
    label: str
    input: SideInit
    output: SideInit
    population: tuple[Run, ...]
    table: int | Recipe | None = None

    # Computed once: rows are looked up by their recipes many times.
    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash((self.revision, self.label, self.input.sources, self.output.sources, self.table))

    def start(self, side: Side) -> SideInit:
        return self.input if side == "input" else self.output

    def rebase(self, first: RowEdit) -> InitRecipe:
        return replace(
            self,
            input=self.input.rebase(first),
            output=self.output.rebase(first),
            population=_rebase_population(self.population, first),
            table=None if self.table is None else first.rebase(self.table),
        )


def _rebase_population(population: tuple[Run, ...], first: RowEdit) -> tuple[Run, ...]:
    # The new rows of a step have the same population.
    if population not in first.populations:
        first.populations[population] = _compute_rebased(population, first)
    return first.populations[population]


def _compute_rebased(population: tuple[Run, ...], first: RowEdit) -> tuple[Run, ...]:
    pieces = join_pieces(piece for start, stop in population for piece in first.slice(start, stop))
    rebased = tuple((piece.start, piece.stop) for piece in pieces if isinstance(piece, CopiedRows))
    if len(rebased) < len(pieces):
        raise TypeError("a row of the baseline vocabulary cannot be a new one")
    return rebased


def seed_for(workspace_seed: str, revision: str, label: str, tensor: str) -> bytes:
    """Return the 32 bytes that name the noise of one row in one tensor.

    It is BLAKE3 over a fixed word and the four texts in UTF-8, each after its length as eight little-endian
    bytes, so that no two different quadruples feed it the same bytes.

    Args:
        label: The token's text, or `row N`.
        tensor: The tensor's name; of tied tensors the same one for all.
    """
    hasher = blake3(_DOMAIN)
    for text in (workspace_seed, revision, label, tensor):
        # A token's text may hold half a surrogate pair, which strict UTF-8 refuses.
        octets = text.encode("utf-8", "surrogatepass")
        hasher.update(len(octets).to_bytes(8, "little"))
        hasher.update(octets)
    return hasher.digest()


def initialise_rows(
    recipes: Sequence[InitRecipe],
    side: Side,
    tensor: str,
    workspace_seed: str,
    source_rows: Callable[[int | Recipe], Matrix],
    statistics: Callable[[tuple[Run, ...]], RowStatistics],
    *,
    adds: bool = False,
) -> Iterator[tuple[list[InitRecipe], Matrix]]:
    """Yield the recipes in batches of a bounded size with the rows that they make, `(recipes, hidden)` float64.

    A row depends on its recipe, the tensor and the seed alone, not on the rows that are made with it.

    Args:
        tensor: The tensor's name, for the seeds; of tied tensors the same one for all.
        source_rows: Returns the row, `(hidden,)`, that a number or a recipe means in this tensor.
        adds: Whether the tensor is the low-rank factor of an adapter, whose rows are added to those of a matrix.

    Raises:
        OperationError: A strategy cannot make its row.
        ModelError: A row came out as NaN, because one that it was made from holds one.
    """
    groups: dict[tuple[RowStrategy, tuple[Run, ...]], list[InitRecipe]] = {}
    for recipe in recipes:
        groups.setdefault((recipe.start(side).strategy, recipe.population), []).append(recipe)
    for (strategy, population), alike in groups.items():
        known = statistics(population)
        make = strategy.additions if adds else strategy.rows
        for batch in _batches(alike, side, known.width):
            requests = [
                Request(
                    np.array([source_rows(row) for row in recipe.start(side).sources]).reshape(-1, known.width),
                    seed_for(workspace_seed, recipe.revision, recipe.label, tensor),
                )
                for recipe in batch
            ]
            values = make(side, requests, known)
            if values.shape != (len(batch), known.width):
                raise ValueError(f"{strategy!r} made {values.shape}, not {(len(batch), known.width)}")
            wrong = np.isnan(values).any(axis=1)
            if wrong.any():
                label = batch[int(wrong.argmax())].label
                raise ModelError(
                    f"the row of '{label}' would hold a NaN, because a row that it is made from does",
                    where=tensor,
                    hint="start it from other tokens",
                )
            yield batch, values


def _batches(recipes: Sequence[InitRecipe], side: Side, width: int) -> Iterator[list[InitRecipe]]:
    """Yield `recipes` in batches of a bounded size."""
    batch: list[InitRecipe] = []
    held = 0
    for recipe in recipes:
        batch.append(recipe)
        held += (1 + len(recipe.start(side).sources)) * width * 8
        if held > _BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch
