"""Ids that change, with their rows, and the models in which an id means more than its token."""

from __future__ import annotations

from tokmigrate.errors import OperationError
from tokmigrate.model.architectures import IDS_AFTER_THE_LAST, POSITION_IDS_FROM_PAD
from tokmigrate.model.state import CONFIG, ModelState
from tokmigrate.vocabulary.renumbering import Renumbering


def check_ids_may_change(state: ModelState, renumbering: Renumbering) -> None:
    """Raise OperationError where the model counts with ids that change.

    Args:
        state: The state before.
        renumbering: What becomes of ids.
    """
    model_type = state.traits.model_type
    pad = state.documents[CONFIG].get("pad_token_id")
    # Without a word in config.json transformers' default holds, which is 1 in these families.
    held = 1 if pad is None else pad
    if model_type in POSITION_IDS_FROM_PAD and renumbering.touches(held):
        raise OperationError(
            f"a {model_type} model counts its positions from pad_token_id {held};"
            " another id would shift every position",
            hint=f"leave '{state.tokenizer.texts.get(held, held)}' where it is",
        )
    if model_type in IDS_AFTER_THE_LAST:
        last = max(state.tokenizer.texts)
        changed = [number for number in renumbering.moves if renumbering.touches(number)]
        timestamps = state.tokenizer.ids.get("<|notimestamps|>", last)
        if any(number >= timestamps or (renumbering.new(number) or 0) >= timestamps for number in changed):
            raise OperationError(f"a {model_type} model takes every id after {timestamps} for a timestamp")
