"""Which file `edit` opens."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tokmigrate.errors import FileProblems, HistoryError, UnknownNameError
from tokmigrate.files import has_file, read_file
from tokmigrate.revision.contents import file_number
from tokmigrate.revision.history import History, migration_files
from tokmigrate.runner.tags import known_tags
from tokmigrate.runner.team.whereabouts import applied_where, refuse_applied
from tokmigrate.settings import Workspace

_REVISION = re.compile(r"""^["'{ ]*revision["']?\s*[:=]\s*["']?([0-9a-z_]{4,40})""", re.MULTILINE)


@dataclass(frozen=True)
class Editable:
    """A migration that no model has yet.

    Args:
        revision: Its id; None where the file does not say it.
        path: Its file.
    """

    revision: str | None
    path: Path


def editable(workspace: Workspace, name: str) -> Editable:
    """Return the migration that `name` means; one that cannot be read is found by its number or its id.

    Raises:
        UnknownNameError: Nothing has this name.
        HistoryError: A model has the migration.
    """
    where = applied_where(workspace)
    try:
        history = History.read_forked(workspace)
    except FileProblems:
        broken = _by_its_text(workspace, name)
        if broken is None:
            raise
        if broken.revision in where:
            raise HistoryError(
                f"{broken.revision} cannot be edited: {', '.join(where[broken.revision])} has it",
                where=str(broken.path),
                hint="put the file back as it was",
            ) from None
        return broken
    revision = history.resolve(name, None, known_tags(workspace))
    if revision is None:
        raise UnknownNameError("there is no file of base", hint="`tokmigrate history` lists all migrations")
    migration = history.get(revision)
    refuse_applied([migration], where, "edited")
    return Editable(revision, migration.path)


def _by_its_text(workspace: Workspace, name: str) -> Editable | None:
    """Return the one file that has this number or id, None where it is not exactly one."""
    found: list[Editable] = []
    for path in filter(has_file, migration_files(workspace)):
        said = _REVISION.search(read_file(path).decode("utf-8", "replace"))
        revision = said[1] if said else None
        number = file_number(path)
        if revision == name or (name.isdecimal() and number and int(number) == int(name)):
            found.append(Editable(revision, path))
    return found[0] if len(found) == 1 else None
