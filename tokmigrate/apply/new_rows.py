"""New rows: their bytes, evaluated against the rows on disk, and what an undo record keeps of them.

An undo record names rows by what a lineage knows of them, so that they are found again wherever they moved: a new row
by its label, a row of the baseline by its number there.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from tokmigrate.apply.kept_objects import NewObjects, Objects, StoredBytes
from tokmigrate.init.rows import InitRecipe, initialise_rows
from tokmigrate.init.statistics import RowStatistics
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.dtype import FLOATING, Matrix, from_float64, to_float64
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.movement import RowFingerprint
from tokmigrate.model.weights.tensor_rows import TensorRows
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.plan.plan import Plan
from tokmigrate.vocabulary.ids import Run, count, pick
from tokmigrate.vocabulary.row_edit import CopiedRows, Recipe, RowEdit, Window

RowBytes = Mapping[str, Mapping[Recipe, bytes]]
"""For each tensor the bytes of each new row."""


@contextmanager
def open_tensors(snapshot: Snapshot) -> Iterator[Mapping[str, TensorRows]]:
    """Open the rows of every vocabulary tensor of a model, by the tensor's name."""
    with ExitStack() as stack:
        found: dict[str, TensorRows] = {}
        for tensor in snapshot.tensors:
            found[tensor.name] = stack.enter_context(snapshot.weights.open_rows(tensor.name, tensor.axis))
        yield found


def find_populations(plan: Plan) -> dict[str, tuple[Run, ...]]:
    """Return the rows whose mean the new rows of a plan need, by the tensor; a mean that is missing is read later."""
    found: dict[str, tuple[Run, ...]] = {}
    ids = plan.snapshot.state.rows
    for tensor in plan.snapshot.tensors if plan.writes_rows else ():
        recipes = (recipe for edit in plan.edits for _, recipe in tensor.window.of(edit).recipes())
        for recipe in recipes if not tensor.is_table else ():
            if isinstance(recipe, InitRecipe) and recipe.start(tensor.side).strategy.needs_mean:
                found[tensor.name] = tuple(tensor.window.clip(recipe.population, ids))
                break
    return found


def new_row_bytes(
    plan: Plan,
    rows: Mapping[str, TensorRows],
    seed: str,
    populations: Mapping[str, tuple[Run, ...]],
    means: Mapping[str, Matrix],
) -> RowBytes:
    """Return the bytes of every row that a step of `plan` makes.

    A row that a later step reads is read as it is stored, rounded to the tensor's dtype, so that one run
    over many migrations gives what many runs give.

    Args:
        populations: What `find_populations` returns for the plan.
        means: The means of these rows.
    """
    by_name = plan.snapshot.tensors_by_name
    made: dict[str, dict[Recipe, bytes]] = {}
    for tensor in sorted(plan.snapshot.tensors, key=lambda tensor: tensor.name != tensor.canonical):
        if tensor.canonical in made and by_name[tensor.canonical].dtype == tensor.dtype:
            made[tensor.name] = made[tensor.canonical]
            continue
        known = {populations[tensor.name]: means[tensor.name]} if tensor.name in means else {}
        made[tensor.name] = _rows_of(plan, by_name[tensor.canonical], rows[tensor.name], seed, known)
    return made


def _rows_of(
    plan: Plan, tensor: VocabularyTensor, rows: TensorRows, seed: str, means: Mapping[tuple[Run, ...], Matrix]
) -> dict[Recipe, bytes]:
    made: dict[Recipe, bytes] = {}
    known: dict[tuple[Run, ...], RowStatistics] = {}
    alike: dict[bytes, bytes] = {}
    ids = plan.snapshot.state.rows

    def source(wanted: int | Recipe) -> Matrix:
        wanted = tensor.window.source(wanted)
        if isinstance(wanted, int):
            return rows.row(wanted)
        return to_float64(made[wanted], rows.dtype)

    def statistics(population: tuple[Run, ...]) -> RowStatistics:
        there = tuple(tensor.window.clip(population, ids))
        if there not in known:
            known[there] = RowStatistics(rows.read_runs, rows.dtype, there, rows.width, means.get(there))
        return known[there]

    def read(recipe: InitRecipe) -> tuple[int | Recipe, ...]:
        return () if recipe.table is None else (recipe.table,)

    for step, edit in zip(plan.steps, plan.edits, strict=True):
        added = {number for number, _ in step.after.edit.recipes()}
        held = [recipe for number, recipe in tensor.window.of(edit).recipes() if number in added]
        wanted = [recipe for recipe in held if isinstance(recipe, InitRecipe)]
        if tensor.is_table:
            for ready in in_order(wanted, read, tensor.window, made.keys()):
                made |= {recipe: _copy(recipe, rows, made) for recipe in ready}
            continue
        for ready in in_order(wanted, lambda recipe: recipe.start(tensor.side).sources, tensor.window, made.keys()):
            name = tensor.noise or tensor.name
            batches = initialise_rows(ready, tensor.side, name, seed, source, statistics, adds=tensor.adds)
            for recipes, values in batches:
                made |= zip(recipes, _encode_rows(values, rows.dtype, alike), strict=True)
    return made


def _encode_rows(values: Matrix, dtype: str, alike: dict[bytes, bytes]) -> Iterator[bytes]:
    """Yield rows as they are stored; those with the same bytes are one value, by `alike`."""
    if len(values) and values.strides[0] == 0:
        # One row, repeated.
        row = from_float64(values[0], dtype)
        yield from itertools.repeat(alike.setdefault(row, row), len(values))
        return
    octets = from_float64(values, dtype)
    size = len(octets) // max(1, len(values))
    for start in range(0, len(octets), size):
        row = octets[start : start + size]
        yield alike.setdefault(row, row)


