"""From the text of a file to a tree, refusing the parts of YAML in which texts change their meaning."""

from __future__ import annotations

import codecs
import re
from pathlib import Path

import yaml

from tokmigrate.errors import FileProblems, Problem, StorageError
from tokmigrate.files import read_file
from tokmigrate.strict_yaml.tree import Entry, Node, Plain, Tree

MAX_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64
MAX_PROBLEMS = 100

_SURROGATE = re.compile("[\ud800-\udfff]")


def read(path: Path, shown: str | None = None) -> Tree:
    """Return the tree of a YAML file, which problems call `shown`; raises FileProblems as `parse` does."""
    name = shown or str(path)
    return parse(decode(read_bytes(path, name), name), name)


def read_bytes(path: Path, shown: str) -> bytes:
    """Return what a file holds, which problems call `shown`; raises FileProblems where it cannot be read."""
    try:
        return read_file(path)
    except StorageError as error:
        raise FileProblems([Problem(shown, 1, 1, error.message, error.hint)]) from error


def decode(data: bytes, path: str) -> str:
    """Return the text of a file that has to be UTF-8 without a byte order mark; raises FileProblems."""
    if len(data) > MAX_BYTES:
        message = f"larger than {MAX_BYTES // 2**20} MiB"
        raise FileProblems([Problem(path, 1, 1, message, "put long lists into files of their own")])
    if data.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        hint = "save the file as UTF-8 without BOM"
        raise FileProblems([Problem(path, 1, 1, "begins with a byte order mark", hint)])
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        place = _place(data[: error.start].decode("utf-8"))
        message = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise FileProblems([Problem(path, *place, message, "save the file as UTF-8")]) from error


def parse(text: str, path: str) -> Tree:
    """Return the tree of a YAML text, which problems give the name `path`.

    It is one document without anchors, aliases, tags and duplicate keys, nested at most 64 deep. Raises FileProblems
    with all faults, as far as it can be followed.
    """
    try:
        loader = yaml.SafeLoader(text)
    except yaml.reader.ReaderError as error:
        code = error.character if isinstance(error.character, int) else ord(error.character)
        hint = 'write it as an escape in double quotes, such as "\\x00"'
        message = f"character U+{code:04X} is not allowed"
        raise FileProblems([Problem(path, *_place(text[: error.position]), message, hint)]) from error
    reading = _follow_fast(text, path)
    if reading is None:
        reading = _Reading(path)
        _follow(loader, reading)
    loader.dispose()
    if reading.problems:
        raise FileProblems(reading.problems)
    return Tree(path, reading.root or Node(1, 1, Plain("")))


def _follow_fast(text: str, path: str) -> _Reading | None:
    """Read with libyaml, ten times as fast; None where it is missing or the text has any fault.

    The parser in Python then names the fault, with the same words on every machine.
    """
    if not yaml.__with_libyaml__ or _READ_OTHERWISE.search(text):
        return None
    reading = _Reading(path)
    loader = yaml.CSafeLoader(text)
    try:
        while event := loader.get_event():
            reading.take(event)
            if reading.problems or _is_read_otherwise(event):
                return None
    except (yaml.YAMLError, ValueError, OverflowError):
        return None
    finally:
        loader.dispose()
    return reading


