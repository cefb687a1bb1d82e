"""Rows of tokens in LoRA runs: which rows a run is still to train, and which an adapter has trained.

peft 0.21 trains single rows by `trainable_token_indices`: a list of ids, or one for each layer by the name that its
path ends with. In a model that ties its embeddings it lets the head follow the layer that is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tokmigrate.audit.training import TokenTraining, Training, training_on_record
from tokmigrate.audit.under_way import reading
from tokmigrate.errors import ModelError
from tokmigrate.model.formats.dtype import FLOATING
from tokmigrate.model.formats.safetensors_header import TensorEntry
from tokmigrate.model.references.adapter_ids import CONFIG, TRAINED
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.model.weights.birth_marks import embeddings
from tokmigrate.model.weights.tensor_rows import Geometry, TensorRows
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present

_DELTA = "trainable_tokens_delta"
_WEIGHT = ".weight"


@dataclass(frozen=True)
class LoraRows:
    """The rows of a model that a LoRA run is still to train.

    Args:
        model: Its name.
        indices: Their ids by layer, as peft's `trainable_token_indices` has them.
        unknown: How many tokens have a row of which it is not known whether it was trained.
        why: Why that is not known, of the first of them.
    """

    model: str
    indices: Mapping[str, list[int]]
    unknown: int
    why: str | None


def lora_rows(workspace: Workspace, entry: ModelEntry) -> LoraRows:
    """Return the rows of a model that migrations began and nobody has trained since."""
    with reading(entry):
        snapshot = take_snapshot(entry)
    tokens = training_on_record(open_state_if_present(workspace.state, workspace.root), snapshot)
    left_open = [token for token in tokens if Training.UNKNOWN in token.sides.values()]
    why = next((token.why for token in left_open), None)
    return LoraRows(entry.name, trainable_indices(snapshot, tokens), len(left_open), why)


def trainable_indices(snapshot: Snapshot, tokens: Iterable[TokenTraining]) -> dict[str, list[int]]:
    """Return peft's `trainable_token_indices` for the rows that were never trained, by layer.

    Args:
        snapshot: The model.
        tokens: Its tokens and what became of them.

    Raises:
        ModelError: peft could not train such rows of this model.
    """
    known = tuple(tokens)
    found: dict[str, list[int]] = {}
    for side, tensor in embeddings(snapshot.tensors).items():
        ids = sorted(token.id for token in known if token.sides.get(side) is Training.UNTRAINED)
        if ids:
            found[layer_name(snapshot, tensor)] = ids
    return found


def layer_name(snapshot: Snapshot, tensor: VocabularyTensor) -> str:
    """Return the name that peft finds the layer of a matrix by: the end of its path that no other tensor has."""
    if not tensor.name.endswith(_WEIGHT) or tensor.axis != 0:
        raise ModelError(
            f"peft cannot train single rows of '{tensor.name}'",
            where=str(snapshot.directory),
            hint="train the whole matrix: list its layer under `modules_to_save`",
        )
    own = tensor.name.removesuffix(_WEIGHT).split(".")
    others = [
        entry.name.removesuffix(_WEIGHT).split(".")
        for _, entry in snapshot.weights.tensors()
        if entry.name.endswith(_WEIGHT) and entry.name != tensor.name
    ]
    for length in range(1, len(own) + 1):
        if not any(other[-length:] == own[-length:] for other in others):
            return ".".join(own[-length:])
    return ".".join(own)


def trained_by_adapter(adapter: Snapshot, base: Snapshot, tokens: Sequence[TokenTraining]) -> tuple[TokenTraining, ...]:
    """Return those of `tokens` for which an adapter holds a row that is not the model's.

    Args:
        adapter: An adapter of the model.
        base: The model.
        tokens: Its tokens whose rows migrations began.
    """
    trained: set[int] = set()
    for tensor, ids, entry in _deltas(adapter, base):
        wanted = {token.id: place for token in tokens for place, number in enumerate(ids) if number == token.id}
        if wanted and entry.dtype in FLOATING and tensor.axis == 0:
            trained |= set(_changed(adapter, entry, base, tensor, wanted))
    return tuple(token for token in tokens if token.id in trained)


def _deltas(adapter: Snapshot, base: Snapshot) -> Iterator[tuple[VocabularyTensor, list[int], TensorEntry]]:
    """Yield each matrix of which an adapter holds single rows, with their ids and the tensor that holds them."""
    sides = embeddings(base.tensors)
    matrices = {_last(tensor.name): tensor for tensor in sides.values() if tensor.name.endswith(_WEIGHT)}
    config = adapter.state.documents[CONFIG]
    listed = next((config[name] for name in TRAINED if config.get(name)), None)
    # A list without layers is for the input embeddings.
    if isinstance(listed, list):
        listed = {_last(sides["input"].name): listed} if "input" in sides else None
    for layer, ids in (listed or {}).items():
        last = layer.split(".")[-1]
        for _, entry in adapter.weights.tensors():
            path = entry.name.split(".")
            if last in matrices and _DELTA in path and last in path and len(entry.shape) == 2:
                yield matrices[last], list(ids), entry


def _last(tensor: str) -> str:
    return tensor.removesuffix(_WEIGHT).split(".")[-1]


def _changed(
    adapter: Snapshot, entry: TensorEntry, base: Snapshot, tensor: VocabularyTensor, wanted: Mapping[int, int]
) -> Iterator[int]:
    with _opened(adapter, entry.name, entry.shape, entry.dtype) as own, _of(base, tensor) as rows:
        for number, place in wanted.items():
            if place < entry.shape[0] and not np.array_equal(own.row(place), rows.row(number)):
                yield number


def _of(base: Snapshot, tensor: VocabularyTensor) -> TensorRows:
    return _opened(base, tensor.name, tensor.shape, tensor.dtype)


def _opened(snapshot: Snapshot, name: str, shape: tuple[int, ...], dtype: str) -> TensorRows:
    shard, entry = snapshot.weights.tensor(name)
    return TensorRows(snapshot.weights.path(shard), shard.extent(entry)[0], Geometry.of(shape, dtype, 0), dtype)
