"""What a strategy may ask about the tokenizer as it was before the migration."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from tokmigrate.errors import OperationError, nearest

WORD_START = ("Ġ", "▁")
"""What byte-level and SentencePiece vocabularies write for the space before a word."""


class Lookup(Protocol):
    """The tokens and the cuts of one tokenizer."""

    def id_of(self, token: str) -> int | None:
        """Return the id of `token`, or None."""
        ...

    def pieces(self, text: str) -> tuple[int, ...]:
        """Return the ids that `text` is cut into, without special tokens around them."""
        ...

    def known(self) -> Iterable[str]:
        """Return every token."""
        ...


def source_of(lookup: Lookup, token: str, *, wanted_by: str) -> int:
    """Return the row of the token that a strategy reads.

    Args:
        lookup: The tokenizer before the migration.
        token: The token to read, as the vocabulary writes it.
        wanted_by: The token whose row is being made; errors name it.

    Raises:
        OperationError: The tokenizer has no such token; the hint names the nearest one.
    """
    found = lookup.id_of(token)
    if found is not None:
        return found
    variant = next((mark + token for mark in WORD_START if lookup.id_of(mark + token) is not None), None)
    hint = f"did you mean '{variant}'?" if variant else nearest(token, lookup.known())
    raise OperationError(
        f"init of '{wanted_by}': '{token}' is no token of the tokenizer before this migration",
        where=wanted_by,
        hint=hint or "name a token as the vocabulary writes it, or use `description` for a text",
    )
