"""What a text file holds, with the place of every value and every key."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tokmigrate.errors import Problem

Location = tuple[str | int, ...]
"""The keys and list positions that lead to a value."""

Value = Any
"""A text, or a list or a mapping of values."""


class Plain(str):
    """A text written without quotes."""

    __slots__ = ()


def is_null(value: object) -> bool:
    """Return whether `value` is an unquoted `null`, `~` or nothing at all."""
    return isinstance(value, Plain) and value in ("", "~", "null", "Null", "NULL")


@dataclass(frozen=True)
class Entry:
    """A value in a mapping, and the place of its key."""

    line: int
    column: int
    node: Node


@dataclass(frozen=True)
class Node:
    """A value and its place, both numbers counting from 1."""

    line: int
    column: int
    content: str | tuple[Node, ...] | Mapping[str, Entry]

    @cached_property
    def value(self) -> Value:
        if isinstance(self.content, str):
            return self.content
        if isinstance(self.content, tuple):
            return [node.value for node in self.content]
        return {key: entry.node.value for key, entry in self.content.items()}

    def child(self, step: str | int) -> Node | None:
        """Return what `step` leads to, or None."""
        if isinstance(self.content, tuple):
            return self.content[step] if isinstance(step, int) and 0 <= step < len(self.content) else None
        if isinstance(self.content, str):
            return None
        entry = self.content.get(str(step))
        return entry.node if entry else None

    def places(self) -> Iterator[tuple[str, int, int]]:
        """Yield every text and key in the value with its line and column, in the order of the file."""
        if isinstance(self.content, str):
            yield self.content, self.line, self.column
        elif isinstance(self.content, tuple):
            for node in self.content:
                yield from node.places()
        else:
            for key, entry in self.content.items():
                yield key, entry.line, entry.column
                yield from entry.node.places()


@dataclass(frozen=True)
class Tree:
    """A file, or a part of one, with the name that problems give it."""

    path: str
    root: Node

    @property
    def value(self) -> Value:
        return self.root.value

    def place(self, location: Location) -> tuple[int, int]:
        """Return line and column of the value at `location`, or of the nearest value around it."""
        node = self.root
        for step in location:
            inner = node.child(step)
            if inner is None:
                break
            node = inner
        return node.line, node.column

    def key_place(self, location: Location) -> tuple[int, int]:
        """Return line and column of the key that leads to `location`; of the value in a list."""
        if location:
            node = self.at(location[:-1]).root
            if isinstance(node.content, Mapping) and str(location[-1]) in node.content:
                entry = node.content[str(location[-1])]
                return entry.line, entry.column
        return self.place(location)

    def where(self, location: Location = ()) -> str:
        """Return the place of the value at `location` as `file:line:column`."""
        line, column = self.place(location)
        return f"{self.path}:{line}:{column}"

    def at(self, location: Location) -> Tree:
        """Return the part at `location`; raises KeyError where there is none."""
        node = self.root
        for step in location:
            inner = node.child(step)
            if inner is None:
                raise KeyError(location)
            node = inner
        return Tree(self.path, node)

    def under(self, key: str) -> Tree:
        """Return a mapping that holds this tree under `key`, for values written without their key."""
        line, column = self.root.line, self.root.column
        return Tree(self.path, Node(line, column, {key: Entry(line, column, self.root)}))

    def problem(self, location: Location, message: str, hint: str | None = None) -> Problem:
        """Return a fault of the value at `location`."""
        return Problem(self.path, *self.place(location), message, hint)

    def key_problem(self, location: Location, message: str, hint: str | None = None) -> Problem:
        """Return a fault of the key that leads to `location`."""
        return Problem(self.path, *self.key_place(location), message, hint)
