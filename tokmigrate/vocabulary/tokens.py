"""Tokens and their ids, as values."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass


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
    """Return the text of the placeholder for an id."""
    return f"<|removed_{number}|>"


def is_tombstone(content: str) -> bool:
    """Return whether a token is a placeholder."""
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
    """Yield every number of `parts`, in order."""
    for start, stop in parts:
        yield from range(start, stop)


def count(parts: Iterable[Run]) -> int:
    """Return how many numbers `parts` hold."""
    return sum(stop - start for start, stop in parts)
