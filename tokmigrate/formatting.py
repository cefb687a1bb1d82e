"""How lists, numbers and sizes are written for people."""

from __future__ import annotations

from collections.abc import Sequence

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")


def format_list(items: Sequence[str], most: int = 3, separator: str = ", ") -> str:
    """Return the first of `items`, and how many more there are, as in `a, b, c and 4 more`."""
    shown = separator.join(items[:most])
    return shown if len(items) <= most else f"{shown} and {len(items) - most:,} more"


def format_quoted(texts: Sequence[str], most: int = 3) -> str:
    """Return the first of `texts` in quotes, and how many more there are."""
    return format_list([f"'{text}'" for text in texts], most)


def format_count(number: int, noun: str) -> str:
    """Return a number with its noun, as in `1 token` and `1,200 tokens`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def format_bytes(count: int) -> str:
    """Return `count` bytes in the largest unit of 1024 that leaves at least one, as in `1.5 GiB`."""
    power = 0
    while power + 1 < len(_UNITS) and count >= 1024 ** (power + 1):
        power += 1
    return f"{count / 1024**power:.1f} {_UNITS[power]}" if power else format_count(count, "byte")


def format_findings(errors: int, warnings: int) -> str:
    """Return how many errors and warnings there are."""
    counts = ((errors, "error"), (warnings, "warning"))
    return " and ".join(format_count(*each) for each in counts if each[0]) or "nothing found"
