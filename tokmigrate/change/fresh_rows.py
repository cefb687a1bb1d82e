"""The bytes of every row that an upgrade makes, evaluated against the rows on disk."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from tokmigrate.initialise.begin import begin_rows
from tokmigrate.initialise.statistics import RowStatistics
from tokmigrate.model.dtype import from_float64, to_float64
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tensor_rows import Geometry, TensorRows
from tokmigrate.model.vocabulary_tensors import VocabularyTensor
from tokmigrate.plan.upgrade import Plan
from tokmigrate.vocabulary.recipes import Begun, Matrix, Statistics
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
        wanted: list[Begun] = []
        for number, _ in step.after.edit.fresh():
            recipe = edit.row(number)
            if isinstance(recipe, Begun) and recipe not in made:
                wanted.append(recipe)
        if wanted:
            values = begin_rows(wanted, tensor.side, tensor.name, seed, source, statistics)
            for recipe, value in zip(wanted, values, strict=True):
                made[recipe] = from_float64(np.ascontiguousarray(value), rows.dtype)
    return made
