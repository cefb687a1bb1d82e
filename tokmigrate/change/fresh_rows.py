"""The bytes of every row that an upgrade makes, evaluated against the rows on disk."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np

from tokmigrate.initialise.begin import additions, begin_rows
from tokmigrate.initialise.begin import rows as made_rows
from tokmigrate.initialise.statistics import RowStatistics
from tokmigrate.model.formats.dtype import from_float64, to_float64
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.tensor_rows import TensorRows
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.plan.upgrade import Plan
from tokmigrate.vocabulary.recipes import Begun, Matrix, Statistics
from tokmigrate.vocabulary.rows import Recipe
from tokmigrate.vocabulary.tokens import Run, count
from tokmigrate.vocabulary.windows import Window

RowBytes = Mapping[str, Mapping[Recipe, bytes]]
"""For each tensor the bytes of each fresh row."""


@contextmanager
def opened(snapshot: Snapshot) -> Iterator[Mapping[str, TensorRows]]:
    """Open the rows of every vocabulary tensor of a model, by the tensor's name."""
    with ExitStack() as stack:
        found: dict[str, TensorRows] = {}
        for tensor in snapshot.tensors:
            shard, entry = snapshot.weights.tensor(tensor.name)
            rows = TensorRows(snapshot.weights.path(shard), shard.extent(entry)[0], tensor.geometry, tensor.dtype)
            found[tensor.name] = stack.enter_context(rows)
        yield found


def fresh_rows(plan: Plan, rows: Mapping[str, TensorRows], seed: str) -> RowBytes:
    """Return the bytes of every row that a step of `plan` makes.

    A row that a later step reads is read as it is stored, rounded to the tensor's dtype, so that one run
    over many migrations gives what many runs give.

    Args:
        plan: The upgrade.
        rows: The open tensors.
        seed: The workspace's seed for random strategies.
    """
    by_name = {tensor.name: tensor for tensor in plan.snapshot.tensors}
    made: dict[str, dict[Recipe, bytes]] = {}
    for tensor in sorted(plan.snapshot.tensors, key=lambda tensor: tensor.name != tensor.canonical):
        if tensor.canonical in made and by_name[tensor.canonical].dtype == tensor.dtype:
            made[tensor.name] = made[tensor.canonical]
            continue
        made[tensor.name] = _rows_of(plan, by_name[tensor.canonical], rows[tensor.name], seed)
    return made


def _rows_of(plan: Plan, tensor: VocabularyTensor, rows: TensorRows, seed: str) -> dict[Recipe, bytes]:
    made: dict[Recipe, bytes] = {}
    known: dict[tuple[Run, ...], RowStatistics] = {}
    ids, make = plan.snapshot.state.rows, additions if tensor.adds else made_rows

    def source(wanted: int | Recipe) -> Matrix:
        wanted = tensor.window.source(wanted)
        if isinstance(wanted, int):
            return rows.row(wanted)
        return to_float64(made[wanted], rows.dtype)

    def statistics(population: tuple[Run, ...]) -> Statistics:
        there = tuple(tensor.window.clipped(population, ids))
        if there not in known:
            known[there] = RowStatistics(lambda: rows.float_rows(there), count(there), rows.width)
        return known[there]

    def read(recipe: Begun) -> tuple[int | Recipe, ...]:
        return () if recipe.table is None else (recipe.table,)

    for step, edit in zip(plan.steps, plan.edits, strict=True):
        fresh = {number for number, _ in step.after.edit.fresh()}
        held = [recipe for number, recipe in tensor.window.of(edit).fresh() if number in fresh]
        wanted = [recipe for recipe in held if isinstance(recipe, Begun)]
        if tensor.is_table:
            for ready in in_order(wanted, read, tensor.window, made.keys()):
                made |= {recipe: _copied(recipe, rows, made) for recipe in ready}
            continue
        for ready in in_order(wanted, lambda recipe: recipe.start(tensor.side).sources, tensor.window, made.keys()):
            values = begin_rows(ready, tensor.side, tensor.noise or tensor.name, seed, source, statistics, make)
            for recipe, value in zip(ready, values, strict=True):
                made[recipe] = from_float64(np.ascontiguousarray(value), rows.dtype)
    return made


def _copied(recipe: Begun, rows: TensorRows, made: Mapping[Recipe, bytes]) -> bytes:
    if isinstance(recipe.table, int):
        return rows.read_run(recipe.table, recipe.table + 1).tobytes()
    if recipe.table is None:
        raise ValueError(f"the row of '{recipe.label}' copies none in a table of integers")
    return made[recipe.table]


def in_order(
    wanted: Sequence[Begun],
    sources: Callable[[Begun], tuple[int | Recipe, ...]],
    window: Window,
    made: Collection[Recipe],
) -> Iterator[list[Begun]]:
    """Yield recipes in groups such that each reads only rows of earlier groups, of `made`, and of the disk.

    Args:
        wanted: The recipes; one that they read, and that no row is left of, comes along.
        sources: What a recipe reads.
        window: Which ids the tensor has rows for.
        made: What is made already.
    """
    level: dict[Begun, int] = {}

    def of(recipe: Begun) -> int:
        if recipe not in level:
            read = [source for source in map(window.source, sources(recipe)) if isinstance(source, Begun)]
            level[recipe] = max((of(source) + 1 for source in read if source not in made), default=0)
        return level[recipe]

    for recipe in wanted:
        if recipe not in made:
            of(recipe)
    for depth in range(max(level.values(), default=-1) + 1):
        yield [recipe for recipe, found in level.items() if found == depth]
