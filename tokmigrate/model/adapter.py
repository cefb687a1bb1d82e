"""An adapter that is changed with its base model, as a snapshot of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

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
from tokmigrate.model.documents.state import ADAPTER_CONFIG as CONFIG
from tokmigrate.model.documents.state import CONFIG as MODEL_CONFIG
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.json_text import Json
from tokmigrate.model.model_files import check_files
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.model.tokenizer.tokenizer_json import FILE, Tokenizer
from tokmigrate.model.weights.architectures import Architecture, architecture_of
from tokmigrate.model.weights.vocabulary_tensor import VocabularyTensor
from tokmigrate.model.weights.weights import Weights, read_adapter_weights
from tokmigrate.vocabulary.row_edit import WHOLE


@dataclass(frozen=True)
class _Kept:
    """What an adapter keeps of a module.

    Args:
        name: A regular expression for what follows the module's path.
        of: The base model's parameter that it goes with, `weight` or `bias`.
        axis: The axis that counts the vocabulary.
        adds: Whether it is a factor that is added to the parameter.
    """

    name: str
    of: str
    axis: int = 0
    adds: bool = False


_SAVED = r"(?:base_layer\.|original_module\.|modules_to_save\.(?:\w+\.)?)?"
_KEPT = (
    _Kept(r"lora_embedding_A(?:\.\w+)?", "weight", axis=1, adds=True),
    _Kept(r"lora_B(?:\.\w+)?\.weight", "weight", adds=True),
    _Kept(r"lora_B(?:\.\w+)?\.bias", "weight", adds=True),
    _Kept(rf"{_SAVED}weight", "weight"),
    _Kept(rf"{_SAVED}bias", "bias"),
)
# Of these no axis counts the vocabulary.
_OTHERS = re.compile(r"(?:lora_embedding_B(?:\.\w+)?|lora_A(?:\.\w+)?\.weight|trainable_tokens_\w+(?:\.\w+)?)$")
_DORA = re.compile(r"(.+)\.lora_magnitude_vector(?:\.\w+)*")


@dataclass(frozen=True)
class Base:
    """What an adapter has to know of its base model.

    Args:
        tensors: The vocabulary tensors.
        ids: How many ids there are rows for.
        architecture: What is known of its type.
        tied: Whether input and output embeddings are one matrix.
        baseline: How many ids it had before its migrations.
        needed: How many ids its tokens need.
    """

    tensors: tuple[VocabularyTensor, ...]
    ids: int
    architecture: Architecture | None
    tied: bool
    baseline: int
    needed: int

    def hint_for(self, ids: int) -> str:
        """Return what to do with an adapter that has rows for another number of ids."""
        if ids == self.baseline:
            return (
                "it was trained on the model before its migrations: `tokmigrate downgrade base`, list the adapter, and"
                " upgrade both"
            )
        if ids >= self.needed:
            return (
                f"it was trained on this model after it was resized in memory to {ids} rows, which was not saved: take"
                " it out of `adapters:`, give the model its tokens and rows with a migration"
                f" (resize_vocab: {{rows: {ids}}}), upgrade, and list it again"
            )
        return f"take it out of `adapters:`: the ids of this model's tokens go up to {self.needed - 1}"

    def parameter(self, module: str, parameter: str) -> VocabularyTensor | None:
        """Return the vocabulary tensor that is a parameter of a module, by the name that peft has for the module."""
        # A file and a module may lack each other's prefixes, but not the last name.
        alike = [
            tensor
            for tensor in self.tensors
            if tensor.name.rpartition(".")[2] == parameter and tensor.name.split(".")[-2:-1] == module.split(".")[-1:]
        ]
        if alike:
            return max(alike, key=lambda tensor: _shared_end(tensor.name.split(".")[:-1], module.split(".")))
        pattern = self.architecture.pattern(f"{module}.{parameter}") if self.architecture else None
        if pattern is None or not self.tied or parameter != "weight":
            return None
        return next((tensor for tensor in self.tensors if tensor.embeds), None)


def _shared_end(one: Sequence[str], other: Sequence[str]) -> int:
    pairs = zip(reversed(one), reversed(other), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def adapter_tensors(weights: Weights, base: Base) -> tuple[VocabularyTensor, ...]:
    """Return the tensors of an adapter that have a row for each id.

    Args:
        weights: The adapter's tensors.
        base: Its base model.

    Raises:
        ModelError: Its rows depend on all others (DoRA).
        OutOfStepError: A tensor has rows for another number of ids.
        UnexplainedTensorError: An axis has that length, and nothing explains it.
    """
    return tuple(_find_tensors(weights, base))


def _find_tensors(weights: Weights, base: Base) -> Iterator[VocabularyTensor]:
    for shard, entry in weights.tensors():
        where = str(weights.path(shard))
        plain = entry.name.removeprefix("base_model.model.")
        scaled = _DORA.fullmatch(plain)
        if scaled and base.parameter(scaled[1], "weight"):
            raise ModelError(
                f"'{entry.name}' scales rows by norms over the whole vocabulary (DoRA), which another row changes",
                where=where,
                hint="merge the adapter into the model before its vocabulary is migrated",
            )
        found = _split(plain, base)
        if found is None:
            if base.ids in entry.shape and not _OTHERS.search(plain):
                raise UnexplainedTensorError(
                    f"whether an axis of the tensor '{entry.name}' {list(entry.shape)} counts the vocabulary is not"
                    " known: LoRA saves no such tensor",
                    where=where,
                    hint="merge the adapter into the model first, or take it out of `adapters:`",
                )
            continue
        kept, of = found
        tensor = VocabularyTensor(
            name=entry.name,
            file=shard.file,
            axis=kept.axis if kept.adds else of.axis,
            side=of.side,
            dtype=entry.dtype,
            shape=entry.shape,
            canonical=entry.name,
            window=of.window,
            noise=of.canonical,
            adds=kept.adds,
        )
        _check_rows(tensor, base, where)
        yield tensor


def _split(plain: str, base: Base) -> tuple[_Kept, VocabularyTensor] | None:
    """Return what a tensor keeps, and of which of the base model's."""
    for kept in _KEPT:
        match = re.fullmatch(rf"(.+?)\.{kept.name}", plain)
        of = base.parameter(match[1], kept.of) if match else None
        if of is not None:
            return kept, of
    return None


