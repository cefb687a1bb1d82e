"""Which tokens a migration moves or removes, read off the states before and after it."""

from __future__ import annotations

from tokmigrate.change.begun_tokens import renamed
from tokmigrate.model.documents.state import ModelState
from tokmigrate.vocabulary.moves import Move, moves_of


def moved_tokens(before: ModelState, after: ModelState) -> tuple[Move, ...]:
    """Return the tokens that have another id in `after`; a renamed token is not among them."""
    ids = after.tokenizer.ids
    return moves_of(
        (token, number, ids[token])
        for token, number in before.tokenizer.ids.items()
        if ids.get(token, number) != number
    )


def removed_tokens(before: ModelState, after: ModelState) -> dict[str, int]:
    """Return the id of each token that `after` lacks; a renamed token is not among them."""
    ids, names = after.tokenizer.ids, renamed(before, after)
    return {token: number for token, number in before.tokenizer.ids.items() if token not in ids and token not in names}