def _copy(recipe: InitRecipe, rows: TensorRows, made: Mapping[Recipe, bytes]) -> bytes:
    if isinstance(recipe.table, int):
        return rows.read_run(recipe.table, recipe.table + 1).tobytes()
    if recipe.table is None:
        raise ValueError(f"the row of '{recipe.label}' copies none in a table of integers")
    return made[recipe.table]


def read_edited(rows: TensorRows, made: Mapping[Recipe, bytes], edit: RowEdit) -> Callable[[int, int], bytes]:
    """Return what reads the rows after an edit, from one up to another; `made` are the new ones."""

    def read(start: int, stop: int) -> bytes:
        return b"".join(
            rows.read_run(piece.start, piece.stop).tobytes() if isinstance(piece, CopiedRows) else made[piece.recipe]
            for piece in edit.slice(start, stop)
        )

    return read


def in_order(
    wanted: Sequence[InitRecipe],
    sources: Callable[[InitRecipe], tuple[int | Recipe, ...]],
    window: Window,
    made: Collection[Recipe],
) -> Iterator[list[InitRecipe]]:
    """Yield recipes in groups such that each reads only rows of earlier groups, of `made`, and of the disk.

    Args:
        wanted: The recipes; one that they read, and that no row is left of, comes along.
    """
    level: dict[InitRecipe, int] = {}

    def of(recipe: InitRecipe) -> int:
        if recipe not in level:
            read = [source for source in map(window.source, sources(recipe)) if isinstance(source, InitRecipe)]
            level[recipe] = max((of(source) + 1 for source in read if source not in made), default=0)
        return level[recipe]

    for recipe in wanted:
        if recipe not in made:
            of(recipe)
    for depth in range(max(level.values(), default=-1) + 1):
        yield [recipe for recipe, found in level.items() if found == depth]


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
    """Rows of one matrix after a migration, as its undo record holds them.

    Args:
        dtype: The dtype that they were stored in.
        new: The place of each new row among the rows, by its label.
        spare: The places of rows of the baseline without a token, by their numbers there.
        sample: Those of a sample of rows with a token.
        row_bytes: The bytes of a row.
        data: The rows, each once.
    """

    dtype: str
    new: Mapping[str, int]
    spare: Mapping[int, int]
    sample: Mapping[int, int]
    row_bytes: int
    data: StoredBytes = field(repr=False)

    @staticmethod
    def open(held: StoredInitRows, objects: Objects) -> InitRows:
        """Return what an undo record holds; raises UndoError where the rows are missing or damaged."""
        data = objects.open(held.rows)
        size = data.size // held.count if held.count else 0
        return InitRows(held.dtype, held.new, dict(held.spare), dict(held.sample), size, data)

    def row(self, place: int) -> bytes:
        """Return the bytes of a row."""
        return self.data.read(place * self.row_bytes, self.row_bytes)

    def mark(self, label: str) -> RowFingerprint:
        """Return the mark of a new row."""
        return RowFingerprint.of(self.row(self.new[label]), self.dtype)


@dataclass(frozen=True)
class References:
    """Rows of a state to compare new ones with: some of the baseline's without a token, and some with one."""

    spare: Sequence[int]
    sample: Sequence[int]


def find_references(after: ModelState) -> References:
    """Return the rows that are kept for comparison with those that a step makes."""
    free = [row for row in after.tokenizer.list_free(after.rows) if isinstance(after.lineage.row(row), int)]
    sample = pick(after.population, _spread_places(count(after.population)))
    texts = after.tokenizer.texts
    return References(spread(free), [row for row in sample if row in texts])


def keep_init_rows(
    after: ModelState,
    reached: RowEdit,
    dtype: str,
    made: Mapping[Any, bytes],
    references: References,
    kept: Callable[[int], bytes | None],
    objects: NewObjects,
) -> StoredInitRows | None:
    """Keep the rows of a matrix that a step makes, with rows to compare them with; None where it makes none.

    Args:
        reached: The rows after it in terms of the rows on disk.
        made: The bytes of each row that the upgrade makes, by its recipe.
        references: What `find_references` returns.
        kept: Gives the bytes of a row that the step keeps, by its number after it; None where the matrix has none.
    """
    if dtype not in FLOATING:
        return None
    places: dict[bytes, int] = {}
    new: dict[str, int] = {}
    for row, _ in after.edit.recipes():
        recipe = reached.row(row)
        if isinstance(recipe, InitRecipe) and recipe in made:
            new[recipe.label] = places.setdefault(made[recipe], len(places))
    if not new:
        return None

    def collect_origins(numbers: Iterable[int]) -> dict[int, int]:
        found: dict[int, int] = {}
        for row in numbers:
            origin, data = after.lineage.row(row), kept(row)
            if isinstance(origin, int) and data is not None:
                found[origin] = places.setdefault(data, len(places))
        return found

    sample = collect_origins(references.sample)
    spare = collect_origins(references.spare)
    return StoredInitRows(
        dtype=dtype,
        new=new,
        spare=list(spare.items()),
        sample=list(sample.items()),
        count=len(places),
        rows=objects.put_parts(places),
    )


def spread(rows: Sequence[int]) -> Sequence[int]:
    """Return at most `REFERENCES` of the rows, spread over all of them."""
    return [rows[place] for place in _spread_places(len(rows))]


def _spread_places(count: int) -> Sequence[int]:
    return range(count) if count <= REFERENCES else [place * count // REFERENCES for place in range(REFERENCES)]
