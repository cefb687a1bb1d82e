"""Names that a team gives to revisions."""

from __future__ import annotations

import re

from tokmigrate.errors import UsageError
from tokmigrate.revision.history import History
from tokmigrate.settings import Workspace
from tokmigrate.state.database import open_state, open_state_if_present

_NAME = re.compile(r"[A-Za-z][\w.-]*")


def known_tags(workspace: Workspace) -> dict[str, str]:
    """Return the revisions that tags stand for."""
    state = open_state_if_present(workspace.state, workspace.root)
    return state.all_tags() if state else {}


def set_tag(workspace: Workspace, name: str, revision: str) -> str:
    """Let a tag stand for a revision from now on, and return that revision's id.

    Args:
        workspace: The workspace.
        name: The tag.
        revision: The revision by any of its names.

    Raises:
        UsageError: The name means something else already.
        UnknownNameError: There is no such revision.
    """
    history = History.read(workspace)
    known = [migration.revision for migration in history.migrations]
    taken = name in ("head", "base") or any(each.startswith(name) for each in known)
    if taken or not _NAME.fullmatch(name):
        raise UsageError(
            f"'{name}' cannot be a tag" + (": it names a revision already" if taken else ""),
            hint="a tag begins with a letter and has letters, digits, '.', '-' and '_', like v1.2-chat",
        )
    target = history.resolve(revision, None, known_tags(workspace))
    if target is None:
        raise UsageError("base is no revision, and has that name already", where=name)
    open_state(workspace.state, workspace.root).set_tag(name, target)
    return target
