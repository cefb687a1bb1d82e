"""Tokens that an operation refers to must be in the vocabulary."""

from __future__ import annotations

from tokmigrate.errors import OperationError, nearest
from tokmigrate.model.state import ModelState


def id_of(state: ModelState, content: str) -> int:
    """Return the id of the token `content`; raises OperationError, with the nearest one, where it is none."""
    found = state.tokenizer.ids.get(content)
    if found is None:
        raise OperationError(
            f"'{content}' is no token of this tokenizer",
            hint=nearest(content, state.tokenizer.ids) or "add it first with add_tokens",
        )
    return found
