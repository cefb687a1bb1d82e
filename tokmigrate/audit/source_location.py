"""Where a migration says what it does to a token: the file and the line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokmigrate.operations.base import TokenChanges
from tokmigrate.revision.migration import Migration
from tokmigrate.state.rows import TokenEvent, TokenEventType
from tokmigrate.strict_yaml import Node, read


@dataclass(frozen=True)
class SourceLocation:
    """Where something stands in a migration file.

    Args:
        path: The absolute path of the file.
        shown: The name that messages give it.
        line: The line, from 1; None where it is not known which one.
        does: What the operation there does, in a few words; None where it is not known which one.
    """

    path: Path
    shown: str
    line: int | None
    does: str | None = None

    def __str__(self) -> str:
        return self.shown if self.line is None else f"{self.shown}:{self.line}"


def locate_event(migration: Migration, event: TokenEvent) -> SourceLocation:
    """Return where a migration does what an event records.

    That is the line with the text of the token; else the operation that alone can have done it.
    """
    texts = frozenset(text for text in (event.token, event.old_token) if text is not None)
    if migration.source is not None:
        return SourceLocation(migration.path, migration.shown, _line_of_python(migration.source, texts))
    operations = [planned.operation for planned in migration.operations]
    changes = [operation.token_changes() for operation in operations]
    # An operation that does not say what it does to tokens may have done it.
    able = (
        [number for number, each in enumerate(changes) if each and event.token in _tokens(each, event.event)]
        or [number for number, each in enumerate(changes) if each is None or _tokens(each, event.event)]
        or [number for number, each in enumerate(changes) if each is None or not each.keeps_tokens]
    )
    tree = read(migration.path, migration.shown)
    lines = {number: next(_lines(tree.at(("operations", number)).root, texts), None) for number in able}
    found = [number for number in able if lines[number] is not None] or (able if len(able) == 1 else [])
    if not found:
        return SourceLocation(migration.path, migration.shown, None)
    operation = operations[found[0]]
    line = lines[found[0]] or tree.key_place(("operations", found[0], operation.name))[0]
    return SourceLocation(migration.path, migration.shown, line, operation.describe())


def _tokens(changes: TokenChanges, event: TokenEventType) -> tuple[str, ...]:
    """Return the tokens to which an operation does what an event records."""
    match event:
        case TokenEventType.ADDED:
            return tuple(token.content for token in changes.added)
        case TokenEventType.RENAMED:
            return tuple(changes.renamed.values())
        case TokenEventType.MOVED:
            return (*changes.moved, *changes.removed)
        case TokenEventType.REMOVED:
            return changes.removed
        case TokenEventType.REINITIALISED:
            return changes.reinitialised
    return ()


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


def _line_of_python(source: str, texts: frozenset[str]) -> int | None:
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and node.value in texts:
            return node.lineno
    found = (node for node in ast.parse(source).body if isinstance(node, ast.FunctionDef) and node.name == "upgrade")
    return next((node.lineno for node in found), None)
