"""The lock of a workspace on disk."""

from __future__ import annotations

import os
from pathlib import Path

from tokmigrate.errors import FileProblems, Problem, StorageError
from tokmigrate.revision.history import History
from tokmigrate.revision.lock import FILE, Lock
from tokmigrate.revision.lock_text import RESTORE, lock_text, parse_lock
from tokmigrate.settings import Workspace


def lock_path(workspace: Workspace) -> Path:
    """Return where the lock of a workspace is."""
    return workspace.migrations / FILE


def lock_shown(workspace: Workspace) -> str:
    """Return the lock's name in messages."""
    return os.path.relpath(lock_path(workspace), workspace.root)


def read_lock(workspace: Workspace) -> Lock | None:
    """Return the workspace's lock, None where there is none; raises FileProblems for one that is not whole."""
    text = read_lock_text(workspace)
    return None if text is None else parse_lock(text, lock_shown(workspace))


def read_lock_text(workspace: Workspace) -> str | None:
    """Return the text of the lock, None where there is none; raises FileProblems for one that cannot be read."""
    try:
        return lock_path(workspace).read_bytes().decode("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise FileProblems([Problem(lock_shown(workspace), 1, 1, f"cannot be read: {reason}", RESTORE)]) from error


def lock_head(workspace: Workspace, known: Lock | None) -> bool:
    """Write down a new migration at the head, and return whether the lock had all that are before it.

    Args:
        workspace: The workspace.
        known: Its lock; None where it has none, and then the first migration begins one.
    """
    head = History.read(workspace).chain()[-1]
    lock = (known or Lock()).followed_by(head)
    if lock is None:
        return False
    write_lock(workspace, lock)
    return True


def write_lock(workspace: Workspace, lock: Lock) -> bool:
    """Write the workspace's lock, and return whether its text changed; raises StorageError where it cannot."""
    path = lock_path(workspace)
    text = lock_text(lock)
    try:
        # A checkout may have given it other line ends.
        if path.is_file() and path.read_bytes().decode("utf-8", "replace").replace("\r\n", "\n") == text:
            return False
        whole = path.with_name(f".{FILE}.new")
        whole.write_bytes(text.encode("utf-8"))
        whole.replace(path)
    except OSError as error:
        raise StorageError(f"the lock cannot be written: {error.strerror}", where=str(path)) from error
    return True
