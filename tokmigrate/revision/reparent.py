"""Putting a migration after another one: only the value of its `down_revision` changes."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tokmigrate.errors import HistoryError
from tokmigrate.files import read_file
from tokmigrate.operations.base import DEFAULT_INIT, Footprint
from tokmigrate.revision.history import Files, History, refuse_taken
from tokmigrate.revision.migration import Migration
from tokmigrate.revision.yaml_file import file_number


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
                    _quote_yaml(key),
                    _index(event.start_mark),
                    _index(event.end_mark),
                    _quote_yaml(event),
                )
                key = None
    return spans, is_flow


def _index(mark: Any) -> int:
    # Its type says that there may be none: that holds only for events that were not read from a text.
    return int(mark.index)


def _quote_yaml(event: yaml.ScalarEvent) -> str:
    return event.style if event.style in ("'", '"') else ""


_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|\Z)")


@dataclass(frozen=True)
class Branch:
    """The migrations that only one head has, from the first to that head."""

    migrations: tuple[Migration, ...]

    @property
    def head(self) -> Migration:
        """The last."""
        return self.migrations[-1]

    @property
    def revisions(self) -> tuple[str, ...]:
        """Their ids."""
        return tuple(migration.revision for migration in self.migrations)


@dataclass(frozen=True)
class Reparented:
    """A migration with its new place.

    Args:
        migration: As it was.
        path: Its new file.
        text: The text of that file.
    """

    migration: Migration
    path: Path
    text: str


def branches(history: History) -> tuple[Branch, ...]:
    """Return what each head has alone, in the order of the heads."""
    lines = [history.lineage(head.revision) for head in history.heads]
    found: list[Branch] = []
    for line in lines:
        others = {each.revision for other in lines if other is not line for each in other}
        found.append(Branch(tuple(each for each in line if each.revision not in others)))
    return tuple(found)


def reparent_branch(branch: Branch, onto: Migration) -> tuple[Reparented, ...]:
    """Return the files of a branch after another migration; numbers in file names that are not higher follow.

    Args:
        branch: What is moved.
        onto: Its new down revision.
    """
    moved: list[Reparented] = []
    number = int(onto.number or 0)
    for place, migration in enumerate(branch.migrations):
        text = _text(migration)
        if place == 0:
            text = with_down_revision(text, migration.path.suffix, onto.revision)
        path = migration.path
        if migration.number:
            if int(migration.number) <= number:
                path = path.with_name(_renumber(path.name, number + 1))
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


def with_down_revision(text: str, suffix: str, down_revision: str | None) -> str:
    """Return the text of a migration that follows another one; comments, layout and quotes stay.

    Args:
        text: The text of a migration.
        suffix: How its file's name ends; `.py` for a Python migration.
        down_revision: What it follows, None for nothing.
    """
    if suffix == ".py":
        return _with_python_value(text, down_revision)
    return with_text(text, "down_revision", down_revision, after="revision")


def list_reparented_files(moved: Sequence[Reparented]) -> Files:
    """Return what has to be written; raises StorageError where a file is in the way."""
    leaving: Files = {each.migration.path: None for each in moved}
    for each in moved:
        refuse_taken(each.path, leaving)
    # A number that one leaves may be taken by another one.
    return {**leaving, **{each.path: each.text.encode("utf-8") for each in moved}}


def _text(migration: Migration) -> str:
    return read_file(migration.path).decode("utf-8")


def _renumber(name: str, number: int) -> str:
    digits = re.match(r"[0-9]*", name)
    width = len(digits[0]) if digits else 0
    return f"{number:0{width}d}{name[width:]}"


def _with_python_value(text: str, value: str | None) -> str:
    found = {target.id: node for target, node in _find_assignments(ast.parse(text))}
    word = "None" if value is None else value
    if "down_revision" in found:
        node = found["down_revision"]
        start, stop = _offset(text, node.lineno, node.col_offset), _offset(text, *_end(node))
        quote = re.search("['\"]", text[start:stop])
        return text[:start] + _quote(word, value, quote[0] if quote else '"') + text[stop:]
    line, _ = _end(found["revision"])
    lines = _lines(text)
    line_end = "\r\n" if lines[line - 1].endswith("\r\n") else "\n"
    before, after = "".join(lines[:line]), "".join(lines[line:])
    before = before if before.endswith(("\n", "\r")) else before + line_end
    return f"{before}down_revision = {_quote(word, value, chr(34))}{line_end}{after}"


def _quote(word: str, value: str | None, quote: str) -> str:
    return word if value is None else f"{quote}{word}{quote}"


def _find_assignments(module: ast.Module) -> list[tuple[ast.Name, ast.expr]]:
    found: list[tuple[ast.Name, ast.expr]] = []
    for statement in module.body:
        if isinstance(statement, ast.Assign):
            found += [(target, statement.value) for target in statement.targets if isinstance(target, ast.Name)]
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            found.append((statement.target, statement.value))
    return found


def _end(node: ast.expr) -> tuple[int, int]:
    return node.end_lineno or node.lineno, node.end_col_offset or node.col_offset


def _lines(text: str) -> list[str]:
    return [line for line in _LINE.findall(text) if line]


def _offset(text: str, line: int, column: int) -> int:
    """Return the offset in characters of a place that the parser gives in bytes of UTF-8."""
    lines = _lines(text)
    inside = lines[line - 1].encode("utf-8")[:column].decode("utf-8")
    return sum(map(len, lines[: line - 1])) + len(inside)


def find_conflicts(ours: Iterable[Migration], theirs: Iterable[Migration]) -> tuple[str, ...]:
    """Return in words what one of two branches writes and the other one reads or writes.

    Raises:
        HistoryError: What one of them does is known only for a given model.
    """
    return _footprint(ours).conflicts(_footprint(theirs))


def _footprint(migrations: Iterable[Migration]) -> Footprint:
    found = Footprint()
    for migration in migrations:
        found |= _of_migration(migration)
    return found


def _of_migration(migration: Migration) -> Footprint:
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
