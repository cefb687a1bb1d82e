"""Ids that change, with their rows, and the models in which an id means more than its token."""

from __future__ import annotations

from tokmigrate.errors import OperationError, in_one_line
from tokmigrate.model.class_defaults.default_ids import default_ids
from tokmigrate.model.documents.architecture_quirks import FIXED_IDS, POSITION_IDS_FROM_PAD
from tokmigrate.model.documents.config_fields import parts_of
from tokmigrate.model.documents.state import CONFIG, ModelState
from tokmigrate.vocabulary.renumbering import Renumbering


def check_ids_may_change(state: ModelState, renumbering: Renumbering, fewer: int = 0) -> None:
    """Raise OperationError where the model counts with ids that change.

    Args:
        state: The state before.
        renumbering: What becomes of ids.
        fewer: By how much the vocabulary shrinks with it; below zero where it grows.
    """
    model_type = state.traits.model_type
    if model_type in FIXED_IDS and not renumbering.is_identity:
        raise OperationError(
            f"no id of a {model_type} model can change: it {FIXED_IDS[model_type]}",
            hint="leave every id as it is: remove_tokens with `ids: tombstone`, and no move_tokens",
        )
    _check_bounds(state, renumbering, fewer)
    for path, part in parts_of(state.documents[CONFIG], state.vocab_size):
        counting = str(part.get("model_type", "" if path else model_type))
        # Without a word in config.json transformers' default holds.
        held = part.get("pad_token_id", default_ids(counting).get("pad_token_id"))
        if counting in POSITION_IDS_FROM_PAD and isinstance(held, int) and renumbering.touches(held):
            raise OperationError(
                f"a {counting} model counts its positions from pad_token_id {held};"
                " another id would shift every position",
                hint=f"leave '{in_one_line(state.tokenizer.texts.get(held, str(held)))}' where it is",
            )


def _check_bounds(state: ModelState, renumbering: Renumbering, fewer: int) -> None:
    """Raise OperationError where an id would enter or leave a tensor that has no rows for some of the ids."""
    bounds = [(state.vocab_size, state.vocab_size - fewer), *((stop, stop) for stop in state.traits.stops)]
    for before, after in bounds:
        for old, new in renumbering.moves.items():
            if new is not None and (old < before) != (new < after):
                raise OperationError(
                    f"id {old} would become {new}, but in a {state.traits.model_type} model ids below and from {before}"
                    " on do not have rows in the same tensors",
                    hint="move tokens on one side of it only, and remove them with `ids: tombstone`",
                )
