"""The rows that strategies make, for one tensor, each by its own seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from blake3 import blake3

from tokmigrate.errors import ModelError
from tokmigrate.init.noise import gaussian
from tokmigrate.vocabulary.ids import Run
from tokmigrate.vocabulary.recipes import InitRecipe, Matrix, Noise, Request, Side, SideInit, Statistics, Strategy
from tokmigrate.vocabulary.row_edit import Recipe

_DOMAIN = b"tokmigrate row noise 1"

# The most bytes of rows, those that are made and those that they are made from, in memory at the same time. `mean_cov`
# reads the baseline once for each batch; no row depends on it.
_BATCH_BYTES = 32 << 20


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


RowMaker = Callable[[Strategy, Side, Sequence[Request], Statistics], Matrix]
"""What a strategy makes for requests: its rows, or what an adapter's factor adds to them."""


def rows(strategy: Strategy, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:
    """Return the rows that a strategy makes, `(requests, hidden)`."""
    return strategy.rows(side, requests, statistics)


def additions(strategy: Strategy, side: Side, requests: Sequence[Request], statistics: Statistics) -> Matrix:
    """Return what the low-rank factor of an adapter adds to the rows that a strategy makes, `(requests, rank)`."""
    return strategy.additions(side, requests, statistics)


def initialise_rows(
    recipes: Sequence[InitRecipe],
    side: Side,
    tensor: str,
    workspace_seed: str,
    source_rows: Callable[[int | Recipe], Matrix],
    statistics: Callable[[tuple[Run, ...]], Statistics],
    make: RowMaker = rows,
) -> Matrix:
    """Return the row that each recipe makes, in the order of `recipes`: `(len(recipes), hidden)` float64.

    A row depends on its recipe, the tensor and the seed alone, not on the rows that are made with it. Of no
    recipes it is `(0, 0)`.

    Args:
        side: What the tensor is; output for the biases of output embeddings too.
        tensor: The tensor's name, for the seeds; of tied tensors the same one for all.
        source_rows: Returns the row, `(hidden,)`, that a number or a recipe means in this tensor.

    Raises:
        OperationError: A strategy cannot make its row.
        ModelError: A row came out as NaN, because one that it was made from holds one.
    """
    groups: dict[tuple[Strategy, tuple[Run, ...]], list[int]] = {}
    for place, recipe in enumerate(recipes):
        groups.setdefault((recipe.start(side).strategy, recipe.population), []).append(place)
    made: list[Matrix] = [np.empty(0)] * len(recipes)
    for (strategy, population), places in groups.items():
        known = statistics(population)
        for batch in _batches(places, [len(recipes[place].start(side).sources) for place in places], known.width):
            requests = [
                Request(
                    _sources(recipes[place].start(side), known.width, source_rows),
                    _noise(workspace_seed, recipes[place], tensor),
                )
                for place in batch
            ]
            values = make(strategy, side, requests, known)
            if values.shape != (len(batch), known.width):
                raise ValueError(f"{strategy!r} made {values.shape}, not {(len(batch), known.width)}")
            for place, row in zip(batch, values, strict=True):
                made[place] = row
    for recipe, row in zip(recipes, made, strict=True):
        if np.isnan(row).any():
            raise ModelError(
                f"the row of '{recipe.label}' would hold a NaN, because a row that it is made from does",
                where=tensor,
                hint="start it from other tokens",
            )
    return np.stack(made) if made else np.empty((0, 0))


def _batches(places: Sequence[int], sources: Sequence[int], width: int) -> Iterator[list[int]]:
    """Yield `places` in batches of a bounded size; each makes one row from so many `sources`."""
    batch: list[int] = []
    held = 0
    for place, read in zip(places, sources, strict=True):
        batch.append(place)
        held += (1 + read) * width * 8
        if held > _BATCH_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _sources(start: SideInit, width: int, source_rows: Callable[[int | Recipe], Matrix]) -> Matrix:
    rows = [source_rows(source) for source in start.sources]
    return np.stack(rows) if rows else np.empty((0, width))


def _noise(workspace_seed: str, recipe: InitRecipe, tensor: str) -> Noise:
    seed = seed_for(workspace_seed, recipe.revision, recipe.label, tensor)
    return lambda count, start=0: gaussian(seed, start, count)
