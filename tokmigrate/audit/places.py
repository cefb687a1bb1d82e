"""Where a migration says what it does to a token: the file and the line."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tokmigrate.operations.add_role_tokens import AddRoleTokens
from tokmigrate.revision.migration import Migration
from tokmigrate.revision.planned import PlannedOperation
from tokmigrate.state.rows import Happened, TokenEvent
from tokmigrate.strict_yaml import Node, read

# What can do it; plug-ins are asked where none of these is there.
_DOING: Mapping[Happened, tuple[str, ...]] = {
    Happened.ADDED: ("add_tokens", "add_role_tokens"),
    Happened.RENAMED: ("rename_tokens",),
    Happened.MOVED: ("move_tokens", "remove_tokens"),
    Happened.REMOVED: ("remove_tokens",),
    Happened.REINITIALISED: ("reinit_tokens", "rename_tokens"),
}


@dataclass(frozen=True)
class Place:
    """Where something stands in a migration file.

    Args:
        path: The absolute path of the file.
        shown: The name that messages give it.
        line: The line, from 1; None where it is not known which one.
    """

    path: Path
    shown: str
    line: int | None

    def __str__(self) -> str:
        return self.shown if self.line is None else f"{self.shown}:{self.line}"


def place_of(migration: Migration, event: TokenEvent) -> Place:
    """Return where a migration does what an event tells of.

    That is the line with the text of the token; else the operation that alone can have done it.
    """
    texts = frozenset(text for text in (event.token, event.old_token) if text is not None)
    if migration.source is not None:
        return Place(migration.path, migration.shown, _line_of_python(migration.source, texts))
    return Place(migration.path, migration.shown, _line_of_yaml(migration, event, texts))


def _line_of_yaml(migration: Migration, event: TokenEvent, texts: frozenset[str]) -> int | None:
    numbered = list(enumerate(migration.operations))
    doing = _DOING.get(event.event, ())
    able = [each for each in numbered if each[1].operation.name in doing] or [
        each for each in numbered if not each[1].operation.name.startswith("set_")
    ]
    tree = read(migration.path, migration.shown)
    for number, _ in able:
        line = next(_lines(tree.at(("operations", number)).root, texts), None)
        if line is not None:
            return line
    if len(able) > 1:
        able = [each for each in able if _adds_roles(each[1], event.token)]
    if len(able) != 1:
        return None
    number, planned = able[0]
    return tree.key_place(("operations", number, planned.operation.name))[0]


def _lines(node: Node, texts: frozenset[str]) -> Iterator[int]:
    """Yield the lines on which one of the texts stands as a value or as a key."""
    if isinstance(node.content, str):
        if node.content in texts:
            yield node.line
    elif isinstance(node.content, tuple):
        for each in node.content:
            yield from _lines(each, texts)
    else:
        for key, entry in node.content.items():
            if key in texts:
                yield entry.line
            yield from _lines(entry.node, texts)


def _adds_roles(planned: PlannedOperation, token: str) -> bool:
    return isinstance(planned.operation, AddRoleTokens) and token in planned.operation.form().tokens


def _line_of_python(source: str, texts: frozenset[str]) -> int | None:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value in texts:
            return node.lineno
    found = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "upgrade")
    return next((node.lineno for node in found), None)
