"""Which tokens a migration moves or removes, read off the states before and after it."""

from __future__ import annotations

from dataclasses import dataclass

from tokmigrate.change.begun_tokens import renamed
from tokmigrate.model.documents.state import ModelState


@dataclass(frozen=True)
class MovedToken:
    """A token that gets another id, or is removed.

    Args:
        token: Its text.
        id: Its id afterwards, None where it is removed.
        old_id: Its id before.
    """

    token: str
    id: int | None
    old_id: int


def moved_tokens(before: ModelState, after: ModelState) -> tuple[MovedToken, ...]:
    """Return the tokens that have another id in `after`, or none; a renamed token is not among them."""
    ids, names = after.tokenizer.ids, renamed(before, after)
    return tuple(
        MovedToken(token, ids.get(token), number)
        for token, number in before.tokenizer.ids.items()
        if ids.get(token) != number and token not in names
    )
