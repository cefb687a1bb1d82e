"""What becomes of the cuts of lines from one tokenizer to another, and which lines show it best."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any

from tokmigrate.model.probe.cuts import Cut, Library

EXAMPLES = 10
"""How many of the worst lines are kept."""

_AROUND = 3
"""How many tokens of an example are shown before the first that differs, and after the last."""

_SHOWN = 40
"""How many tokens of an example are shown at most."""


@dataclass(order=True)
class _Changed:
    """A line that is tokenized differently; the greater, the worse.

    Args:
        growth: How many tokens more it has; 0 where it has fewer.
        difference: How many tokens of either side the other has not.
        earliness: Its number, negative.
        text: Its text.
    """

    growth: int
    difference: int
    earliness: int
    text: str = field(compare=False)


@dataclass
class Comparison:
    """What becomes of a corpus from one tokenizer to another.

    Args:
        before: The one.
        after: The other.
        tokenized_differently: The lines whose text becomes other tokens.
        other_ids: The lines with other ids, those of special tokens around them included.
    """

    before: Library
    after: Library
    tokenized_differently: int = 0
    other_ids: int = 0
    _worst: list[_Changed] = field(default_factory=list)

    def __post_init__(self) -> None:
        old, new = self.before.texts, self.after.texts
        self._moved = {number for number in old.keys() | new.keys() if old.get(number) != new.get(number)}

    def add(self, number: int, text: str, old: Cut, new: Cut) -> None:
        """Compare the two cuts of one line."""
        self.other_ids += old.ids != new.ids
        before, after = old.text_ids, new.text_ids
        if before == after and self._moved.isdisjoint(before):
            return
        if self._moved and self.before.tokens(before) == self.after.tokens(after):
            return
        self.tokenized_differently += 1
        self._keep(number, text, before, after)

    def _keep(self, number: int, text: str, before: list[int], after: list[int]) -> None:
        growth = max(0, len(after) - len(before))
        full = len(self._worst) == EXAMPLES
        if full and growth < self._worst[0].growth:
            return
        # The same text again shows nothing new.
        if any(kept.text == text for kept in self._worst):
            return
        old, new = Counter(self.before.tokens(before)), Counter(self.after.tokens(after))
        changed = _Changed(growth, ((old - new) + (new - old)).total(), -number, text)
        if full:
            heapq.heappushpop(self._worst, changed)
        else:
            heapq.heappush(self._worst, changed)

    def worst(self) -> list[tuple[int, str]]:
        """Return the worst lines with their numbers, the worst first."""
        return [(-changed.earliness, changed.text) for changed in sorted(self._worst, reverse=True)]


def example(number: int, text: str, before: Library, after: Library) -> dict[str, Any]:
    """Return a line as two tokenizers cut it, from just before the first token that differs to just after the last.

    Args:
        number: The line's number.
        text: Its text.
        before: The one tokenizer.
        after: The other.

    Returns:
        `line`; `skipped`, the tokens left out before; `text`, the part of the line that is shown; `before` and `after`,
        each with all its `tokens` counted as a model gets them, those `shown` as the vocabulary has them, and `more`,
        how many of the text are left out after them.
    """
    sides = (before, after)
    encodings = [side.encoding(text) for side in sides]
    tokens = [side.tokens(encoding.ids) for side, encoding in zip(sides, encodings, strict=True)]
    same_first = _same(*tokens)
    same_last = _same(*(made[same_first:][::-1] for made in tokens))
    start = max(0, same_first - _AROUND)
    stops = [min(len(made) - max(0, same_last - _AROUND), start + _SHOWN) for made in tokens]
    offsets = [place for encoding, stop in zip(encodings, stops, strict=True) for place in encoding.offsets[start:stop]]
    begin = min(place[0] for place in offsets) if start else 0
    is_whole = all(stop == len(made) for made, stop in zip(tokens, stops, strict=True))
    end = len(text) if is_whole else max(place[1] for place in offsets)
    found: dict[str, Any] = {"line": number, "skipped": start, "text": text[begin:end]}
    for name, side, made, stop in zip(("before", "after"), sides, tokens, stops, strict=True):
        found[name] = {
            "tokens": len(side.cuts([text])[0].ids),
            "shown": made[start:stop],
            "more": len(made) - stop,
        }
    return found


def _same(first: Sequence[str], second: Sequence[str]) -> int:
    """Return how many tokens two cuts begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False)))
