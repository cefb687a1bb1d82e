"""Which id becomes which, as one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Renumbering:
    """What becomes of ids.

    Args:
        moves: The new id of each old one that changes, None for one that goes; any other id stays.
    """

    moves: Mapping[int, int | None]

    def new(self, number: int) -> int | None:
        """Return the new id, None for one that goes."""
        return self.moves.get(number, number)

    def touches(self, number: int) -> bool:
        """Return whether that id moves or goes."""
        return self.new(number) != number

    @cached_property
    def gone(self) -> frozenset[int]:
        """The ids that go."""
        return frozenset(old for old, new in self.moves.items() if new is None)

    @cached_property
    def is_identity(self) -> bool:
        """Whether every id stays."""
        return all(old == new for old, new in self.moves.items())

    @staticmethod
    def exchanging(moves: Mapping[int, int]) -> Renumbering:
        """Return the permutation that does `moves`; ids that must make room go, in order, where room is left.

        Args:
            moves: The new id of each old one; no two are the same.
        """
        displaced = sorted(set(moves.values()) - set(moves))
        free = sorted(set(moves) - set(moves.values()))
        every = {**moves, **dict(zip(displaced, free, strict=True))}
        return Renumbering({old: new for old, new in every.items() if old != new})

    @staticmethod
    def closing_up(gone: frozenset[int], size: int) -> Renumbering:
        """Return the map in which the ids below `size` close up behind those that go."""
        moves: dict[int, int | None] = {}
        passed = 0
        for number in range(min(gone, default=size), size):
            if number in gone:
                moves[number] = None
                passed += 1
            else:
                moves[number] = number - passed
        return Renumbering(moves)