def _check_rows(tensor: VocabularyTensor, base: Base, where: str) -> None:
    ids = base.ids
    rows = tensor.shape[tensor.axis] if tensor.axis < len(tensor.shape) else None
    if rows != tensor.window.rows(ids):
        raise OutOfStepError(
            f"the tensor '{tensor.name}' {list(tensor.shape)} of the adapter has not {tensor.window.rows(ids)} rows,"
            " as its base model has",
            where=where,
            hint=base.hint_for((rows or 0) - tensor.window.rows(ids) + ids),
        )


__all__ = ["CALLING", "CONFIG", "TRAINED", "list_trained_ids", "with_adapter_ids"]

TRAINED = ("trainable_token_indices", "token_indices")
"""The fields of peft 0.21 that list the ids whose rows the adapter trains, in the order of those rows."""
CALLING = "alora_invocation_tokens"
"""The field that gives the ids of the text which calls the adapter."""


def list_trained_ids(config: Json) -> Iterator[int]:
    """Yield the ids whose rows an adapter trains."""
    for name in TRAINED:
        held = config.get(name) or []
        for ids in held.values() if isinstance(held, dict) else (held,):
            yield from ids


def with_adapter_ids(before: ModelState, after: ModelState) -> ModelState:
    """Return the state after a migration in which adapter_config.json gives the new ids; its rows stay as they are.

    Args:
        before: The state before the migration.
        after: The state after it, with the migration's own edit.

    Raises:
        OperationError: A row that the adapter trains is removed or initialised again.
    """
    config = after.documents[CONFIG]
    positions = WHOLE.of(after.edit).positions()

    def trained(number: int) -> int:
        if number not in positions:
            raise _in_use(before, number, "whose row it trains, is initialised again or removed")
        return positions[number]

    def calling(number: int) -> int:
        text = before.tokenizer.texts.get(number)
        found = positions.get(number, after.tokenizer.ids.get(text or ""))
        if found is None:
            raise _in_use(before, number, "which calls it, goes")
        return found

    for name in TRAINED:
        if config.get(name):
            after = after.with_value(CONFIG, (name,), _map(config[name], trained))
    if config.get(CALLING):
        after = after.with_value(CONFIG, (CALLING,), _map(config[CALLING], calling))
    return after


