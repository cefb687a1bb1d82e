"""JSON documents that keep the layout of their text when a value changes."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from typing import Any

from tokmigrate.errors import ModelError

MAX_DEPTH = 100

Json = Any
"""A value as the json module gives it."""


_PIECES = 8192


@dataclass(frozen=True)
class Layout:
    """How a JSON text is laid out.

    Args:
        indent: Spaces for each level, `"\\t"`, or None for one line.
        ascii: Whether characters outside ASCII are escaped.
        compact: Whether there is no space after `,` and `:`.
        newline: What follows the last brace.
    """

    indent: int | str | None = 2
    ascii: bool = False
    compact: bool = False
    newline: str = "\n"

    def render(self, value: Json) -> str:
        """Return `value` as text in this layout."""
        separators = (",", ":") if self.compact else None
        text = json.dumps(value, indent=self.indent, ensure_ascii=self.ascii, separators=separators)
        return text + self.newline

    def encoded(self, value: Json) -> bytes:
        """Return what `render` does as UTF-8, without ever holding all of its pieces."""
        separators = (",", ":") if self.compact else None
        encoder = json.JSONEncoder(indent=self.indent, ensure_ascii=self.ascii, separators=separators)
        pieces = encoder.iterencode(value)
        written = BytesIO()
        while block := "".join(islice(pieces, _PIECES)):
            written.write(block.encode("utf-8"))
        written.write(self.newline.encode("utf-8"))
        return written.getvalue()


def parse(text: str, where: str) -> Json:
    """Return the value of a JSON text.

    A name that occurs twice in an object is an error, and so is a text that is nested deeper than `MAX_DEPTH`: what
    walks through the value would fail there.
    """

    def unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        found: dict[str, Json] = {}
        for name, value in pairs:
            if name in found:
                raise ModelError(f"the name '{name}' occurs twice in one object", where=where, hint="remove one")
            found[name] = value
        return found

    try:
        value = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise ModelError(
            f"not valid JSON: {error.msg.removesuffix(' at')}",
            where=f"{where}:{error.lineno}:{error.colno}",
            hint="fetch the file again, or restore it from a copy of the model",
        ) from error
    except RecursionError as error:
        raise _too_deep(where) from error
    if _is_deep(value):
        raise _too_deep(where)
    return value


def _is_deep(value: Json) -> bool:
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        members = (each.values() if isinstance(each, dict) else each for each in level)
        level = [inner for each in members for inner in each if isinstance(inner, dict | list)]
        if not level:
            return False
    return True


def _too_deep(where: str) -> ModelError:
    return ModelError(f"nested deeper than {MAX_DEPTH} levels", where=where, hint="fetch the file again")


def layout_of(text: str) -> Layout:
    """Return the layout that `text` shows, read off its first lines and its end."""
    body = text.rstrip()
    first = re.match(r"\s*[\[{]\r?\n([ \t]+)\S", text)
    white = first.group(1) if first else ""
    indent: int | str | None = None
    if first:
        indent = white if "\t" in white else len(white)
    return Layout(
        indent=indent,
        ascii=text.isascii() and "\\u" in text,
        compact=indent is None and '": ' not in text,
        newline=text[len(body) :],
    )


def replace_at(value: Json, path: tuple[str | int, ...], new: Json) -> Json:
    """Return `value` with `new` at `path`, copying only what lies on the path.

    Args:
        value: A JSON value; it is not changed.
        path: Names and list positions from the root; the last name may be missing and is then added at the end.
        new: What stands there afterwards.
    """
    if not path:
        return new
    head, rest = path[0], path[1:]
    if isinstance(value, list):
        if not isinstance(head, int):
            raise TypeError(f"a list has no member '{head}'")
        return [replace_at(item, rest, new) if position == head else item for position, item in enumerate(value)]
    changed = dict(value) if isinstance(value, dict) else {}
    changed[str(head)] = replace_at(changed.get(str(head)), rest, new)
    return changed
