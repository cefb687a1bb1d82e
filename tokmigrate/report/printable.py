"""Texts of tokens as a terminal may show them."""

from __future__ import annotations


def quoted(text: str) -> str:
    """Return a token's text in quotes, with escapes for whatever moves the cursor, hides or looks like nothing."""
    escaped = "".join(letter if letter.isprintable() and letter not in '\\"' else _escape(letter) for letter in text)
    return f'"{escaped}"'


def _escape(letter: str) -> str:
    return f"\\{letter}" if letter in '\\"' else letter.encode("unicode_escape").decode()