def _map(held: Json, new: Callable[[int], int]) -> Json:
    if isinstance(held, dict):
        return {name: _map(ids, new) for name, ids in held.items()}
    return [new(number) for number in held]


def _in_use(before: ModelState, number: int, why: str) -> OperationError:
    token = before.tokenizer.texts.get(number, f"id {number}")
    return OperationError(
        f"the adapter uses '{token}', {why}",
        where=CONFIG,
        hint="merge the adapter into the model first, or take it out of `adapters:`",
    )


def take_adapter(directory: Path, base: Snapshot) -> Snapshot:
    """Read an adapter of a model; its state is the model's, with the files that the adapter keeps itself.

    Args:
        directory: The adapter's directory.
        base: The model that it was trained on.

    Raises:
        ModelError: It cannot be worked on, or is not of this model as it is.
        DriftError: It is at another revision than the model.
    """
    _check_place(directory, base)
    stamp = read_stamp(directory)
    texts, documents, layouts = read_documents(directory, stamp, (CONFIG, *JSON_FILES))
    check_files(directory, writable_names(texts))
    if CONFIG not in documents:
        raise ModelError(f"there is no {CONFIG}", where=str(directory), hint="name the directory of a peft adapter")
    _check_revision(directory, stamp, base)
    _check_tokenizer(directory, documents.get(FILE), base)
    weights = read_adapter_weights(directory)
    known = Base(
        base.tensors,
        base.state.rows,
        architecture_of(base.state.documents[MODEL_CONFIG]),
        base.state.traits.tied,
        base.state.lineage.old_rows,
        max(base.state.tokenizer.texts, default=-1) + 1,
    )
    tensors = adapter_tensors(weights, known)
    unknown = [number for number in list_trained_ids(documents[CONFIG]) if number >= base.state.rows]
    if unknown:
        raise OutOfStepError(
            f"it trains the row of id {max(unknown)}, the model has {base.state.rows} rows",
            where=str(directory / CONFIG),
            hint=known.hint_for(max(unknown) + 1),
        )
    if stamp is None and (tensors or list(list_trained_ids(documents[CONFIG]))):
        _check_not_ambiguous(directory, FILE in documents, base)
    state = replace(base.state, documents={**base.state.documents, **documents})
    return Snapshot(directory, state, texts, layouts, weights, tensors, stamp, ())


def _check_place(directory: Path, base: Snapshot) -> None:
    if not has_directory(directory):
        raise ModelError("no such adapter directory", where=str(directory), hint="check `adapters:` in tokmigrate.yaml")
    inside, outside = directory.resolve(), base.directory.resolve()
    if inside.is_relative_to(outside) or outside.is_relative_to(inside):
        raise StorageError(
            "one of the adapter and its model is inside the other, so they cannot be published separately",
            where=str(directory),
            hint="move the adapter beside the model",
        )


def _check_revision(directory: Path, stamp: Stamp | None, base: Snapshot) -> None:
    if stamp is None:
        return
    if stamp.revision != base.revision or stamp.rows != base.state.lineage:
        raise DriftError(
            f"the adapter is at revision {stamp.revision}, its model at {base.revision or 'base'}",
            where=str(directory),
            hint="list an adapter with the very model that it was migrated with",
        )


def _check_tokenizer(directory: Path, document: Json, base: Snapshot) -> None:
    if document is not None and Tokenizer(document).ids != base.state.tokenizer.ids:
        raise OutOfStepError(
            "the adapter's tokenizer gives tokens other ids than its model's",
            where=str(directory / FILE),
            hint="list an adapter with the model that it was trained on, as it is now",
        )


def _check_not_ambiguous(directory: Path, has_tokenizer: bool, base: Snapshot) -> None:
    """Raise where nothing tells whether an adapter counts in the ids that the model had, or in those that it has."""
    moved = any(row != piece.start for row, piece in base.state.lineage.copied_rows())
    if moved and not has_tokenizer:
        raise OutOfStepError(
            "the ids of the model moved since its baseline, and it is unknown which of them the adapter uses",
            where=str(directory),
            hint="if it was trained on the model as it is now, save the model's tokenizer.json beside it;"
            " if before, take the model back, list the adapter, and upgrade both",
        )
