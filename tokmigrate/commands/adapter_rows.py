"""The rows of tokens that an adapter holds in place of those of its base, and its low-rank factors.

peft keeps single rows (`trainable_tokens_delta`) and whole matrices (`modules_to_save`, or all that were resized). Rows
of both replace the base's; they are not scaled as the product of two factors is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from tokmigrate.errors import ModelError, OperationError, OutOfStepError
from tokmigrate.formatting import format_count, format_quoted
from tokmigrate.model.adapter import AdapterFiles, AdapterTensor, ids_of_layer, match_tensors
from tokmigrate.model.documents.state import ADAPTER_CONFIG
from tokmigrate.model.formats.dtype import FLOATING, Matrix, from_float64, to_float64
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE, view
from tokmigrate.model.weights.movement import embeddings
from tokmigrate.model.weights.tensor_rows import BLOCK_BYTES, Octets
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.vocabulary.ids import AddedToken, runs
from tokmigrate.vocabulary.row_edit import Side

if TYPE_CHECKING:
    import numpy.typing as npt

MERGE = "merge it into a copy of the model with peft's merge_and_unload, and serve that"
_SAVE_TOKENIZER = "save the tokenizer that it was trained with beside it: tokenizer.save_pretrained(ADAPTER)"
_FACTOR = re.compile(r"\.lora_(?:[AB](?:\.\w+)?\.weight|embedding_[AB](?:\.\w+)?)$")


@dataclass
class _Layer:
    """What an adapter holds in place of a matrix, in one layer: single rows before a whole matrix.

    Args:
        ids: Those of the single rows, in their order.
        changed: The ids whose rows differ from the base's, or whose tokens the base lacks.
    """

    of: VocabularyTensor
    whole: AdapterTensor | None = None
    single: AdapterTensor | None = None
    ids: Sequence[int] = ()
    changed: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class AdapterRows:
    """The rows that an adapter holds, by its own ids.

    Args:
        factors: Its low-rank factors, of any layer.
        texts: Its tokens by its ids: those of its own tokenizer, or else the base's.
        added: The tokens that the base lacks, in the order of their ids.
    """

    files: AdapterFiles = field(repr=False)
    base: Snapshot = field(repr=False)
    factors: tuple[AdapterTensor, ...]
    layers: tuple[_Layer, ...]
    texts: Mapping[int, str] = field(repr=False)
    added: tuple[AddedToken, ...]

    @property
    def listed(self) -> frozenset[int]:
        """The ids whose rows it holds one by one."""
        return frozenset(number for layer in self.layers for number in layer.ids)

    @property
    def changed(self) -> frozenset[int]:
        """The ids whose rows differ from the base's on a side, and those of the tokens that the base lacks."""
        base = self.base.state.tokenizer.ids
        new = {number for number, text in self.texts.items() if text not in base}
        return frozenset(new.union(*(layer.changed for layer in self.layers)))

    def read(self, ids: Sequence[int]) -> dict[Side, Matrix]:
        """Return rows, `(ids, hidden)`, by side: the base's where the adapter holds none.

        Raises:
            ModelError: It has two rows of a token whose embeddings are tied, or one with an infinity or a NaN.
            OutOfStepError: Neither it nor the base has a row.
        """
        matrices = embeddings(self.base.tensors)
        return {
            side: np.stack([self._read_row(side, matrix, number) for number in ids])
            for side, matrix in matrices.items()
        }

    def list_kept(self, ids: Sequence[int]) -> dict[Side, list[str]]:
        """Return the tokens of ids whose rows on a side are the base's."""
        return {
            side: [self.texts[number] for number in ids if not self._find_layers(matrix, number)]
            for side, matrix in embeddings(self.base.tensors).items()
        }

    def _find_layers(self, matrix: VocabularyTensor, number: int) -> list[_Layer]:
        """Return the layers that hold another row for a matrix; two are the sides of tied embeddings."""
        layers = (layer for layer in self.layers if layer.of.canonical == matrix.name)
        return [layer for layer in layers if number in layer.changed]

    def _read_row(self, side: Side, matrix: VocabularyTensor, number: int) -> Matrix:
        where = f"{self.files.directory}: {self.texts[number]}"
        held = [self._read_own(layer, number) for layer in self._find_layers(matrix, number)]
        count = sum(layer.of.canonical == matrix.name for layer in self.layers)
        if held and (len(held) < count or not all(np.array_equal(held[0], each) for each in held)):
            said = "it has a row for each side, and the model has one matrix for input and output"
            raise ModelError(said, where=where, hint=MERGE)
        if not held:
            # That of a new token was spare in the model that the adapter was trained on.
            place = self.base.state.tokenizer.ids.get(self.texts[number], number)
            if place >= matrix.geometry.rows:
                raise OutOfStepError(f"neither it nor the model has its {side} row", where=where, hint=MERGE)
            with self.base.weights.open_rows(matrix.name) as rows:
                held = [rows.row(place)]
        if not np.isfinite(held[0]).all():
            raise ModelError("its row holds an infinity or a NaN", where=where, hint="train the adapter again")
        return held[0]

    def _read_own(self, layer: _Layer, number: int) -> Matrix:
        held, line = (layer.single, layer.ids.index(number)) if number in layer.ids else (layer.whole, number)
        if held is None:
            raise KeyError(number)
        with self.files.weights.open_rows(held.entry.name) as rows:
            return rows.row(line)


