"""The names by which a revision can be called, and new ids."""

from __future__ import annotations

import re
import secrets
import shlex
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokmigrate.errors import HistoryError, UnknownNameError, UsageError, suggest
from tokmigrate.revision.migration import Migration
from tokmigrate.revision.yaml_file import file_number

_RELATIVE = re.compile(r"[+-][0-9]+")
_BEFORE_ALL = ("0", "zero", "none", "empty")
"""What other tools call the state before the first migration."""


def new_revision_id() -> str:
    """Return a random revision id of 12 hexadecimal digits."""
    return secrets.token_hex(6)


@dataclass(frozen=True)
class RecordedName:
    """A migration that only the ledger has, by its revision and the name of its file."""

    revision: str
    shown: str

    @property
    def number(self) -> str:
        return file_number(Path(self.shown))


Named = Migration | RecordedName


def resolve(
    name: str,
    migrations: Sequence[Named],
    chain: Callable[[], Sequence[Named]],
    current: str | None,
    tags: Mapping[str, str | None],
    models: Collection[str] = (),
) -> str | None:
    """Return the id of the revision that `name` means; None for base.

    Args:
        name: `head`, `base`, an id, a tag, a file number (`0003` or `3`), the beginning of an id, or a
            number of steps from `current` (`+2`, `-1`).
        chain: Gives those from base to head, or raises HistoryError where there are several heads.
        models: The models of the workspace, which a user may take for revisions.

    Raises UnknownNameError where nothing has this name, or more than one thing; UsageError for steps past the end.
    """
    if name == "base":
        return None
    if name == "head":
        return next((each.revision for each in reversed(chain())), None)
    if _RELATIVE.fullmatch(name):
        return _follow_steps(int(name), chain(), current)
    if any(name == each.revision for each in migrations):
        return name
    if name in tags:
        return tags[name]
    found = [each for each in migrations if _is_short_for(name, each)]
    if len(found) == 1:
        return found[0].revision
    if found:
        matches = ", ".join(f"{each.revision} ({each.shown})" for each in found)
        raise UnknownNameError(f"'{name}' can mean any of {matches}", hint="give more of the id")
    message = f"no revision is called '{name}'"
    if name in models:
        raise UnknownNameError(f"{message}: it is a model", hint=f"name a model with -M: -M {shlex.quote(name)}")
    if name in _BEFORE_ALL:
        raise UnknownNameError(message, hint="what a model is before any migration is called 'base'")
    known = [word for each in migrations for word in (each.revision, each.number)]
    hint = suggest(name, [*known, *tags, "head", "base"]) or "'tokmigrate history' lists all revisions"
    raise UnknownNameError(message, hint=hint)


def _is_short_for(name: str, migration: Named) -> bool:
    if re.fullmatch(r"[0-9]+", name):
        if migration.number and int(migration.number) == int(name):
            return True
        # A short number is the number of a file, even where an id happens to begin with it.
        if len(name) < 4:
            return False
    return name != "" and migration.revision.startswith(name)


def _follow_steps(steps: int, chain: Sequence[Named], current: str | None) -> str | None:
    revisions = [None, *(migration.revision for migration in chain)]
    if current not in revisions:
        hint = "is its file missing? fetch it, or switch the branch"
        raise HistoryError(f"the current revision '{current}' is not in the history", hint=hint)
    here = revisions.index(current)
    if 0 <= here + steps < len(revisions):
        return revisions[here + steps]
    end, side, count, unit = ("head", "after", len(chain) - here, 1) if steps > 0 else ("base", "before", here, -1)
    possible = " to ".join(f"{number * unit:+d}" for number in sorted({1, count}))
    hint = f"give {possible}, or {end}" if count else f"there is no revision {side} it"
    raise UsageError(f"'{steps:+d}' leads past the {end}", hint=f"the model is at {current or 'base'}: {hint}")
