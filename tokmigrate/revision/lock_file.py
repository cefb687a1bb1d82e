"""The lock of a workspace on disk."""

from __future__ import annotations

import os
from pathlib import Path

from tokmigrate.errors import FileProblems, Problem, StorageError
from tokmigrate.files import read_if_present
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
        data = read_if_present(lock_path(workspace))
        return None if data is None else data.decode("utf-8")
    except (StorageError, UnicodeDecodeError) as error:
        reason = error.message if isinstance(error, StorageError) else "it is not UTF-8"
        raise FileProblems([Problem(lock_shown(workspace), 1, 1, f"cannot be read: {reason}", RESTORE)]) from error


def lock_files(workspace: Workspace, lock: Lock) -> Files:
    """Return what has to be written for the workspace to have this lock: nothing where it says the same already."""
    path = lock_path(workspace)
    data = lock_text(lock).encode("utf-8")
    # A checkout may have given it other line ends.
    held = read_if_present(path)
    if held is not None and held.replace(b"\r\n", b"\n") == data:
        return {}
    return {path: data}
