"""Putting a migration after another one: only the value of its `down_revision` changes."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

import yaml

from tokmigrate.errors import HistoryError
from tokmigrate.files import read_file
from tokmigrate.operations.operation import DEFAULT_INIT, Footprint
from tokmigrate.revision.history import Files, History, refuse_taken
from tokmigrate.revision.migration import Migration
from tokmigrate.revision.python_file import find_assignments
from tokmigrate.revision.yaml_file import file_number

_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")


@dataclass(frozen=True)
class Branch:
    """The migrations that only one head has, from the first to that head."""

    migrations: tuple[Migration, ...]

    @property
    def head(self) -> Migration:
        return self.migrations[-1]

    @property
    def revisions(self) -> tuple[str, ...]:
        return tuple(migration.revision for migration in self.migrations)


@dataclass(frozen=True)
class Reparented:
    """A migration as it was, with its new file and the text of that."""

    migration: Migration
    path: Path
    text: str


def branches(history: History) -> tuple[Branch, ...]:
    """Return what each head has alone, in the order of the heads."""
    lines = [history.lineage(head.revision) for head in history.heads]
    times = Counter(each.revision for line in lines for each in line)
    return tuple(Branch(tuple(each for each in line if times[each.revision] == 1)) for line in lines)


def reparent_branch(branch: Branch, onto: Migration) -> tuple[Reparented, ...]:
    """Return the files of a branch after another migration; numbers in file names that are not higher follow."""
    moved: list[Reparented] = []
    number = int(onto.number or 0)
    for place, migration in enumerate(branch.migrations):
        text = read_file(migration.path).decode("utf-8")
        if place == 0:
            text = with_down_revision(text, migration.path.suffix, onto.revision)
        path = migration.path
        if migration.number:
            if int(migration.number) <= number:
                width = len(migration.number)
                path = path.with_name(f"{number + 1:0{width}d}{path.name[width:]}")
            number = int(file_number(path))
        moved.append(Reparented(migration, path, text))
    return tuple(moved)


def renumber_files(chain: Sequence[Migration]) -> tuple[Reparented, ...]:
    """Return the files from the first on whose number an earlier one has; none where each has a number of its own."""
    for place, migration in enumerate(chain):
        taken = {int(each.number) for each in chain[:place] if each.number}
        # One of six digits or more is a date, and a day may have several.
        if migration.number and len(migration.number) < 6 and int(migration.number) in taken:
            behind = reparent_branch(Branch(tuple(chain[place:])), chain[place - 1])
            return tuple(each for each in behind if each.path != each.migration.path)
    return ()


def list_reparented_files(moved: Sequence[Reparented]) -> Files:
    """Return what has to be written; raises StorageError where a file is in the way."""
    leaving: Files = {each.migration.path: None for each in moved}
    for each in moved:
        refuse_taken(each.path, leaving)
    # A number that one leaves may be taken by another one.
    return {**leaving, **{each.path: each.text.encode("utf-8") for each in moved}}


def with_down_revision(text: str, suffix: str, down_revision: str | None) -> str:
    """Return the text of a migration file with this suffix that follows another; comments, layout and quotes stay."""
    return (_with_python_value if suffix == ".py" else _with_yaml_value)(text, down_revision)


def _with_yaml_value(text: str, value: str | None) -> str:
    root: Any = yaml.compose(text, Loader=yaml.SafeLoader)
    keys = {key.value: (key, held) for key, held in root.value}
    key, beside = keys["revision"]
    if "down_revision" in keys:
        held = keys["down_revision"][1]
        start, stop = held.start_mark.index, held.end_mark.index
        # Nothing stands behind `down_revision:`, not even a space.
        space = " " if start == stop and not text[start - 1].isspace() else ""
        return text[:start] + space + _quote_yaml(value, _quote_of(held) or _quote_of(beside)) + text[stop:]
    name, behind = _quote_of(key), beside.end_mark.index
    entry = f"{name}down_revision{name}: {_quote_yaml(value, _quote_of(beside))}"
    if root.flow_style:
        return f"{text[:behind]}, {entry}{text[behind:]}"
    line_end = "\r\n" if "\r\n" in text else "\n"
    stop = text.find("\n", behind)
    indent = " " * key.start_mark.column
    if stop < 0:
        return f"{text}{line_end}{indent}{entry}{line_end}"
    return f"{text[: stop + 1]}{indent}{entry}{line_end}{text[stop + 1 :]}"


def _quote_of(node: yaml.ScalarNode) -> str:
    return node.style if node.style in ("'", '"') else ""


def _quote_yaml(value: str | None, quote: str) -> str:
    if value is None:
        return "null"
    # What an editor would take for a number or a truth value is better quoted.
    plain = not quote and yaml.safe_load(value) == value
    return value if plain else f"{quote or chr(34)}{value}{quote or chr(34)}"


def _with_python_value(text: str, value: str | None) -> str:
    found = {target.id: node for target, node in find_assignments(ast.parse(text))}
    lines = _LINE.findall(text)
    if "down_revision" in found:
        node = found["down_revision"]
        start, stop = _offset(lines, node.lineno, node.col_offset), _offset(lines, *_end(node))
        quote = re.search("['\"]", text[start:stop])
        return text[:start] + _quote_python(value, quote[0] if quote else '"') + text[stop:]
    line, _ = _end(found["revision"])
    line_end = "\r\n" if lines[line - 1].endswith("\r\n") else "\n"
    before, after = "".join(lines[:line]), "".join(lines[line:])
    before = before if before.endswith(("\n", "\r")) else before + line_end
    return f"{before}down_revision = {_quote_python(value, chr(34))}{line_end}{after}"


def _quote_python(value: str | None, quote: str) -> str:
    return "None" if value is None else f"{quote}{value}{quote}"


def _end(node: ast.expr) -> tuple[int, int]:
    return node.end_lineno or node.lineno, node.end_col_offset or node.col_offset


def _offset(lines: Sequence[str], line: int, column: int) -> int:
    """Return the offset in characters of a place that the parser gives in bytes of UTF-8."""
    inside = lines[line - 1].encode("utf-8")[:column].decode("utf-8")
    return sum(map(len, lines[: line - 1])) + len(inside)


def find_conflicts(ours: Iterable[Migration], theirs: Iterable[Migration]) -> tuple[str, ...]:
    """Return in words what one of two branches writes and the other one reads or writes.

    Raises HistoryError where what one of them does is known only for a given model.
    """
    first, second = (reduce(or_, map(_footprint, branch), Footprint()) for branch in (ours, theirs))
    return first.conflicts(second)


def _footprint(migration: Migration) -> Footprint:
    if migration.source is not None:
        raise _unknown("what a Python migration does is known only for a given model", migration.shown)
    found = Footprint()
    for planned in migration.operations:
        footprint = planned.operation.footprint()
        if footprint is None:
            raise _unknown(f"what {planned.operation.name} reads and writes is not known", planned.place)
        found |= footprint
    # A default of the file's own takes the place of what an earlier migration left.
    return Footprint(found.writes, found.reads - {DEFAULT_INIT}) if migration.init else found


def _unknown(message: str, where: str) -> HistoryError:
    hint = "look at both, and if one may follow the other, `tokmigrate rebase` lets it"
    return HistoryError(message, where=where, hint=hint)
