"""Placeholders that hold the ids of removed tokens."""

from __future__ import annotations

import re


def tombstone(number: int) -> str:
    """Return the text of the placeholder for an id."""
    return f"<|removed_{number}|>"


def is_tombstone(content: str) -> bool:
    """Return whether a token is a placeholder."""
    return re.fullmatch(r"<\|removed_\d+\|>", content) is not None
