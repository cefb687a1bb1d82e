"""A text as two tokenizers tokenize it, in windows that begin and end where both have a boundary.

A loss per byte is comparable only where the same bytes count on both sides. What comes before the first token of a
window is not known to the model, so the text up to the first boundary after it that both have is context and counts
on neither side, unless both put a token such as `<s>` before the text.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokmigrate.errors import TokenizerError
from tokmigrate.model.tokenizer.library import library_errors


@dataclass(frozen=True)
class Tokenized:
    """The tokens of a text, with those that the post-processor puts around it.

    Args:
        boundaries: How many tokens of the text come before a position in it, for each position that no token spans.
    """

    before: tuple[int, ...]
    ids: Sequence[int]
    after: tuple[int, ...]
    boundaries: Mapping[int, int]


@dataclass(frozen=True)
class Window:
    """A part of a text as both sides tokenize it; side 0 is before the migration, side 1 after it.

    Args:
        ids: The ids of each side, as the model gets them.
        first: The place of the first id of each side that counts; `stop` is the place behind the last one.
        text_bytes: The bytes of the text that count, the same on both sides.
    """

    ids: tuple[tuple[int, ...], tuple[int, ...]]
    first: tuple[int, int]
    stop: tuple[int, int]
    text_bytes: int


def tokenize(tokenizer: Any, texts: Sequence[str]) -> list[Tokenized]:
    """Return the tokens of texts, by a tokenizer of the library; raises TokenizerError where it cannot tokenize one."""
    with library_errors(lambda cause: TokenizerError(f"a text cannot be tokenized: {cause}", hint="leave it out")):
        encodings = tokenizer.encode_batch(texts)
    return [_read(text, encoding) for text, encoding in zip(texts, encodings, strict=True)]


def _read(text: str, encoding: Any) -> Tokenized:
    ids, offsets, around = encoding.ids, encoding.offsets, encoding.special_tokens_mask
    start = next((place for place, is_around in enumerate(around) if not is_around), len(ids))
    stop = next((place for place in range(len(ids), start, -1) if not around[place - 1]), start)
    boundaries = {0: 0}
    reached = 0
    for place, (begin, end) in enumerate(offsets[start:stop]):
        # Several tokens can share the bytes of one character.
        if begin >= reached:
            boundaries.setdefault(begin, place)
        reached = max(reached, end)
    boundaries[len(text)] = stop - start
    return Tokenized(tuple(ids[:start]), ids[start:stop], tuple(ids[stop:]), boundaries)


def cut_windows(text: str, sides: tuple[Tokenized, Tokenized], longest: int) -> Iterator[Window]:
    """Yield the windows of a text, each with at most `longest` tokens on either side.

    A part between two common boundaries that is longer is left out. The first window has what the post-processor puts
    before the text, and each what it puts after it, which does not count.
    """
    positions = sorted(sides[0].boundaries.keys() & sides[1].boundaries.keys())
    places = tuple([side.boundaries[position] for position in positions] for side in sides)
    begin, last = 0, len(positions) - 1
    while begin < last:
        around = [side.before if begin == 0 else () for side in sides]
        rooms = [longest - len(put) - len(side.after) for side, put in zip(sides, around, strict=True)]
        stops = [bisect_right(held, held[begin] + room) - 1 for held, room in zip(places, rooms, strict=True)]
        stop = min(stops)
        if stop <= begin:
            begin += 1
            continue
        if all(around):
            counted = begin
        else:
            both = (n for n in range(begin + 1, stop + 1) if all(held[n] > held[begin] for held in places))
            counted = next(both, stop)
        texts = [side.ids[held[begin] : held[stop]] for side, held in zip(sides, places, strict=True)]
        first = [len(put) + held[counted] - held[begin] for put, held in zip(around, places, strict=True)]
        old, new = ((*put, *ids, *side.after) for put, ids, side in zip(around, texts, sides, strict=True))
        stops = [len(put) + len(ids) for put, ids in zip(around, texts, strict=True)]
        text_bytes = len(text[positions[counted] : positions[stop]].encode())
        yield Window((old, new), (first[0], first[1]), (stops[0], stops[1]), text_bytes)
        begin = stop
