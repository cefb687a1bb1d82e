"""Changing one value of a YAML text, and not a letter besides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import yaml


@dataclass(frozen=True)
class Span:
    """Where a key and its value stand in a text, as offsets in characters.

    Args:
        key: Where the key begins.
        key_quote: The quote around the key, or nothing.
        start: Where the value begins.
        stop: Where it ends.
        quote: The quote around the value, or nothing.
    """

    key: int
    key_quote: str
    start: int
    stop: int
    quote: str


def with_text(text: str, key: str, value: str | None, after: str) -> str:
    """Return a YAML text in which the top-level `key` has another value; comments, layout and quotes stay.

    Args:
        text: A text that `parse` takes, whose outermost value is a mapping.
        key: The key, whose value is a text.
        value: The new one of letters, digits and `_`, or None for `null`.
        after: The key behind whose value it is put where it is not there yet.
    """
    spans, is_flow = _spans(text)
    beside = spans[after]
    if key in spans:
        found = spans[key]
        word = _word(value, found.quote or beside.quote)
        # Nothing stands behind `key:`, not even a space.
        space = " " if found.start == found.stop and not text[found.start - 1].isspace() else ""
        return text[: found.start] + space + word + text[found.stop :]
    entry = f"{beside.key_quote}{key}{beside.key_quote}: {_word(value, beside.quote)}"
    if is_flow:
        return f"{text[: beside.stop]}, {entry}{text[beside.stop :]}"
    line_end = "\r\n" if "\r\n" in text else "\n"
    stop = text.find("\n", beside.stop)
    indent = text[text.rfind("\n", 0, beside.key) + 1 : beside.key]
    if stop < 0:
        return f"{text}{line_end}{indent}{entry}{line_end}"
    return f"{text[: stop + 1]}{indent}{entry}{line_end}{text[stop + 1 :]}"


def _word(value: str | None, quote: str) -> str:
    if value is None:
        return "null"
    # What an editor would take for a number or a truth value is better quoted.
    plain = not quote and yaml.safe_load(value) == value
    return value if plain else f"{quote or chr(34)}{value}{quote or chr(34)}"


def _spans(text: str) -> tuple[dict[str, Span], bool]:
    """Return the keys of the outermost mapping whose values are texts, and whether it is written in braces."""
    spans: dict[str, Span] = {}
    depth = 0
    is_flow = False
    key: yaml.ScalarEvent | None = None
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth == 1:
                is_flow = bool(event.flow_style)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
            key = None if depth == 1 else key
        elif isinstance(event, yaml.ScalarEvent) and depth == 1:
            if key is None:
                key = event
            else:
                spans[key.value] = Span(
                    _index(key.start_mark),
                    _quote(key),
                    _index(event.start_mark),
                    _index(event.end_mark),
                    _quote(event),
                )
                key = None
    return spans, is_flow


def _index(mark: Any) -> int:
    # Its type says that there may be none: that holds only for events that were not read from a text.
    return int(mark.index)


def _quote(event: yaml.ScalarEvent) -> str:
    return event.style if event.style in ("'", '"') else ""