def read_adapter_rows(files: AdapterFiles, base: Snapshot) -> AdapterRows:
    """Return the rows that an adapter holds; whole matrices are compared with the base's in blocks.

    Raises:
        ModelError: It holds what is neither a factor nor rows of tokens, or rows of one side of tied embeddings.
        OutOfStepError: Which tokens its rows are for is not known, or a factor is for another number of rows.
        OperationError: Its tokenizer is another than the base's with added tokens.
    """
    factors, layers = _sort_tensors(files, base)
    texts, added = _read_tokens(files, base)
    for layer in layers:
        for held, ids in ((layer.whole, None), (layer.single, layer.ids)):
            if held is not None:
                _compare(files, base, layer, held, ids, texts)
    return AdapterRows(files, base, factors, layers, texts, added)


def _sort_tensors(files: AdapterFiles, base: Snapshot) -> tuple[tuple[AdapterTensor, ...], tuple[_Layer, ...]]:
    """Return the factors of an adapter, and what it holds in place of rows."""
    config, where = files.documents[ADAPTER_CONFIG], str(files.directory)
    if config.get("peft_type") not in ("LORA", "TRAINABLE_TOKENS"):
        raise ModelError(f"it is of the type {config.get('peft_type')}, not LORA", where=where, hint=MERGE)
    if config.get("use_dora"):
        raise ModelError("servers do not load DoRA", where=where, hint=MERGE)
    factors: list[AdapterTensor] = []
    layers: dict[str, _Layer] = {}
    matrices = {tensor.name for tensor in embeddings(base.tensors).values()}
    for held in match_tensors(files.weights, base):
        name, shape, of = held.entry.name, held.entry.shape, held.of
        if _FACTOR.search(name):
            if of is not None and shape[held.axis : held.axis + 1] != (of.window.rows(base.state.rows),):
                message = f"the factor '{name}' {list(shape)} has not a row for each of the model's"
                raise OutOfStepError(message, where=where, hint=MERGE)
            factors.append(held)
            continue
        is_matrix = of is not None and of.canonical in matrices and of.axis == 0 and shape[1:] == of.shape[1:]
        if of is None or not is_matrix or held.entry.dtype not in FLOATING:
            message = f"servers refuse the tensor '{name}' {list(shape)}: it is no LoRA factor and no rows of tokens"
            raise ModelError(message, where=where, hint=MERGE)
        layer = layers.setdefault(held.layer, _Layer(of))
        if not held.lists:
            layer.whole = layer.whole if layer.whole and not _is_frozen(layer.whole) else held
            continue
        layer.single, layer.ids = held, ids_of_layer(config, held.layer)
        if len(layer.ids) != shape[0]:
            message = f"'{name}' has {shape[0]} rows, {ADAPTER_CONFIG} lists {len(layer.ids)} ids"
            raise OutOfStepError(message, where=where, hint="save the adapter again with peft")
    if base.state.traits.tied and len(layers) == 1:
        _check_follows(*next(iter(layers.items())), where)
    return tuple(factors), tuple(layers.values())


def _is_frozen(held: AdapterTensor) -> bool:
    """Return whether a matrix is one that peft puts over what it trains, as it was before."""
    return "base_layer" in held.entry.name or "original_module" in held.entry.name


