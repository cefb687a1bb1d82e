"""Rows of tokens in LoRA runs: which rows a run is still to train, and which an adapter has trained.

peft 0.21 trains single rows by `trainable_token_indices`: a list of ids, or one for each layer by the name that its
path ends with. In a model that ties its embeddings it lets the head follow the layer that is listed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from tokmigrate.apply.new_rows import spread
from tokmigrate.audit.run_status import read_snapshot
from tokmigrate.audit.training import TO_TRAIN, TokenTraining, Training, training_on_record
from tokmigrate.errors import ModelError
from tokmigrate.model.adapter import ids_of_layer, match_tensors
from tokmigrate.model.documents.state import ADAPTER_CONFIG
from tokmigrate.model.formats.dtype import FLOATING, from_float64, to_float64
from tokmigrate.model.formats.safetensors_header import TensorEntry
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.weights.movement import Movement, Tracked, embeddings, find_movements
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.objects import ObjectStore
from tokmigrate.vocabulary.row_edit import Side

_WEIGHT = ".weight"


@dataclass(frozen=True)
class LoraRows:
    """The rows of a model that a LoRA run is still to train.

    Args:
        indices: Their ids by layer, as peft's `trainable_token_indices` has them.
        unknown: How many tokens have a row of which it is not known whether it was trained; `why` is of the first.
        given: How many have a row that a file gave and that was not trained here.
        output: Which of the layers has the output embeddings, None where none of their own are to train.
        has_output_bias: Whether the output layer adds a bias for each token.
    """

    model: str
    indices: Mapping[str, list[int]]
    unknown: int
    why: str | None
    given: int = 0
    output: str | None = None
    is_tied: bool = False
    has_output_bias: bool = False


def lora_rows(workspace: Workspace, entry: ModelEntry) -> LoraRows:
    """Return the rows of a model that migrations initialised and that were not trained since, moved ones too."""
    snapshot = read_snapshot(entry)
    state = open_state_if_present(workspace.state, workspace.root)
    tokens = training_on_record(state, snapshot, ObjectStore(workspace.objects))
    indices: dict[str, list[int]] = {}
    layers: dict[Side, str] = {}
    for side, tensor in embeddings(snapshot.tensors).items():
        ids = sorted(token.id for token in tokens if token.sides.get(side) in TO_TRAIN)
        if ids:
            layers[side] = name_layer(snapshot, tensor)
            indices[layers[side]] = ids
    unknown = [token.why for token in tokens if Training.UNKNOWN in token.sides.values()]
    given = sum(Training.GIVEN in token.sides.values() for token in tokens)
    return LoraRows(
        entry.name,
        indices,
        len(unknown),
        next(iter(unknown), None),
        given,
        layers.get("output"),
        is_tied=snapshot.state.traits.tied,
        has_output_bias=any(tensor.name.endswith(".bias") for tensor in snapshot.tensors),
    )


def name_layer(snapshot: Snapshot, tensor: VocabularyTensor) -> str:
    """Return the name that peft finds the layer of a matrix by: the end of its path that no other tensor has."""
    if not tensor.name.endswith(_WEIGHT) or tensor.axis != 0:
        raise ModelError(
            f"peft cannot train single rows of '{tensor.name}'",
            where=str(snapshot.directory),
            hint="train the whole matrix: list its layer under `modules_to_save`",
        )
    own = tensor.name.removesuffix(_WEIGHT).split(".")
    names = [entry.name for _, entry in snapshot.weights.tensors()]
    endings = (".".join(own[-length:]) for length in range(1, len(own)))
    is_alone = (ending for ending in endings if sum(f".{n}".endswith(f".{ending}{_WEIGHT}") for n in names) == 1)
    return next(is_alone, ".".join(own))


@dataclass(frozen=True)
class HeldToken:
    """A new token of which an adapter holds a row of its own, and how that differs from the model's."""

    token: str
    id: int
    training: Training
    movement: Movement


@dataclass(frozen=True)
class HeldRows:
    """Rows of one matrix that an adapter holds in place of the model's; tied embeddings are the input side.

    Args:
        tensor: The adapter's tensor, for the model's `matrix`.
        is_whole: Whether it is the whole matrix, as `modules_to_save` keeps it, or the rows of listed ids.
        tokens: The tokens whose rows migrations initialised, among all its `rows`.
    """

    tensor: str
    matrix: str
    side: Side
    is_whole: bool
    rows: int
    tokens: tuple[HeldToken, ...]


