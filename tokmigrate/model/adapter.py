"""An adapter that is changed with its base model, as a snapshot of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from tokmigrate.errors import DriftError, ModelError, OperationError, OutOfStepError, StorageError
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
from tokmigrate.model.weights.adapter_tensors import Base, adapter_tensors
from tokmigrate.model.weights.architectures import architecture_of
from tokmigrate.model.weights.weights import read_adapter_weights
from tokmigrate.vocabulary.windows import WHOLE

__all__ = ["CALLING", "CONFIG", "TRAINED", "trained_ids", "with_adapter_ids"]

TRAINED = ("trainable_token_indices", "token_indices")
"""The fields of peft 0.21 that list the ids whose rows the adapter trains, in the order of those rows."""
CALLING = "alora_invocation_tokens"
"""The field that gives the ids of the text which calls the adapter."""


def trained_ids(config: Json) -> Iterator[int]:
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
            after = after.with_value(CONFIG, (name,), _mapped(config[name], trained))
    if config.get(CALLING):
        after = after.with_value(CONFIG, (CALLING,), _mapped(config[CALLING], calling))
    return after


def _mapped(held: Json, new: Callable[[int], int]) -> Json:
    if isinstance(held, dict):
        return {name: _mapped(ids, new) for name, ids in held.items()}
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
    unknown = [number for number in trained_ids(documents[CONFIG]) if number >= base.state.rows]
    if unknown:
        raise OutOfStepError(
            f"it trains the row of id {max(unknown)}, the model has {base.state.rows} rows",
            where=str(directory / CONFIG),
            hint=known.hint_for(max(unknown) + 1),
        )
    if stamp is None and (tensors or list(trained_ids(documents[CONFIG]))):
        _check_not_ambiguous(directory, FILE in documents, base)
    state = replace(base.state, documents={**base.state.documents, **documents})
    return Snapshot(directory, state, texts, layouts, weights, tensors, stamp, ())


def _check_place(directory: Path, base: Snapshot) -> None:
    if not has_directory(directory):
        raise ModelError("no such adapter directory", where=str(directory), hint="check `adapters:` in tokmigrate.yaml")
    inside, outside = directory.resolve(), base.directory.resolve()
    if inside.is_relative_to(outside) or outside.is_relative_to(inside):
        raise StorageError(
            "the adapter and its model lie one inside the other, and could not be exchanged apart",
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
    moved = any(row != piece.start for row, piece in base.state.lineage.kept())
    if moved and not has_tokenizer:
        raise OutOfStepError(
            "the ids of the model moved since its baseline, and nothing says which ids the adapter counts in",
            where=str(directory),
            hint="if it was trained on the model as it is now, save the model's tokenizer.json beside it;"
            " if before, take the model back, list the adapter, and upgrade both",
        )
