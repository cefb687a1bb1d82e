"""The bytes of every row that an upgrade makes, evaluated against the rows on disk."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np

from tokmigrate.initialise.begin import begin_rows
from tokmigrate.initialise.statistics import RowStatistics
from tokmigrate.model.dtype import from_float64, to_float64
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tensor_rows import Geometry, TensorRows
from tokmigrate.model.vocabulary_tensors import VocabularyTensor
from tokmigrate.plan.upgrade import Plan
from tokmigrate.vocabulary.recipes import Begun, Matrix, Side, Statistics
from tokmigrate.vocabulary.rows import Recipe
from tokmigrate.vocabulary.tokens import Run, count

RowBytes = Mapping[str, Mapping[Recipe, bytes]]
"""For each tensor the bytes of each fresh row."""


@contextmanager
def opened(snapshot: Snapshot) -> Iterator[Mapping[str, TensorRows]]:
    """Open the rows of every vocabulary tensor of a model, by the tensor's name."""
    with ExitStack() as stack:
        found: dict[str, TensorRows] = {}
        for tensor in snapshot.tensors:
            shard, entry = snapshot.weights.tensor(tensor.name)
            rows = TensorRows(snapshot.weights.path(shard), shard.extent(entry)[0], geometry(tensor), tensor.dtype)
            found[tensor.name] = stack.enter_context(rows)
        yield found


def geometry(tensor: VocabularyTensor) -> Geometry:
    """Return how the rows of a vocabulary tensor lie."""
    return Geometry.of(tensor.shape, tensor.dtype, tensor.axis)


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

    def source(wanted: int | Recipe) -> Matrix:
        if isinstance(wanted, int):
            return rows.row(wanted)
        return to_float64(made[wanted], rows.dtype)

    def statistics(population: tuple[Run, ...]) -> Statistics:
        if population not in known:
            known[population] = RowStatistics(lambda: rows.float_rows(population), count(population), rows.width)
        return known[population]

    for step, edit in zip(plan.steps, plan.edits, strict=True):
        held = (edit.row(number) for number, _ in step.after.edit.fresh())
        wanted = [recipe for recipe in held if isinstance(recipe, Begun)]
        for ready in in_order(wanted, tensor.side, made.keys()):
            values = begin_rows(ready, tensor.side, tensor.name, seed, source, statistics)
            for recipe, value in zip(ready, values, strict=True):
                made[recipe] = from_float64(np.ascontiguousarray(value), rows.dtype)
    return made


def in_order(wanted: Sequence[Begun], side: Side, made: Collection[Recipe]) -> Iterator[list[Begun]]:
    """Yield recipes in groups such that each reads only rows of earlier groups, of `made`, and of the disk.

    Args:
        wanted: The recipes; one that they read, and that no row is left of, comes along.
        side: The side of the tensor.
        made: What is made already.
    """
    level: dict[Begun, int] = {}

    def of(recipe: Begun) -> int:
        if recipe not in level:
            sources = [source for source in recipe.start(side).sources if isinstance(source, Begun)]
            level[recipe] = max((of(source) + 1 for source in sources if source not in made), default=0)
        return level[recipe]

    for recipe in wanted:
        if recipe not in made:
            of(recipe)
    for depth in range(max(level.values(), default=-1) + 1):
        yield [recipe for recipe, found in level.items() if found == depth]