def rows_of_adapter(adapter: Snapshot, base: Snapshot, tokens: Sequence[TokenTraining]) -> tuple[HeldRows, ...]:
    """Return the rows that an adapter holds in place of those of its model; factors that are added to all are none.

    `tokens` are those of the model whose rows migrations initialised.
    """
    sides = embeddings(base.tensors)
    found = [
        _read_held(adapter, base, tokens, side, entry, ids, is_whole=False)
        for side, ids, entry in _deltas(adapter, base)
        if entry.dtype in FLOATING and sides[side].axis == 0
    ]
    sides_by_name = {matrix.name: side for side, matrix in sides.items()}
    for tensor in adapter.tensors:
        is_matrix = not tensor.adds and tensor.axis == 0 and tensor.width > 1 and not tensor.is_table
        if tensor.noise in sides_by_name and is_matrix:
            _, entry = adapter.weights.tensor(tensor.name)
            side, ids = sides_by_name[tensor.noise], range(tensor.shape[0])
            found.append(_read_held(adapter, base, tokens, side, entry, ids, is_whole=True))
    return tuple(found)


def find_trained_tokens(rows: Iterable[HeldRows]) -> frozenset[str]:
    """Return the new tokens of which an adapter holds a trained input row, or a row that both sides share."""
    tokens = (token for held in rows if held.side == "input" for token in held.tokens)
    return frozenset(token.token for token in tokens if token.training is Training.TRAINED)


def _read_held(
    adapter: Snapshot,
    base: Snapshot,
    tokens: Sequence[TokenTraining],
    side: Side,
    entry: TensorEntry,
    ids: Sequence[int],
    *,
    is_whole: bool,
) -> HeldRows:
    """Return rows that an adapter holds, and how it changed those of new tokens, compared with other rows."""
    matrix = embeddings(base.tensors)[side]
    places = {number: place for place, number in enumerate(ids) if place < entry.shape[0]}
    new = {token.id: token for token in tokens if token.id in places}
    held = HeldRows(entry.name, matrix.name, side, is_whole, entry.shape[0], ())
    if not new:
        return held
    texts = base.state.tokenizer.texts
    others = [number for number in range(matrix.geometry.rows) if number not in new]
    listed = [number for number in places if number in texts and number not in new]
    kinds = ([n for n in others if n not in texts], [n for n in others if n in texts], listed)
    compared = list(dict.fromkeys([*new, *(number for kind in kinds for number in spread(kind))]))
    with base.weights.open_rows(matrix.name) as rows, adapter.weights.open_rows(entry.name) as own:
        # As the adapter would store them: it may be saved in a narrower dtype than the model.
        then = np.stack([to_float64(from_float64(rows.row(n), entry.dtype), entry.dtype) for n in compared])
        now = np.stack([own.row(places[n]) if n in places else row for n, row in zip(compared, then, strict=True)])
    tracked = Tracked(
        then,
        now,
        is_absent=np.array([number not in texts for number in compared]),
        is_sample=np.array([number in texts and number not in new for number in compared]),
    )
    is_shared = side == "output" or base.state.traits.tied
    judged = find_movements(tracked, is_output=is_shared)
    found = [
        HeldToken(new[number].token, number, Training(movement.kind), movement)
        for number, movement in zip(compared, judged, strict=True)
        if number in new
    ]
    return replace(held, tokens=tuple(found))


def _deltas(adapter: Snapshot, base: Snapshot) -> Iterator[tuple[Side, list[int], TensorEntry]]:
    """Yield the side of each matrix of which an adapter holds single rows, their ids and the tensor that holds them."""
    sides = {tensor.name: side for side, tensor in embeddings(base.tensors).items()}
    config = adapter.state.documents[ADAPTER_CONFIG]
    for held in match_tensors(adapter.weights, base):
        if held.lists and held.of is not None and held.of.canonical in sides and len(held.entry.shape) == 2:
            yield sides[held.of.canonical], ids_of_layer(config, held.layer), held.entry
