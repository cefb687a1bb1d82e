"""The tokens of a tokenizer's model, with what is computed of them once for all documents that share them.

The states of a plan mostly share the vocabulary and differ in added tokens, so that a migration costs what it changes.
"""

from __future__ import annotations

import operator
from bisect import bisect_right
from collections.abc import Iterable
from functools import cached_property
from itertools import accumulate

from tokmigrate.memo import Memo
from tokmigrate.model.formats.json_text import Json


class Vocabulary:
    """The `model.vocab` of tokenizer.json."""

    def __init__(self, entries: Json) -> None:
        is_list = isinstance(entries, list)
        self.ids: dict[str, int] = {entry[0]: place for place, entry in enumerate(entries)} if is_list else entries

    @cached_property
    def texts(self) -> dict[int, str]:
        """The token of every id."""
        return dict(zip(self.ids.values(), self.ids, strict=True))

    @cached_property
    def highest(self) -> int:
        """The highest id, -1 without any."""
        return max(self.texts, default=-1)

    @cached_property
    def _lines(self) -> tuple[list[str], str, list[int]]:
        tokens = [*self.ids]
        return tokens, "\n".join(tokens), [0, *accumulate(len(token) + 1 for token in tokens)]

    def find_containing(self, texts: Iterable[str]) -> list[str]:
        """Return the tokens that contain one of a few texts, in the order of the vocabulary."""
        tokens, joined, starts = self._lines
        found: set[int] = set()
        for text in texts:
            place = joined.find(text)
            while place >= 0:
                number = bisect_right(starts, place) - 1
                # A text with a line feed is also found where two tokens meet.
                is_inside = text in tokens[number]
                found |= {number} if is_inside else set()
                place = joined.find(text, starts[number + 1] if is_inside else place + 1)
        return [tokens[number] for number in sorted(found)]


_READ: Memo[Vocabulary] = Memo(4, operator.is_)


def read_vocabulary(entries: Json) -> Vocabulary:
    """Return the vocabulary of a document: the same for the same part of a document."""
    return _READ.get(entries, lambda: Vocabulary(entries))
