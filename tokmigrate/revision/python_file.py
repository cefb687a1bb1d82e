"""Reads what a Python migration says about itself without running any of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tokmigrate.errors import FileProblems, Problem
from tokmigrate.revision.migration import Migration
from tokmigrate.revision.yaml_file import (
    PythonHeader,
    build_migration,
    list_corpora,
    python_checksum,
    read_attachments,
    read_contents,
)
from tokmigrate.strict_yaml.reading import decode
from tokmigrate.strict_yaml.tree import Entry, Node, Plain, Tree


def python_migration(data: bytes, path: Path, shown: str, root: Path) -> Migration:
    """Return the migration that the bytes of a Python file are.

    Its module-level `revision`, `down_revision`, `message`, `author`, `models`, `init`, `preconditions`,
    `verify` and `files` have to be literals; `files` lists the files that its operations refer to. Arguments and
    errors are those of `yaml_migration`.
    """
    try:
        source = decode(data, shown)
        module = ast.parse(source, str(path))
    except SyntaxError as error:
        raise FileProblems([Problem(shown, error.lineno or 1, error.offset or 1, f"no Python: {error.msg}")]) from error
    except (ValueError, RecursionError, MemoryError) as error:
        raise FileProblems([Problem(shown, 1, 1, f"no Python: {error}")]) from error
    reading = _Literals(shown, source)
    tree = reading.constants(module)
    problems: list[Problem] = []
    header, body = read_contents(PythonHeader, tree, problems)
    problems += reading.problems
    problems += _upgrade_problems(module, shown)
    files = header.files if header else ()
    directories = [name for name in files if name.endswith("/")]
    references = [*((name, "files") for name in files), *list_corpora(body)]
    attachments = read_attachments(path, root, tree, references, problems, directories)
    if header is None or problems:
        raise FileProblems(problems)
    checksum = python_checksum(source, attachments)
    return replace(build_migration(header, body, data, path, shown, attachments, checksum), source=source)


def _upgrade_problems(module: ast.Module, shown: str) -> list[Problem]:
    found = [each for each in module.body if isinstance(each, ast.FunctionDef) and each.name == "upgrade"]
    if not found:
        return [
            Problem(shown, 1, 1, "there is no 'def upgrade(op)'", "write one that calls operations: op.add_tokens([…])")
        ]
    arguments = found[-1].args
    if len(arguments.posonlyargs) + len(arguments.args) == 1:
        return []
    return [Problem(shown, found[-1].lineno, 1, "upgrade takes one argument", "write 'def upgrade(op):'")]


class _Literals:
    def __init__(self, shown: str, source: str) -> None:
        self.shown = shown
        # The parser counts columns in bytes of UTF-8.
        self.lines = [line.encode("utf-8") for line in re.split(r"\r\n|\r|\n", source)]
        self.problems: list[Problem] = []

    def constants(self, module: ast.Module) -> Tree:
        entries: dict[str, Entry] = {}
        for target, value in find_assignments(module):
            if target.id not in PythonHeader.model_fields:
                continue
            if target.id in entries:
                self.fault(target, f"'{target.id}' is assigned twice")
                continue
            node = self.node(value) or Node(*self.place(value), "")
            entries[target.id] = Entry(*self.place(target), node)
        return Tree(self.shown, Node(1, 1, entries))

    def node(self, value: ast.expr) -> Node | None:
        """Return a literal as a node, or None with a problem noted."""
        place = self.place(value)
        match value:
            case ast.Constant(value=None):
                return Node(*place, Plain("null"))
            case ast.Constant(value=bool(flag)):
                return Node(*place, Plain(str(flag).lower()))
            case ast.Constant(value=str(text)):
                if any("\ud800" <= letter <= "\udfff" for letter in text):
                    self.fault(value, "half of a surrogate pair is not a character")
                return Node(*place, text)
            case ast.Constant(value=int() | float() as number):
                return Node(*place, Plain(repr(number)))
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as number)):
                return Node(*place, Plain(repr(-number)))
            case ast.List(elts=items) | ast.Tuple(elts=items):
                nodes = [self.node(item) for item in items]
                return Node(*place, tuple(node for node in nodes if node is not None))
            case ast.Dict(keys=keys, values=values):
                return Node(*place, self.entries(keys, values))
        self.fault(value, "this has to be a literal, because it is read without running the file")
        return None

    def entries(self, keys: list[ast.expr | None], values: list[ast.expr]) -> dict[str, Entry]:
        entries: dict[str, Entry] = {}
        for key, value in zip(keys, values, strict=True):
            node = self.node(value)
            if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
                self.fault(key or value, "a key has to be a text literal")
            elif key.value in entries:
                self.fault(key, f"key '{key.value}' appears twice")
            elif node is not None:
                entries[key.value] = Entry(*self.place(key), node)
        return entries

    def place(self, node: ast.expr) -> tuple[int, int]:
        before = self.lines[node.lineno - 1][: node.col_offset] if node.lineno <= len(self.lines) else b""
        return node.lineno, len(before.decode("utf-8", "replace")) + 1

    def fault(self, node: ast.expr, message: str) -> None:
        self.problems.append(Problem(self.shown, *self.place(node), message))


def find_assignments(module: ast.Module) -> Iterator[tuple[ast.Name, ast.expr]]:
    """Yield each module-level name that is assigned, with its value."""
    for statement in module.body:
        if isinstance(statement, ast.Assign):
            for target in statement.targets:
                if isinstance(target, ast.Name):
                    yield target, statement.value
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            yield statement.target, statement.value
