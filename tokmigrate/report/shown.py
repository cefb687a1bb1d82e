"""How a text of unknown origin is shown on a page: whatever is invisible, or moves other text, is spelt out."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from itertools import groupby
from typing import NamedTuple

_SHORT = {" ": "␣", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_NAMES = {" ": "space", "\n": "line feed", "\r": "carriage return", "\t": "tab"}

# Default_Ignorable_Code_Point of Unicode's DerivedCoreProperties.txt, as far as the category does not tell, and
# U+2800, a pattern without dots.
_INVISIBLE = frozenset(
    (
        *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2800, 0x3164, 0xFFA0),
        *(*range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)),
    )
)
_DOTTED_CIRCLE = "◌"


class Part(NamedTuple):
    """A part of a text as it is shown.

    Args:
        text: What is shown.
        name: For a character that is spelt out what it is; empty for text that stands for itself.
    """

    text: str
    name: str = ""


def parts_of(text: str) -> tuple[Part, ...]:
    """Return a text as parts that are safe to show side by side."""
    return tuple(_parts(text))


def parts_of_prose(text: str) -> tuple[Part, ...]:
    """Return words about a token or a file as parts that are safe to show; their spaces stay spaces."""
    return tuple(Part(" ") if part.text == _SHORT[" "] and part.name else part for part in _parts(text))


def plain(text: str) -> str:
    """Return a text in one piece, for places that hold nothing else."""
    return "".join(part.text for part in parts_of_prose(text))


def _parts(text: str) -> Iterator[Part]:
    for hidden, letters in groupby(text, _hidden):
        if hidden:
            yield from map(_spelt, letters)
        else:
            shown = "".join(letters)
            # A mark without a letter before it would sit on what stands in front of the text.
            yield Part(_DOTTED_CIRCLE + shown if unicodedata.category(shown[0]).startswith("M") else shown)


def _hidden(letter: str) -> bool:
    return unicodedata.category(letter)[0] in "CZ" or ord(letter) in _INVISIBLE


def _spelt(letter: str) -> Part:
    code = f"U+{ord(letter):04X}"
    name = _NAMES.get(letter) or unicodedata.name(letter, "")
    return Part(_SHORT.get(letter, code), f"{code} {name}".rstrip())
