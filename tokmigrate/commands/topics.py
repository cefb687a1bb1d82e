"""The topics of `tokmigrate explain` that have a page: the package holds a part of the documentation."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokmigrate.errors import UnknownNameError, error_types, suggest

Kind = Literal["operation", "init strategy", "rule", "error", "exit code"]

_PACKAGE = Path(__file__).parents[1]
_FOLDERS: dict[str, Kind] = {
    "operations": "operation",
    "strategies": "init strategy",
    "rules": "rule",
    "errors": "error",
}
_EXIT_CODES = "troubleshooting.md"
_SECTION = re.compile(r"^## Exit code (\d+): .*?(?=^## |\Z)", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Topic:
    """What can be explained.

    Args:
        name: What it is called, and `other_name` what else it may be called.
        text: Its page in Markdown.
        page: The path of the page below `docs`; of an exit code with the beginning of its anchor.
    """

    name: str
    kind: Kind
    text: str
    page: str = ""
    other_name: str = ""


def read_topics() -> list[Topic]:
    """Return what has a page."""
    # A wheel has the pages that a source tree has in `docs`.
    folder = _PACKAGE / "pages"
    if not folder.is_dir():
        folder = _PACKAGE.parent / "docs"
    classes = {each.topic: each.__name__ for each in error_types()}
    topics = []
    for name, kind in _FOLDERS.items():
        for path in sorted((folder / name).glob("*.md")):
            text = path.read_text("utf-8")
            # The title of a rule is its code and its name.
            other = text.partition("\n")[0].partition(": ")[2] if kind == "rule" else classes.get(path.stem, "")
            topics.append(Topic(path.stem, kind, text, f"{name}/{path.name}", other))
    page = folder / _EXIT_CODES
    for section in _SECTION.finditer(page.read_text("utf-8") if page.is_file() else ""):
        anchor = f"exit-code-{section[1]}"
        topics.append(Topic(section[1], "exit code", section[0].removeprefix("#"), f"{_EXIT_CODES}#{anchor}", anchor))
    return topics


def find_topic(word: str, topics: Iterable[Topic]) -> Topic:
    """Return the first topic that a word names, whatever its case and punctuation; raises UnknownNameError."""
    wanted, known = _simplify(word), []
    for topic in topics:
        names = [name for name in (topic.name, topic.other_name) if name]
        if wanted in map(_simplify, names):
            return topic
        known += names
    near = suggest(word, known) or suggest(word.upper(), known)
    hint = "`tokmigrate explain` lists what can be explained"
    raise UnknownNameError(f"no topic is called '{word}'", hint=f"{near} {hint}" if near else hint)


def _simplify(name: str) -> str:
    return re.sub(r"[-_ ]|error$", "", name.lower())
