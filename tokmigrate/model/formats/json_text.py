"""JSON documents that keep the layout of their text when a value changes."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import chain, compress, islice
from typing import Any

from tokmigrate.errors import ModelError

MAX_DEPTH = 100

Json = Any
"""A value as the json module gives it."""


Parts = dict[int, tuple[Json, bytes]]
"""Large lists and dictionaries with their texts, by identity."""

_BLOCK = 4096
_PARTS = 4
_CONTAINERS = {dict, list}


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

    def encode(self, value: Json, parts: Parts | None = None) -> bytes:
        """Return `value` as text in this layout, as the json module writes it, in UTF-8.

        Args:
            parts: Texts of large parts of the values that were written with it before, which are not written again: the
                states of a tokenizer mostly share their vocabulary and merges. It is brought up to date.
        """
        written = BytesIO()
        parts = {} if parts is None else parts
        for piece in self._pieces(value, 0, parts):
            written.write(piece if isinstance(piece, bytes) else piece.encode("utf-8"))
        written.write(self.newline.encode("utf-8"))
        for stale in list(parts)[:-_PARTS]:
            del parts[stale]
        return written.getvalue()

    def _pieces(self, value: Json, level: int, parts: Parts) -> Iterator[str | bytes]:
        # The json module indents in Python, a call for each member. Its C code, which knows no levels, writes the
        # members of a container that holds no other, with the new line in the separator.
        if not isinstance(value, dict | list) or not value:
            yield self._dump(value, "")
            return
        members = _members(value)
        opening, closing = "{}" if isinstance(value, dict) else "[]"
        between = ("," if self.compact or self.indent is not None else ", ") + self._line(level + 1)
        lead = opening + self._line(level + 1)
        if _is_flat(members):
            for block in _blocks(value):
                yield lead + self._dump(block, between)[1:-1]
                lead = between
        elif {*map(type, members)} <= _CONTAINERS and all(members) and _is_flat(_inner_members(members)):
            for block in _blocks(value):
                yield lead + self._lines(block, level, between)
                lead = between
        else:
            for key, member in value.items() if isinstance(value, dict) else enumerate(value):
                name = "" if isinstance(value, list) else self._dump(key, "") + self._colon
                yield lead + name
                if isinstance(member, dict | list) and len(member) > _BLOCK:
                    # By identity: a state is never changed, and the entry holds it.
                    if id(member) not in parts:
                        parts[id(member)] = (member, self._part(member, level + 1))
                    parts[id(member)] = parts.pop(id(member))
                    yield parts[id(member)][1]
                else:
                    yield from self._pieces(member, level + 1, parts)
                lead = between
        yield self._line(level) + closing

    def _lines(self, block: Json, level: int, between: str) -> str:
        """Return the members of a container that hold no containers themselves, as they stand between its brackets."""
        # No JSON text holds these marks: strings escape them.
        text = "\2" + json.dumps(block, ensure_ascii=self.ascii, separators=(",\0", ":\1"))[1:-1] + ",\0"
        colon, first = self._colon, self._line(level + 2)
        for closing in "}]":
            text = text.replace(f"{closing},\0", f"{self._line(level + 1)}{closing}\2")
        for opening in "{[":
            text = text.replace(f":\1{opening}", f"{colon}{opening}{first}")
            text = text.replace(f"\2{opening}", f"\2{opening}{first}")
        text = text[1:-1].replace("\2", between).replace(":\1", colon)
        return text.replace(",\0", between + first[len(self._line(level + 1)) :])

    def _part(self, value: Json, level: int) -> bytes:
        pieces = self._pieces(value, level, {})
        return b"".join(piece if isinstance(piece, bytes) else piece.encode("utf-8") for piece in pieces)

    @property
    def _colon(self) -> str:
        return ":" if self.compact else ": "

    def _line(self, level: int) -> str:
        if self.indent is None:
            return ""
        return "\n" + (" " * self.indent if isinstance(self.indent, int) else self.indent) * level

    def _dump(self, value: Json, between: str) -> str:
        return json.dumps(value, ensure_ascii=self.ascii, separators=(between, self._colon))


def _members(value: Json) -> Iterable[Json]:
    return value.values() if isinstance(value, dict) else value


def _inner_members(members: Iterable[Json]) -> Iterator[Json]:
    """Return the members of lists and dictionaries; those of lists alone, as of merges, without a call for each."""
    return chain.from_iterable(map(_members, members) if dict in map(type, members) else members)


def _is_flat(members: Iterable[Json]) -> bool:
    return _CONTAINERS.isdisjoint(map(type, members))


def _blocks(value: Json) -> Iterator[Json]:
    """Yield a dictionary or list in parts, so that the C code never holds many pieces."""
    if isinstance(value, list):
        yield from (value[start : start + _BLOCK] for start in range(0, len(value), _BLOCK))
    else:
        members = iter(value.items())
        while block := dict(islice(members, _BLOCK)):
            yield block


def parse(text: str, where: str) -> Json:
    """Return the value of a JSON text.

    A name that occurs twice in an object is an error, and so is a text that is nested deeper than `MAX_DEPTH`: what
    walks through the value would fail there.
    """

    def unique(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
        found = dict(pairs)
        if len(found) < len(pairs):
            (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
            raise ModelError(f"the name '{name}' occurs twice in one object", where=where, hint="remove one")
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
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        # In C: a vocabulary and its merges have half a million members.
        level = list(compress(level, map(_CONTAINERS.__contains__, map(type, level))))
        if not level:
            return False
        dictionaries = [each for each in level if type(each) is dict]
        lists = (each for each in level if type(each) is list)
        level = list(chain(chain.from_iterable(map(dict.values, dictionaries)), chain.from_iterable(lists)))
    return True


def _too_deep(where: str) -> ModelError:
    return ModelError(f"nested deeper than {MAX_DEPTH} levels", where=where, hint="fetch the file again")


def walk(value: Json, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Json]]:
    """Yield a value and all that is inside it, each with its place."""
    yield path, value
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, inner in steps:
        yield from walk(inner, (*path, step))


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

    The path has names and list positions from the root; a name that is missing is added at the end.
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
