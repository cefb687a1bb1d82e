"""The rows of a model's embedding matrices: their norms, and which rows are near the new ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.tensor_rows import BLOCK_BYTES, TensorRows
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.vocabulary.ids import expand

COMPARED_AT_MOST = 256
"""How many new tokens are compared with all others: each costs a product with the whole matrix."""

_BINS = 48
_NEAREST = 5
_QUANTILES = {"min": 0.0, "p1": 0.01, "median": 0.5, "p99": 0.99, "max": 1.0}
# Cosines that agree so far are ordered by the id, so that no order depends on rounding.
_DIGITS = 9

Numbers = npt.NDArray[np.float64]
Nearest = dict[int, list[tuple[int, float]]]
"""By a row its nearest rows with the cosines, the nearest first; none where it has no direction."""


def embedding_matrices(snapshot: Snapshot) -> list[VocabularyTensor]:
    """Return the tensors that are embeddings of every id, each once, input before output; no biases, no tables."""
    own = [tensor for tensor in snapshot.tensors if tensor.name == tensor.canonical and tensor.window.stop is None]
    matrices = [tensor for tensor in own if tensor.width > 1 and not (tensor.is_table or tensor.adds)]
    return sorted(matrices, key=lambda tensor: tensor.side)


def survey_matrices(
    snapshot: Snapshot, new: Sequence[int], among: Sequence[int], on_bytes: Callable[[int], None]
) -> tuple[list[dict[str, Any]], Nearest, dict[int, int]]:
    """Read each matrix once; return its norms, the nearest rows of new ones, and how many new rows equal each.

    Only ids `among` are named as nearest; `on_bytes` is called with the bytes of each block that was read.
    """
    population = np.fromiter(expand(snapshot.state.population), np.int64)
    embeds = next((tensor.canonical for tensor in snapshot.tensors if tensor.embeds), None)
    found: list[dict[str, Any]] = []
    nearest: Nearest = {}
    equal: dict[int, int] = {}
    for tensor in embedding_matrices(snapshot):
        ids, is_input = tensor.window.ids(snapshot.state.rows), tensor.name == embeds
        held = [number for number in new if number < ids]
        allowed = np.zeros(ids, np.bool_)
        allowed[[number for number in among if number < ids]] = True
        with snapshot.weights.open_rows(tensor.name, tensor.axis) as rows:
            asked = held[:COMPARED_AT_MOST] if is_input else []
            norms, near = survey_rows(rows, ids, asked, allowed, on_bytes)
            nearest |= near
            equal = count_equal_rows(rows, held) if is_input else equal
        found.append(
            {
                "tensor": tensor.name,
                "side": tensor.side,
                "shared": snapshot.state.traits.tied and is_input,
                **_describe(norms[population[population < ids]], {number: float(norms[number]) for number in held}),
                "not_finite": np.flatnonzero(~np.isfinite(norms)).tolist(),
            }
        )
    return found, nearest, equal


def _describe(old: Numbers, new: Mapping[int, float]) -> dict[str, Any]:
    old = np.sort(old[np.isfinite(old)])
    finite = {number: norm for number, norm in new.items() if np.isfinite(norm)}
    ends = [*old[:1], *old[-1:], *finite.values()] or [0.0]
    counts, _ = np.histogram(old, _BINS, (min(ends), max(ends)))
    return {
        "old": _figures(old),
        "new": _figures(np.array(list(finite.values()))),
        "histogram": {"low": float(min(ends)), "high": float(max(ends)), "counts": counts.tolist()},
        "rows": [
            {"id": number, "norm": norm, "longer_than": int(np.searchsorted(old, norm))}
            for number, norm in finite.items()
        ],
    }


def _figures(values: Numbers) -> dict[str, Any]:
    quantiles = np.quantile(values, list(_QUANTILES.values())).tolist() if values.size else [None] * len(_QUANTILES)
    return {"count": int(values.size), **dict(zip(_QUANTILES, quantiles, strict=True))}


def survey_rows(
    rows: TensorRows,
    stop: int,
    asked: Sequence[int],
    among: npt.NDArray[np.bool_],
    on_bytes: Callable[[int], None],
    block_bytes: int = BLOCK_BYTES,
) -> tuple[Numbers, Nearest]:
    """Return the norm of each row before `stop`, and the nearest rows of those `asked` for, block by block.

    `among`, `(stop,)`, says which rows may be named as nearest; `block_bytes` are those of a block in float64.
    """
    norms = np.empty(stop, np.float64)
    wanted = _directions(np.stack([rows.row(number) for number in asked])) if asked else np.empty((0, rows.width))
    own = np.asarray(asked, np.int64)[:, np.newaxis]
    best_ids, best = np.full((len(asked), _NEAREST), -1), np.full((len(asked), _NEAREST), -np.inf)
    position = 0
    for block in rows.float_rows([(0, stop)], block_bytes):
        ids = np.arange(position, position + len(block))
        with np.errstate(over="ignore", invalid="ignore"):
            norms[ids] = np.sqrt(np.einsum("ij,ij->i", block, block))
        if asked:
            cosines = np.round(wanted @ _directions(block).T, _DIGITS)
            cosines[~np.isfinite(cosines) | (own == ids) | ~among[ids]] = -np.inf
            # Most blocks have nothing better for most rows, and sorting is what costs.
            better = np.flatnonzero(cosines.max(axis=1) > best[:, -1])
            cosines = np.concatenate([best[better], cosines[better]], axis=1)
            numbers = np.concatenate([best_ids[better], np.broadcast_to(ids, (len(better), len(ids)))], axis=1)
            # Ids rise along each line, so a stable sort puts the lower one first among equals.
            order = np.argsort(-cosines, axis=1, kind="stable")[:, :_NEAREST]
            best_ids[better] = np.take_along_axis(numbers, order, axis=1)
            best[better] = np.take_along_axis(cosines, order, axis=1)
        position += len(block)
        on_bytes(len(block) * rows.geometry.row_bytes)
    pairs = [zip(ids.tolist(), line.tolist(), strict=True) for ids, line in zip(best_ids, best, strict=True)]
    return norms, {row: [each for each in near if each[0] >= 0] for row, near in zip(asked, pairs, strict=True)}


def count_equal_rows(rows: TensorRows, numbers: Sequence[int]) -> dict[int, int]:
    """Return for each of these rows how many others of them hold the same numbers."""
    digests = {number: blake3(rows.row(number).tobytes()).digest() for number in numbers}
    times = Counter(digests.values())
    return {number: times[digest] - 1 for number, digest in digests.items()}


def _directions(rows: Numbers) -> Numbers:
    """Return the rows scaled to norm 1; NaN where a row has no direction."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        # Scaled by the largest number first: the squares of very small or large ones leave the range of float64.
        scaled = rows / np.max(np.abs(rows), axis=1, keepdims=True, initial=0.0)
        directions: Numbers = scaled / np.sqrt(np.einsum("ij,ij->i", scaled, scaled))[:, np.newaxis]
    return directions
