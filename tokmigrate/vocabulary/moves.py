"""Tokens that get other ids, as ranges: after a compaction nearly all of them move, by few distances."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field


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
        """The id behind the last one before."""
        return self.start + len(self.tokens)

    @property
    def reverse(self) -> Move:
        """The move back."""
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
