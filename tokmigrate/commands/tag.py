"""Names that a team gives to revisions."""

from __future__ import annotations

import re

from tokmigrate.errors import UnknownNameError, UsageError, suggest
from tokmigrate.revision.history import History
from tokmigrate.settings import Workspace
from tokmigrate.state.database import open_state, open_state_if_present

_NAME = re.compile(r"[A-Za-z][\w.-]*")


def list_tags(workspace: Workspace) -> dict[str, str]:
    """Return the revisions that tags stand for."""
    state = open_state_if_present(workspace.state, workspace.root)
    return state.all_tags() if state else {}


def set_tag(workspace: Workspace, name: str, revision: str) -> tuple[str, str | None]:
    """Set a tag to a revision, by any of its names; an existing tag is moved.

    Returns the revision, and another one that the tag stood for until now, if there was one. Raises UsageError where
    the name means something else already.
    """
    history = History.read(workspace)
    taken = name in ("head", "base") or any(each.revision.startswith(name) for each in history.migrations)
    if taken or not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot be a tag" + (": it names a revision already" if taken else ""),
            hint="choose another name"
            if taken
            else "a tag begins with a letter and has letters, digits, '.', '-' and '_', like v1.2-chat",
        )
    target = history.resolve(revision, None, list_tags(workspace))
    if target is None:
        hint = "name a migration: `tokmigrate history` lists them"
        raise UsageError("base is not a revision, and already has a name", where=name, hint=hint)
    before = open_state(workspace.state, workspace.root).set_tag(name, target)
    return target, before if before != target else None


def delete_tag(workspace: Workspace, name: str) -> str:
    """Take a tag away and return the revision that it stood for; raises UnknownNameError where there is none."""
    state = open_state_if_present(workspace.state, workspace.root)
    before = state.delete_tag(name) if state else None
    if before is None:
        hint = suggest(name, list_tags(workspace)) or "`tokmigrate tag` lists them"
        raise UnknownNameError(f"there is no tag '{name}'", hint=hint)
    return before
