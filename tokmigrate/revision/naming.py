"""The names by which a revision can be called, and new ids."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tokmigrate.errors import HistoryError, UnknownNameError, UsageError, nearest

if TYPE_CHECKING:
    from tokmigrate.revision.history import History

_RELATIVE = re.compile(r"[+-][0-9]+")
_SHORTEST_PREFIX_OF_DIGITS = 4


def new_revision_id() -> str:
    """Return a random revision id of 12 hexadecimal digits."""
    return secrets.token_hex(6)


def resolve(history: History, name: str, current: str | None, tags: Mapping[str, str | None]) -> str | None:
    """Return the id of the revision that `name` means; None for base.

    Args:
        history: All migrations.
        name: `head`, `base`, an id, a tag, a file number (`0003` or `3`), the beginning of an id, or a
            number of steps from `current` (`+2`, `-1`).
        current: The id of the revision that a model is at; None for base.
        tags: Revision ids by tag.

    Raises:
        UnknownNameError: Nothing has this name, or more than one thing.
        UsageError: The steps lead past the end.
        HistoryError: `head` or steps, where the history has several heads.
    """
    if name == "base":
        return None
    if name == "head":
        chain = history.chain()
        return chain[-1].revision if chain else None
    if _RELATIVE.fullmatch(name):
        return _stepped(history, int(name), current)
    if name in history.by_revision:
        return name
    if name in tags:
        return tags[name]
    found = _abbreviated(history, name)
    if len(found) == 1:
        return found[0]
    if found:
        told = ", ".join(f"{each} ({history.get(each).shown})" for each in found)
        raise UnknownNameError(f"'{name}' can mean any of {told}", hint="give more of the id")
    known = [*history.by_revision, *tags, "head", "base", *(each.number for each in history.migrations)]
    hint = nearest(name, known) or "'tokmigrate history' lists all revisions"
    raise UnknownNameError(f"no revision is called '{name}'", hint=hint)


def _abbreviated(history: History, name: str) -> list[str]:
    found: list[str] = []
    digits = re.fullmatch(r"[0-9]+", name) is not None
    for migration in history.migrations:
        by_number = digits and migration.number != "" and int(migration.number) == int(name)
        # A short number is the number of a file, even where an id happens to begin with it.
        by_prefix = name != "" and migration.revision.startswith(name)
        if by_number or (by_prefix and (not digits or len(name) >= _SHORTEST_PREFIX_OF_DIGITS)):
            found.append(migration.revision)
    return found


def _stepped(history: History, steps: int, current: str | None) -> str | None:
    revisions = [None, *(migration.revision for migration in history.chain())]
    if current not in revisions:
        raise HistoryError(
            f"the current revision '{current}' is not in the history",
            where=str(history.directory),
            hint="is its file missing? fetch it, or switch the branch",
        )
    position = revisions.index(current) + steps
    if not 0 <= position < len(revisions):
        room = len(revisions) - 1 - revisions.index(current) if steps > 0 else revisions.index(current)
        way = "after" if steps > 0 else "down to base from"
        raise UsageError(
            f"'{steps:+d}' leads past the {'head' if steps > 0 else 'base'}",
            hint=f"there are {room} revisions {way} '{current or 'base'}'",
        )
    return revisions[position]
