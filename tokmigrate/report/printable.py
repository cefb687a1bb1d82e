"""Texts of tokens, paths and messages as a terminal may show them."""

from __future__ import annotations


def shown(text: str) -> str:
    """Return a text with escapes for whatever moves the cursor, hides, or breaks the line."""
    return "".join(letter if letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)


def quoted(text: str) -> str:
    """Return a token's text in quotes, such that it can be told from any other."""
    return '"' + shown(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'
