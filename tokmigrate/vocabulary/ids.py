"""Tokens and ids: which id becomes which, how two vocabularies differ, and moves of many tokens as one value."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, ItemsView, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, chain
from typing import Any, TypeVar

K = TypeVar("K")
V = TypeVar("V")


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


def pick(parts: Sequence[Run], places: Iterable[int]) -> Iterator[int]:
    """Yield the numbers of `parts` that are at these places among them, counted from 0."""
    starts = [0, *accumulate(stop - start for start, stop in parts)]
    for place in places:
        index = bisect_right(starts, place) - 1
        yield parts[index][0] + place - starts[index]


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


class Layered(Mapping[K, V]):
    """A few entries beside many that other mappings share; no key is in both.

    The states of a plan have nearly the same tokens: a dictionary of them all for each would take their memory, and
    the time to build it, once a migration.
    """

    def __init__(self, shared: Mapping[K, V], own: Mapping[K, V]) -> None:
        self.shared = shared
        self.own = own

    def __getitem__(self, key: K) -> V:
        return self.own[key] if key in self.own else self.shared[key]

    def get(self, key: K, /, default: Any = None) -> Any:
        """Return the entry of a key; that of the base class is slow."""
        return self.own[key] if key in self.own else self.shared.get(key, default)

    def __contains__(self, key: object) -> bool:
        return key in self.own or key in self.shared

    def __iter__(self) -> Iterator[K]:
        return chain(self.shared, self.own)

    def __len__(self) -> int:
        return len(self.shared) + len(self.own)

    def items(self) -> ItemsView[K, V]:
        """Return the entries, in the order of iteration."""
        # The view of a dictionary is gone through, and compared, in C.
        return {**self.shared, **self.own}.items()


def sort_as(mapping: Mapping[K, V], keys: Set[K]) -> list[K]:
    """Return those of `keys` that a mapping has, in its order."""
    if isinstance(mapping, Layered) and not any(key in mapping.shared for key in keys):
        mapping = mapping.own
    return [key for key in mapping if key in keys]


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


Ids = Mapping[str, int]
"""The ids of tokens."""

Successors = Mapping[str, str]
"""Tokens that are gone, each with the token that it is now: another text of it, or its placeholder."""


def find_in_place(gone: Ids, new: Ids) -> Successors:
    """Return the tokens that are gone, each with the new one that has its id, where there is one."""
    texts = {number: token for token, number in new.items()}
    return {token: texts[number] for token, number in gone.items() if number in texts}


def token_delta(
    before: Ids, after: Ids, find_successors: Callable[[Ids, Ids], Successors] = find_in_place
) -> TokenDelta:
    """Return what happened to tokens between two vocabularies.

    Args:
        find_successors: Takes the tokens that are gone and those that are new, and returns the successors of the first.
    """
    if isinstance(before, Layered) and isinstance(after, Layered) and before.shared is after.shared:
        old, now = before.own.items(), after.own.items()
    else:
        old, now = before.items(), after.items()
    # Most migrations only add, which is found out in C.
    others = () if old <= now else old
    gone = {token: number for token, number in others if token not in after}
    new = {token: number for token, number in now if token not in before}
    successors = {token: text for token, text in find_successors(gone, new).items() if token in gone and text in new}
    placeholders = {token: text for token, text in successors.items() if is_tombstone(text)}
    renamed = {token: text for token, text in successors.items() if token not in placeholders}
    known = {*successors.values()}
    return TokenDelta(
        added={token: number for token, number in new.items() if token not in known},
        removed={token: number for token, number in gone.items() if token not in renamed},
        renamed=renamed,
        moved={token: (number, place) for token, number in others if (place := after.get(token, number)) != number},
        placeholders=placeholders,
    )


@dataclass(frozen=True)
class Move:
    """Tokens with neighbouring ids, the first one at `start`, that all move by `shift`; the texts are in that order."""

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
