"""An adapter that is changed with its base model, as a snapshot of its own."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from tokmigrate.errors import (
    DriftError,
    ModelError,
    OperationError,
    OutOfStepError,
    StorageError,
    UnexplainedTensorError,
)
from tokmigrate.files import has_directory
from tokmigrate.model.documents.reading import JSON_FILES, read_documents, writable_names
from tokmigrate.model.documents.stamp import Stamp, read_stamp
from tokmigrate.model.documents.state import ADAPTER_CONFIG, CONFIG, ModelState
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.formats.safetensors_header import TensorEntry
from tokmigrate.model.model_files import check_files
from tokmigrate.model.references.config_references import map_ids
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Tokenizer
from tokmigrate.model.weights.architectures import architecture_of
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.model.weights.weights import INDEX, Shard, Weights, read_adapter_weights
from tokmigrate.vocabulary.row_edit import WHOLE


class _Kept(NamedTuple):
    """What an adapter keeps of a module.

    `name` is a regular expression for what follows the module's path, `of` the base model's parameter, `axis` the one
    that counts the vocabulary; `adds` says that it is a factor which is added to the parameter, `lists` that it holds
    rows of ids that adapter_config.json lists.
    """

    name: str
    of: str
    axis: int = 0
    adds: bool = False
    lists: bool = False


_SAVED = r"(?:(?:token_adapter\.)?base_layer\.|original_module\.|modules_to_save\.(?:\w+\.)?)?"
_KEPT = (
    _Kept(r"lora_embedding_A(?:\.\w+)?", "weight", axis=1, adds=True),
    _Kept(r"lora_B(?:\.\w+)?\.weight", "weight", adds=True),
    _Kept(r"lora_B(?:\.\w+)?\.bias", "weight", adds=True),
    _Kept(rf"{_SAVED}weight", "weight"),
    _Kept(rf"{_SAVED}bias", "bias"),
    _Kept(r"(?:token_adapter\.)?trainable_tokens_delta(?:\.\w+)?", "weight", lists=True),
)
# Of these no axis counts the vocabulary.
_OTHERS = re.compile(r"(?:lora_embedding_B(?:\.\w+)?|lora_A(?:\.\w+)?\.weight|trainable_tokens_\w+(?:\.\w+)?)$")
_DORA = re.compile(r"(.+)\.lora_magnitude_vector(?:\.\w+)*")


TRAINED = ("trainable_token_indices", "token_indices")
"""The fields of peft 0.21 that list the ids whose rows the adapter trains, in the order of those rows."""
CALLING = "alora_invocation_tokens"
"""The field that gives the ids of the text which calls the adapter."""


@dataclass(frozen=True)
class AdapterTensor:
    """A tensor of an adapter.

    Args:
        layer: The path of its module, without the prefixes that peft puts before it.
        of: The vocabulary tensor of the base that it replaces, adds to or has rows of; None of another tensor.
        axis: The one that counts the vocabulary.
        adds: Whether it is a low-rank factor.
        lists: Whether its rows are those of `ids_of_layer`.
    """

    shard: Shard
    entry: TensorEntry
    layer: str = ""
    of: VocabularyTensor | None = None
    axis: int = 0
    adds: bool = False
    lists: bool = False


def match_tensors(weights: Weights, base: Snapshot) -> Iterator[AdapterTensor]:
    """Yield each tensor of an adapter, with the vocabulary tensor of its base that it belongs to, if any.

    Raises:
        ModelError: The adapter scales rows of the vocabulary (DoRA).
    """
    for shard, entry in weights.tensors():
        plain = entry.name.removeprefix("base_model.model.")
        scaled = _DORA.fullmatch(plain)
        if scaled and _find_parameter(base, scaled[1], "weight"):
            raise ModelError(
                f"'{entry.name}' scales rows by norms over the whole vocabulary (DoRA), which another row changes",
                where=str(weights.path(shard)),
                hint="merge the adapter into the model before its vocabulary is migrated",
            )
        matches = ((kept, re.fullmatch(rf"(.+?)\.{kept.name}", plain)) for kept in _KEPT)
        pairs = ((kept, match[1], _find_parameter(base, match[1], kept.of)) for kept, match in matches if match)
        for kept, layer, of in pairs:
            if of is not None:
                axis = kept.axis if kept.adds else of.axis
                yield AdapterTensor(shard, entry, layer, of, axis, kept.adds, kept.lists)
                break
        else:
            yield AdapterTensor(shard, entry)


def _find_tensors(weights: Weights, base: Snapshot) -> Iterator[VocabularyTensor]:
    """Yield the tensors of an adapter that have a row for each id."""
    ids = base.state.rows
    for held in match_tensors(weights, base):
        entry, of, where = held.entry, held.of, str(weights.path(held.shard))
        if of is None:
            if ids in entry.shape and not _OTHERS.search(entry.name):
                raise UnexplainedTensorError(
                    f"whether an axis of the tensor '{entry.name}' {list(entry.shape)} counts the vocabulary is not"
                    " known: LoRA saves no such tensor",
                    where=where,
                    hint="merge the adapter into the model first, or take it out of `adapters:`",
                )
            continue
        if held.lists:
            continue
        rows, expected = entry.shape[held.axis] if held.axis < len(entry.shape) else 0, of.window.rows(ids)
        if rows != expected:
            raise OutOfStepError(
                f"the tensor '{entry.name}' {list(entry.shape)} of the adapter has not {expected} rows,"
                " as its base model has",
                where=where,
                hint=_hint_for(base, rows - expected + ids),
            )
        yield VocabularyTensor(
            name=entry.name,
            file=held.shard.file,
            axis=held.axis,
            side=of.side,
            dtype=entry.dtype,
            shape=entry.shape,
            canonical=entry.name,
            window=of.window,
            noise=of.canonical,
            adds=held.adds,
        )


def _find_parameter(base: Snapshot, module: str, parameter: str) -> VocabularyTensor | None:
    """Return the base's vocabulary tensor that is a parameter of a module, by the name that peft has for the module."""
    path = module.split(".")
    # A file and a module may lack each other's prefixes, but not the last name.
    alike = [tensor for tensor in base.tensors if tensor.name.split(".")[-2:] == [path[-1], parameter]]
    if alike:
        return max(alike, key=lambda tensor: _count_shared_end(tensor.name.split(".")[:-1], path))
    architecture = architecture_of(base.state.documents[CONFIG])
    pattern = architecture.pattern(f"{module}.{parameter}") if architecture else None
    if pattern is None or not base.state.traits.tied or parameter != "weight":
        return None
    return next((tensor for tensor in base.tensors if tensor.embeds), None)