def _follow(loader: yaml.SafeLoader, reading: _Reading) -> None:
    try:
        while loader.check_event():
            reading.take(loader.get_event())  # type: ignore[no-untyped-call]
            # PyYAML needs quadratic time for deep nesting, so that nothing is read beyond it.
            if reading.too_deep or len(reading.problems) >= MAX_PROBLEMS:
                return
    except yaml.reader.ReaderError as error:
        reading.problems.append(Problem(reading.path, 1, 1, str(error.reason)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark or loader.get_mark()
        what = ": ".join(part for part in (error.context, error.problem) if part)
        hint = "quote a text that begins with a special character or holds ': ' or ' #'"
        if "'\\t'" in what:
            what, hint = "a tab is not allowed here", "use spaces, not tabs"
        reading.problems.append(Problem(reading.path, mark.line + 1, mark.column + 1, what, hint))
    except (ValueError, OverflowError):
        # PyYAML hands an escape such as "\UFFFFFFFF" to chr() unchecked.
        mark = loader.get_mark()
        message = "an escape names no Unicode character"
        reading.problems.append(Problem(reading.path, mark.line + 1, mark.column + 1, message))


# libyaml takes tabs, byte order marks inside a text, and a comment right behind | or >.
_READ_OTHERWISE = re.compile(r"[\t\ufeff]|(?<!\S)[|>][-+0-9]*#")


def _is_read_otherwise(event: yaml.Event) -> bool:
    # libyaml ends a plain text in { } or [ ] elsewhere where it holds ?, and places empty values elsewhere.
    return isinstance(event, yaml.ScalarEvent) and not event.style and (not event.value or "?" in event.value)


class _Open:
    def __init__(self, event: yaml.NodeEvent) -> None:
        self.line, self.column = _start(event)
        self.is_mapping = isinstance(event, yaml.MappingStartEvent)
        self.nodes: list[Node] = []
        self.entries: dict[str, Entry] = {}
        self.key: Node | None = None

    def close(self) -> Node:
        return Node(self.line, self.column, self.entries if self.is_mapping else tuple(self.nodes))


class _Reading:
    """Builds the tree from events, so that no alias is ever expanded."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.problems: list[Problem] = []
        self.root: Node | None = None
        self.open: list[_Open] = []
        self.too_deep = False
        self.documents = 0

    def fault(self, event: yaml.Event, message: str, hint: str | None = None) -> None:
        self.problems.append(Problem(self.path, *_start(event), message, hint))

    def take(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.DocumentStartEvent):
            self.documents += 1
            if self.documents == 2:
                self.fault(event, "a second document begins here", "one file holds one document")
            if event.tags:
                self.fault(event, "%TAG directives are not allowed")
        elif isinstance(event, yaml.AliasEvent):
            self.fault(event, f"alias '*{event.anchor}' is not allowed", "repeat the value, or quote the text")
            self.put(Node(*_start(event), ""))
        elif isinstance(event, yaml.NodeEvent):
            self.take_node(event)
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            self.put(self.open.pop().close())

    def take_node(self, event: yaml.NodeEvent) -> None:
        if event.anchor is not None:
            self.fault(event, f"anchor '&{event.anchor}' is not allowed", "repeat the value, or quote the text")
        tag = getattr(event, "tag", None)
        if tag is not None:
            self.fault(event, f"tag '{tag}' is not allowed", "the fields have types; quote a text with '!'")
        if isinstance(event, yaml.ScalarEvent):
            if _SURROGATE.search(event.value):
                hint = r"write the character itself, or \U with eight digits"
                self.fault(event, "half of a surrogate pair is not a character", hint)
            text = Plain(event.value) if not event.style else str(event.value)
            self.put(Node(*_start(event), text))
        elif len(self.open) == MAX_DEPTH:
            self.fault(event, f"nested deeper than {MAX_DEPTH} levels")
            self.too_deep = True
        else:
            self.open.append(_Open(event))

    def put(self, node: Node) -> None:
        if not self.open:
            self.root = self.root or node
            return
        around = self.open[-1]
        if not around.is_mapping:
            around.nodes.append(node)
        elif around.key is None:
            around.key = node
            if not isinstance(node.content, str):
                self.problems.append(
                    Problem(self.path, node.line, node.column, "a key has to be text", "quote a text with [ or {")
                )
        else:
            self.add_entry(around, around.key, node)
            around.key = None

    def add_entry(self, around: _Open, key: Node, node: Node) -> None:
        if not isinstance(key.content, str):
            return
        name = str(key.content)
        if name in around.entries:
            first = around.entries[name]
            message = f"key '{name}' appears twice"
            hint = f"the first one is in line {first.line}, column {first.column}"
            self.problems.append(Problem(self.path, key.line, key.column, message, hint))
        else:
            around.entries[name] = Entry(key.line, key.column, node)


def _start(event: yaml.Event) -> tuple[int, int]:
    mark = event.start_mark
    return (mark.line + 1, mark.column + 1) if mark else (1, 1)


def _place(before: str) -> tuple[int, int]:
    """Return line and column of what follows `before`."""
    normal = before.replace("\r\n", "\n").replace("\r", "\n")
    return normal.count("\n") + 1, len(normal) - normal.rfind("\n")
