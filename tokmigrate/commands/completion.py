"""The names of models, revisions and tags, read quickly for a shell that completes a word: nothing is checked."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from tokmigrate.files import exists
from tokmigrate.settings import Workspace

Proposal = tuple[str, str]
"""A word, and what it stands for."""

_FIELD = re.compile(r"""(revision|message)\s*[:=]\s*(["']?)(.*?)\2\s*(?:#.*)?$""")


def propose_models(workspace: Workspace) -> Iterator[Proposal]:
    """Yield each model of the workspace, with its directory."""
    yield from ((name, str(entry.path)) for name, entry in workspace.models.items())


def propose_revisions(workspace: Workspace) -> Iterator[Proposal]:
    """Yield what a revision may be called: its position, its number, its id, a tag; with its message."""
    yield from (("head", "the last migration"), ("base", "before any migration"))
    yield from propose_tags(workspace)
    for path in sorted(workspace.migrations.glob("[!._]*")):
        if path.suffix not in (".yaml", ".yml", ".py"):
            continue
        with path.open(encoding="utf-8") as file:
            fields = {found[1]: found[3] for line in islice(file, 40) if (found := _FIELD.match(line))}
        number = re.match(r"\d*", path.name)
        for name in (number and number[0], fields.get("revision")):
            if name:
                yield name, fields.get("message", "")


def propose_tags(workspace: Workspace) -> Iterator[Proposal]:
    """Yield each tag with its revision, where the state is a SQLite file; importing SQLAlchemy takes too long here."""
    found = re.match(r"sqlite:///([^?]+)", workspace.state)
    if not found or not exists(Path(found[1])):
        return
    with closing(sqlite3.connect(f"file:{found[1]}?mode=ro", uri=True, timeout=0.2)) as database:
        yield from database.execute("SELECT name, revision FROM tags ORDER BY name")
