"""The vocabulary as a map: ids from left to right and from top to bottom, coloured by what is at them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tokmigrate.runner.reporting.data import KINDS, Kind

COLUMNS = 64
_CELLS_AT_MOST = 2048


@dataclass(frozen=True)
class Stretch:
    """Cells side by side that are shown alike.

    Args:
        kind: The colour.
        row: The line of the map.
        column: The first cell.
        cells: How many.
        start: The first id.
        stop: The id behind the last.
        told: What is at these ids, in words.
    """

    kind: Kind
    row: int
    column: int
    cells: int
    start: int
    stop: int
    told: str


@dataclass(frozen=True)
class VocabularyMap:
    """A map of `rows` lines of 64 cells, each of `span` ids."""

    span: int
    rows: int
    stretches: tuple[Stretch, ...]


def vocabulary_map(kinds: Sequence[Kind]) -> VocabularyMap:
    """Return the map of a vocabulary.

    Args:
        kinds: What is at each id, from 0.

    Returns:
        The map; a cell of several ids has the colour of what is rarest in the vocabulary.
    """
    span = 1
    while len(kinds) > span * _CELLS_AT_MOST:
        span *= 2
    counts = Counter(kinds)
    cells = [
        min(set(kinds[start : start + span]), key=lambda kind: (counts[kind], -KINDS.index(kind)))
        for start in range(0, len(kinds), span)
    ]
    stretches: list[Stretch] = []
    begin = 0
    for end in range(1, len(cells) + 1):
        if end < len(cells) and end % COLUMNS and cells[end] == cells[begin]:
            continue
        start, stop = begin * span, min(end * span, len(kinds))
        told = ", ".join(f"{count:,} {kind}" for kind, count in Counter(kinds[start:stop]).most_common())
        row, column = divmod(begin, COLUMNS)
        stretches.append(Stretch(cells[begin], row, column, end - begin, start, stop, told))
        begin = end
    return VocabularyMap(span, -(-len(cells) // COLUMNS), tuple(stretches))


def runs_of(kinds: Sequence[Kind]) -> tuple[tuple[Kind, int, int], ...]:
    """Return what is at the ids as runs: a kind, the first id, the id behind the last."""
    found: list[tuple[Kind, int, int]] = []
    begin = 0
    for end in range(1, len(kinds) + 1):
        if end == len(kinds) or kinds[end] != kinds[begin]:
            found.append((kinds[begin], begin, end))
            begin = end
    return tuple(found)
