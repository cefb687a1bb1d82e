"""Escape texts of unknown origin: characters that are invisible, move other text or control a terminal.

A page gets parts that it can mark (`escape_parts`), a terminal gets escapes (`escape`, `escape_quoted`), JSON its own.
Markdown gets the escapes of a terminal, with all that could be Markdown, HTML, a link or a mention in code spans.
"""

from __future__ import annotations

import json
import re
import unicodedata
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
_NOT_PLAIN = re.compile(r"[^\x20-\x7e\n]")
"""What may be hidden in a document: all but the letters of ASCII and the ends of lines."""

_WORD = re.compile(r"(?: {2,})?\S+(?: {2,}\S+)*(?: {2,})?| {2,}")
"""What single spaces separate: Markdown would make one of several, and code spans that touch are none."""

_PLAIN_WORD = re.compile(r"""["'(]*(?:[^\W_]+(?:[-'][^\W\d_]+)*|\d[\d,.]*\d|[→…%+-])["')]*[,.;:!?…]*""")
"""A word that means nothing in Markdown: no dot or colon inside, so that it is no link, and no other mark."""

_DOTTED_CIRCLE = "◌"


class Part(NamedTuple):
    """A part of a text as it is shown; a character that is spelt out has a name."""

    text: str
    name: str = ""


def escape_parts(text: str) -> tuple[Part, ...]:
    """Return a text as parts that are safe to show side by side."""
    parts: list[Part] = []
    for hidden, letters in groupby(text, _is_hidden):
        if hidden:
            parts += map(_spell, letters)
        else:
            plain = "".join(letters)
            # A mark without a letter before it would sit on what stands in front of the text.
            parts.append(Part(_DOTTED_CIRCLE + plain if unicodedata.category(plain[0]).startswith("M") else plain))
    return tuple(parts)


def escape_prose_parts(text: str) -> tuple[Part, ...]:
    """Return words about a token or a file as parts that are safe to show; their spaces stay spaces."""
    return tuple(Part(" ") if part.text == _SHORT[" "] and part.name else part for part in escape_parts(text))


def escape(text: str) -> str:
    """Return words of unknown origin for a terminal, in one line."""
    hidden = {letter for letter in text if letter != " " and _is_hidden(letter)}
    return text.translate({ord(letter): letter.encode("unicode_escape").decode() for letter in hidden})


def escape_quoted(token: str) -> str:
    """Return a token's text for a terminal, in quotes, so that it differs from any other."""
    return '"' + escape(token.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def escape_json(document: str) -> str:
    """Return a JSON document that means the same, in which nothing is invisible but its own white space."""
    return _NOT_PLAIN.sub(lambda found: json.dumps(found[0])[1:-1] if _is_hidden(found[0]) else found[0], document)


def escape_markdown(text: str) -> str:
    """Return words of unknown origin for Markdown, in one line; a word that might mean something is a code span."""
    return _WORD.sub(lambda word: word[0] if _PLAIN_WORD.fullmatch(word[0]) else _code_span(word[0]), escape(text))


def escape_markdown_code(text: str) -> str:
    """Return a name of unknown origin as a code span of Markdown; in a cell of a table `|` needs a backslash too."""
    return _code_span(escape(text))


def escape_markdown_quoted(token: str) -> str:
    """Return a token's text as a code span of Markdown, in quotes."""
    return _code_span(escape_quoted(token))


def _code_span(text: str) -> str:
    ticks = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    # One space at each end is not a part of a code span, unless there are only spaces.
    pad = " " if text.startswith("`") or text.endswith("`") or (text[0] == text[-1] == " " and text.strip()) else ""
    return f"{ticks}{pad}{text}{pad}{ticks}"


def escape_lines(lines: str) -> str:
    """Return lines as a terminal may get them: what ends a line stays."""
    return "\n".join(map(escape, lines.split("\n")))


def _is_hidden(letter: str) -> bool:
    return unicodedata.category(letter)[0] in "CZ" or ord(letter) in _INVISIBLE


def _spell(letter: str) -> Part:
    code = f"U+{ord(letter):04X}"
    name = _NAMES.get(letter) or unicodedata.name(letter, "")
    return Part(_SHORT.get(letter, code), f"{code} {name}".rstrip())
