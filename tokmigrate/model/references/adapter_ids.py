"""Ids of tokens in adapter_config.json: which rows an adapter trains, and what calls it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tokmigrate.errors import OperationError
from tokmigrate.model.documents.state import ADAPTER_CONFIG as CONFIG
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.formats.json_text import Json
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
        OperationError: A row that the adapter trains goes, or begins anew.
    """
    config = after.documents[CONFIG]
    positions = WHOLE.of(after.edit).positions()

    def trained(number: int) -> int:
        if number not in positions:
            raise _in_use(before, number, "whose row it trains, begins anew or goes")
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