def _count_shared_end(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _hint_for(base: Snapshot, ids: int) -> str:
    """Return what to do with an adapter that has rows for another number of ids than its base."""
    needed = base.state.tokenizer.highest + 1
    if ids == base.state.lineage.old_rows:
        return (
            "it was trained on the model before its migrations: `tokmigrate downgrade base`, list the adapter, and"
            " upgrade both"
        )
    if ids >= needed:
        return (
            f"it was trained on this model after it was resized in memory to {ids} rows, which was not saved: take"
            " it out of `adapters:`, give the model its tokens and rows with a migration"
            f" (resize_vocab: {{rows: {ids}}}), upgrade, and list it again"
        )
    return f"take it out of `adapters:`: the ids of this model's tokens go up to {needed - 1}"


def list_trained_ids(config: Json) -> Iterator[int]:
    for name in TRAINED:
        held = config.get(name) or []
        for ids in held.values() if isinstance(held, dict) else (held,):
            yield from ids


def ids_of_layer(config: Json, layer: str) -> list[int]:
    """Return the ids whose rows an adapter holds of a layer; a list without layers is for each that it trains."""
    held: Json = next((config[name] for name in TRAINED if config.get(name)), [])
    if isinstance(held, dict):
        return next((list(ids) for name, ids in held.items() if f".{layer}".endswith(f".{name}")), [])
    return list(held)


def with_adapter_ids(before: ModelState, after: ModelState) -> ModelState:
    """Return the state after a migration in which adapter_config.json gives the new ids; its rows stay as they are.

    Raises:
        OperationError: A row that the adapter trains is removed or initialised again.
    """
    config = after.documents[ADAPTER_CONFIG]
    positions = WHOLE.of(after.edit).positions()

    def require(number: int, found: int | None, why: str) -> int:
        if found is None:
            token = before.tokenizer.texts.get(number, f"id {number}")
            raise OperationError(
                f"the adapter uses '{token}', {why}",
                where=ADAPTER_CONFIG,
                hint="keep that token as it is; or take the adapter out of `adapters:`, and train another one",
            )
        return found

    def find_row(number: int) -> int:
        return require(number, positions.get(number), "whose row it trains, is initialised again or removed")

    def find_token(number: int) -> int:
        text = before.tokenizer.texts.get(number, "")
        return require(number, positions.get(number, after.tokenizer.ids.get(text)), "which calls it, goes")

    for name in TRAINED:
        if config.get(name):
            after = after.with_value(ADAPTER_CONFIG, (name,), map_ids(config[name], find_row))
    if config.get(CALLING):
        after = after.with_value(ADAPTER_CONFIG, (CALLING,), map_ids(config[CALLING], find_token))
    return after


@dataclass(frozen=True)
class AdapterFiles:
    """What lies in the directory of an adapter: its small files, as bytes and parsed, its weights and its stamp."""

    directory: Path
    texts: Mapping[str, bytes] = field(repr=False)
    documents: Mapping[str, Json] = field(repr=False)
    weights: Weights = field(repr=False)
    stamp: Stamp | None = field(repr=False)

    def check_ids_known(self, base: Snapshot) -> None:
        """Raise OutOfStepError where ids of the base moved, and nothing tells which of them the adapter uses."""
        have_moved = any(row != piece.start for row, piece in base.state.lineage.copied_rows())
        if self.stamp is None and have_moved and FILE not in self.documents:
            raise OutOfStepError(
                "the ids of the model moved since its baseline, and it is unknown which of them the adapter uses",
                where=str(self.directory),
                hint="if it was trained on the model as it is now, save the model's tokenizer.json beside it;"
                " if before, take the model back, list the adapter, and upgrade both",
            )


def read_adapter(directory: Path, base: Snapshot) -> AdapterFiles:
    """Read the files of an adapter of a model.

    Raises:
        ModelError: It is no adapter of peft.
        DriftError: It is at another revision than the model.
    """
    _check_place(directory, base)
    stamp = read_stamp(directory)
    texts, documents = read_documents(directory, (ADAPTER_CONFIG, *JSON_FILES))
    check_files(directory, writable_names(texts))
    if ADAPTER_CONFIG not in documents:
        raise ModelError(
            f"there is no {ADAPTER_CONFIG}", where=str(directory), hint="name the directory of a peft adapter"
        )
    if stamp is not None and (stamp.revision != base.revision or stamp.rows != base.state.lineage):
        raise DriftError(
            f"the adapter is at revision {stamp.revision}, its model at {base.revision or 'base'}",
            where=str(directory),
            hint="put the adapter in its place that was migrated with this model, or take it out of `adapters:`",
        )
    return AdapterFiles(directory, texts, documents, read_adapter_weights(directory), stamp)


def take_adapter(directory: Path, base: Snapshot) -> Snapshot:
    """Read an adapter of a model; its state is the model's, with the files that the adapter keeps itself.

    Raises:
        ModelError: It cannot be worked on, or is not of this model as it is.
        DriftError: It is at another revision than the model.
        OutOfStepError: It counts in other ids than the model.
        UnexplainedTensorError: An axis of a tensor is as long as the vocabulary, and nothing explains it.
    """
    files = read_adapter(directory, base)
    documents, weights = files.documents, files.weights
    if FILE in documents and Tokenizer(documents[FILE]).ids != base.state.tokenizer.ids:
        raise OutOfStepError(
            "the adapter's tokenizer gives tokens other ids than its model's",
            where=str(directory / FILE),
            hint="list an adapter with the model that it was trained on, as it is now",
        )
    tensors = tuple(_find_tensors(weights, base))
    trained = list(list_trained_ids(documents[ADAPTER_CONFIG]))
    if trained and max(trained) >= base.state.rows:
        raise OutOfStepError(
            f"it trains the row of id {max(trained)}, the model has {base.state.rows} rows",
            where=str(directory / ADAPTER_CONFIG),
            hint=_hint_for(base, max(trained) + 1),
        )
    if tensors or trained:
        files.check_ids_known(base)
    of_model = {name: document for name, document in base.state.documents.items() if name != INDEX}
    state = replace(base.state, documents={**of_model, **documents})
    return Snapshot(directory, state, files.texts, weights, tensors, files.stamp, ())


def require_adapter(directory: Path) -> None:
    """Raise ModelError where an adapter has no directory."""
    if not has_directory(directory):
        hint = "correct its path, under `adapters:` in tokmigrate.yaml or on the command line"
        raise ModelError("no such adapter directory", where=str(directory), hint=hint)


def _check_place(directory: Path, base: Snapshot) -> None:
    require_adapter(directory)
    inside, outside = directory.resolve(), base.directory.resolve()
    if inside.is_relative_to(outside) or outside.is_relative_to(inside):
        raise StorageError(
            "one of the adapter and its model is inside the other, so they cannot be published separately",
            where=str(directory),
            hint="move the adapter beside the model",
        )
