"""The lock of a workspace on disk."""

from __future__ import annotations

import os
from pathlib import Path

from tokmigrate.errors import FileProblems, Problem
from tokmigrate.revision.lock import FILE, Lock
from tokmigrate.revision.lock_text import RESTORE, lock_text, parse_lock
from tokmigrate.revision.rewriting import Files
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


def lock_files(workspace: Workspace, lock: Lock) -> Files:
    """Return what has to be written for the workspace to have this lock: nothing where it says the same already."""
    path = lock_path(workspace)
    data = lock_text(lock).encode("utf-8")
    # A checkout may have given it other line ends.
    if path.is_file() and path.read_bytes().replace(b"\r\n", b"\n") == data:
        return {}
    return {path: data}