def _check_follows(name: str, layer: _Layer, where: str) -> None:
    """Refuse rows of one side of tied embeddings, unless the other side has the same ones in peft."""
    # The head follows single rows of the input side, and nothing else.
    is_input = name.rsplit(".", maxsplit=1)[-1] == layer.of.name.split(".")[-2]
    if not is_input or (layer.whole is not None and not _is_frozen(layer.whole)):
        message = f"it holds rows of '{name}' alone, and the model has one matrix for input and output"
        raise ModelError(message, where=where, hint=MERGE)


def _read_tokens(files: AdapterFiles, base: Snapshot) -> tuple[Mapping[int, str], tuple[AddedToken, ...]]:
    """Return the token of each id of an adapter, and the tokens that its base lacks."""
    tokenizer = base.state.tokenizer
    if FILE not in files.documents:
        files.check_ids_known(base)
        return tokenizer.texts, ()
    own = view(files.documents[FILE]).check()
    added = [token for token, _ in sorted(own.added.values(), key=lambda held: held[1])]
    others = [text for text in own.ids if text not in tokenizer.ids and text not in own.added]
    if others:
        raise OperationError(
            f"the model lacks {format_count(len(others), 'token')} of its tokenizer, and they are no added tokens:"
            f" {format_quoted(others)}",
            where=str(files.directory / FILE),
            hint="give the model that tokenizer first: tokmigrate learn transplant --donor DIR",
        )
    return own.texts, tuple(token for token in added if token.content not in tokenizer.ids)


def _compare(
    files: AdapterFiles,
    base: Snapshot,
    layer: _Layer,
    held: AdapterTensor,
    ids: Sequence[int] | None,
    texts: Mapping[int, str],
) -> None:
    """Set which rows of a layer differ from the base's, by one of its tensors; `ids` of None are all."""
    name, count, where = held.entry.name, held.entry.shape[0], str(files.directory)
    if ids is None and any(number >= count for number in texts):
        message = f"'{name}' has {count} rows, and the tokens have ids up to {max(texts)}"
        raise OutOfStepError(message, where=where, hint=_SAVE_TOKENIZER)
    known = base.state.tokenizer.ids
    with base.weights.open_rows(layer.of.name) as theirs, files.weights.open_rows(name) as own:
        block = max(1, BLOCK_BYTES // max(1, own.geometry.row_bytes))
        for start in range(0, count, block):
            lines = range(start, min(start + block, count))
            numbers = lines if ids is None else [ids[line] for line in lines]
            # An id without a token is compared with the row of the same id.
            places = [known.get(texts[number]) if number in texts else number for number in numbers]
            there = [
                (at, place) for at, place in enumerate(places) if place is not None and place < theirs.geometry.rows
            ]
            differs = np.ones(len(lines), bool)
            differs[[at for at, _ in there]] = _differ(
                own.read_run(lines.start, lines.stop)[[at for at, _ in there]],
                own.dtype,
                theirs.read_runs(runs([place for _, place in there])),
                theirs.dtype,
            )
            found = {number for number, is_other in zip(numbers, differs, strict=True) if is_other}
            layer.changed = (layer.changed - set(numbers)) | (found & texts.keys())
            # A tokenizer beside the adapter tells that such rows of a matrix are spare.
            if found - texts.keys() and (ids is not None or FILE not in files.documents):
                message = f"'{name}' has another row for id {min(found - texts.keys())}, and no token has this id"
                raise OutOfStepError(message, where=where, hint=_SAVE_TOKENIZER)


def _differ(own: Octets, own_dtype: str, theirs: Octets, dtype: str) -> npt.NDArray[np.bool_]:
    """Return which rows differ, `(rows,)`: also where one side is rounded to the dtype of the other."""
    differs: npt.NDArray[np.bool_]
    if own_dtype == dtype:
        differs = np.any(own != theirs, axis=1)
        return differs
    ours, base = (to_float64(*rows).reshape(len(own), -1) for rows in ((own, own_dtype), (theirs, dtype)))
    differs = np.any(ours != base, axis=1)
    # Most rows of a matrix are equal, and rounding is slow.
    left = np.flatnonzero(differs)
    for wide, narrow, to in ((ours, base, dtype), (base, ours, own_dtype)):
        differs[left] &= np.any(_round(wide[left], to) != narrow[left], axis=1)
    return differs


def _round(rows: Matrix, dtype: str) -> Matrix:
    return to_float64(from_float64(rows, dtype), dtype).reshape(rows.shape)
