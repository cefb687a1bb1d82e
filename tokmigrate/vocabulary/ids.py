"""Tokens and ids: what an id is, and which id becomes which."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Renumbering:
    """How ids change.

    Args:
        moves: The new id of each old one that changes, None for one that goes; any other id stays.
    """

    moves: Mapping[int, int | None]

    def new(self, number: int) -> int | None:
        """Return the new id, None for one that goes."""
        return self.moves.get(number, number)

    def touches(self, number: int) -> bool:
        return self.new(number) != number

    @cached_property
    def is_identity(self) -> bool:
        return all(old == new for old, new in self.moves.items())

    @staticmethod
    def swap(moves: Mapping[int, int]) -> Renumbering:
        """Return the permutation that does `moves`, of which no two have the same target.

        Ids that must make room go, in order, where room is left.
        """
        displaced = sorted(set(moves.values()) - set(moves))
        free = sorted(set(moves) - set(moves.values()))
        every = {**moves, **dict(zip(displaced, free, strict=True))}
        return Renumbering({old: new for old, new in every.items() if old != new})

    @staticmethod
    def close_gaps(gone: frozenset[int], size: int) -> Renumbering:
        """Return the map in which the ids below `size` close up behind those that go."""
        moves: dict[int, int | None] = {}
        passed = 0
        for number in range(min(gone, default=size), size):
            moves[number] = None if number in gone else number - passed
            passed += number in gone
        return Renumbering(moves)


@dataclass(frozen=True)
class AddedToken:
    """A token that is matched in the text before the tokenizer's own model cuts it.

    Args:
        content: The text of the token.
        special: Whether decoding may skip it, and training must not split it.
        single_word: Whether it matches only between word boundaries.
        lstrip: Whether it takes the white space on its left with it.
        rstrip: Whether it takes the white space on its right with it.
        normalized: Whether it is looked for in the normalised text.
    """

    content: str
    special: bool = False
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False
    normalized: bool = False


def tombstone(number: int) -> str:
    return f"<|removed_{number}|>"


def is_tombstone(content: str) -> bool:
    return re.fullmatch(r"<\|removed_\d+\|>", content) is not None


Run = tuple[int, int]
"""Ids or rows from a start up to, not including, a stop."""


def runs(ids: Iterable[int]) -> tuple[Run, ...]:
    """Return `ids`, in their order, as maximal runs of consecutive numbers."""
    found: list[list[int]] = []
    for number in ids:
        if found and found[-1][1] == number:
            found[-1][1] = number + 1
        else:
            found.append([number, number + 1])
    return tuple((start, stop) for start, stop in found)


def expand(parts: Iterable[Run]) -> Iterable[int]:
    for start, stop in parts:
        yield from range(start, stop)


def count(parts: Iterable[Run]) -> int:
    return sum(stop - start for start, stop in parts)


def cut_runs(parts: Iterable[Run], size: int) -> Iterator[tuple[Run, ...]]:
    """Yield the numbers of `parts`, in their order, in groups of `size`; the last may have fewer."""
    group: list[Run] = []
    room = size
    for start, stop in parts:
        position = start
        while position < stop:
            end = min(stop, position + room)
            group.append((position, end))
            position, room = end, room - (end - position)
            if not room:
                yield tuple(group)
                group, room = [], size
    if group:
        yield tuple(group)


def find_gaps(parts: Iterable[Run], stop: int) -> Iterator[Run]:
    """Yield what of the numbers below `stop` is in none of `parts`, as runs in rising order."""
    position = 0
    for start, end in sorted(parts):
        if start > position:
            yield position, start
        position = max(position, end)
    if position < stop:
        yield position, stop
