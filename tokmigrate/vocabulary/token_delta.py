"""How two vocabularies differ, and moves of many tokens as one value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from tokmigrate.vocabulary.ids import is_tombstone

_NO_ROWS: Mapping[int, int] = MappingProxyType({})


@dataclass(frozen=True)
class TokenDelta:
    """What happened to tokens between two vocabularies.

    Args:
        added: The id of each new token, in the order of the second vocabulary.
        removed: The id that each removed token had, in the order of the first.
        renamed: The new text of each token that has another one, by its old text.
        moved: The ids before and after of each token that has the same text under another id.
        placeholders: The placeholder that holds the id of a removed token, by the token; none of them is in `added`.
    """

    added: Mapping[str, int]
    removed: Mapping[str, int]
    renamed: Mapping[str, str]
    moved: Mapping[str, tuple[int, int]]
    placeholders: Mapping[str, str]


def token_delta(before: Mapping[str, int], after: Mapping[str, int], rows: Mapping[int, int] = _NO_ROWS) -> TokenDelta:
    """Return what happened to tokens between two vocabularies.

    A token that is gone was renamed where a new text, which is no placeholder, has its id.

    Args:
        rows: Where rows went that have another number afterwards: a renamed token has the id of its row.
    """
    # Most migrations only add, which is found out in C.
    old = () if before.items() <= after.items() else before.items()
    gone = {token: number for token, number in old if token not in after}
    new = {token: number for token, number in after.items() if token not in before}
    texts = {number: token for token, number in new.items()}
    successors = {token: texts[place] for token, number in gone.items() if (place := rows.get(number, number)) in texts}
    placeholders = {token: text for token, text in successors.items() if is_tombstone(text)}
    renamed = {token: text for token, text in successors.items() if token not in placeholders}
    known = {*successors.values()}
    return TokenDelta(
        added={token: number for token, number in new.items() if token not in known},
        removed={token: number for token, number in gone.items() if token not in renamed},
        renamed=renamed,
        moved={token: (number, place) for token, number in old if (place := after.get(token, number)) != number},
        placeholders=placeholders,
    )


@dataclass(frozen=True)
class Move:
    """Tokens with neighbouring ids that all move as far.

    Args:
        start: The id of the first one before.
        shift: How far each moves.
        tokens: Their texts, by id.
    """

    start: int
    shift: int
    tokens: tuple[str, ...] = field(repr=False)

    @property
    def stop(self) -> int:
        return self.start + len(self.tokens)

    @property
    def reverse(self) -> Move:
        return Move(self.start + self.shift, -self.shift, self.tokens)

    def each(self) -> Iterator[tuple[str, int, int]]:
        """Yield each token with its id before and after."""
        for number, token in enumerate(self.tokens, self.start):
            yield token, number, number + self.shift


def moves_of(moved: Iterable[tuple[str, int, int]]) -> tuple[Move, ...]:
    """Return tokens, each with its id before and after, as the longest moves that they make."""
    found: list[tuple[int, int, list[str]]] = []
    for token, old, new in sorted(moved, key=lambda each: each[1]):
        if found and (found[-1][0] + len(found[-1][2]), found[-1][1]) == (old, new - old):
            found[-1][2].append(token)
        else:
            found.append((old, new - old, [token]))
    return tuple(Move(start, shift, tuple(tokens)) for start, shift, tokens in found)
