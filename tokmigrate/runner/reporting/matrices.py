"""The embedding matrices of a model on disk: which they are, and what one pass over each tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.row_survey import Neighbour, survey_rows
from tokmigrate.model.weights.tensor_rows import TensorRows
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.runner.reporting.data import MatrixNorms
from tokmigrate.vocabulary.tokens import expand


def matrices(snapshot: Snapshot) -> tuple[VocabularyTensor, ...]:
    """Return the tensors that are embeddings of every id, each once, input before output; no biases, no tables."""
    return tuple(
        tensor
        for tensor in sorted(snapshot.tensors, key=lambda tensor: tensor.side)
        if tensor.name == tensor.canonical
        and tensor.width > 1
        and tensor.window.stop is None
        and not (tensor.is_table or tensor.adds)
    )


def embeddings(snapshot: Snapshot) -> VocabularyTensor | None:
    """Return the input embeddings whose rows the ledger has digests of, None where there are none."""
    name = next((tensor.canonical for tensor in snapshot.tensors if tensor.embeds), None)
    return next((tensor for tensor in snapshot.tensors if tensor.name == name), None)


def opened(snapshot: Snapshot, tensor: VocabularyTensor) -> TensorRows:
    """Return the rows of a tensor, to be entered."""
    shard, entry = snapshot.weights.tensor(tensor.name)
    return TensorRows(snapshot.weights.path(shard), shard.extent(entry)[0], tensor.geometry, tensor.dtype)


@dataclass(frozen=True, eq=False)
class Surveyed:
    """What one pass over each matrix of a model tells.

    Args:
        norms: The norms of each matrix.
        nearest: For each row that was compared its nearest by the input embeddings.
        twins: For each row that migrations began how many others of these have the same input row.
    """

    norms: tuple[MatrixNorms, ...]
    nearest: dict[int, tuple[Neighbour, ...]]
    twins: dict[int, int]


def surveyed(
    snapshot: Snapshot, begun: Iterable[int], compared: Iterable[int], live: Iterable[int], told: Callable[[int], None]
) -> Surveyed:
    """Read each matrix once; return the norms of all, and what the input embeddings say of new rows.

    Args:
        snapshot: The model.
        begun: The ids of the tokens whose rows migrations began.
        compared: The ids whose nearest rows are wanted.
        live: The ids that may be named as nearest.
        told: Called with the bytes of each block that was read.
    """
    begun, compared, live = tuple(begun), tuple(compared), tuple(live)
    population = np.fromiter(expand(snapshot.state.population), np.int64)
    first = embeddings(snapshot)
    norms: list[MatrixNorms] = []
    nearest: dict[int, tuple[Neighbour, ...]] = {}
    twins: dict[int, int] = {}
    for tensor in matrices(snapshot):
        ids = tensor.window.ids(snapshot.state.rows)
        asked = [number for number in compared if number < ids] if tensor == first else []
        among = np.zeros(ids, np.bool_)
        among[[number for number in live if number < ids]] = True
        with opened(snapshot, tensor) as rows:
            found = survey_rows(rows, ids, asked, among, begun if tensor == first else (), told=told)
        nearest |= found.nearest
        twins |= found.twins
        old = found.norms[population[population < ids]]
        norms.append(
            MatrixNorms(
                tensor.name,
                tensor.side,
                snapshot.state.traits.tied and tensor == first,
                old[np.isfinite(old)],
                {number: float(found.norms[number]) for number in begun if number < ids},
                tuple(np.flatnonzero(~np.isfinite(found.norms)).tolist()),
            )
        )
    return Surveyed(tuple(norms), nearest, twins)
