"""What shall be written to the directory of the migrations, before it is, and the mark that it is being written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tokmigrate.errors import RecoveryNeededError, StorageError
from tokmigrate.files import exists
from tokmigrate.settings import Workspace

Files = Mapping[Path, bytes | None]
"""The bytes of files of one directory as they shall be, None for one that goes."""


def journal_path(workspace: Workspace) -> Path:
    """Return the file that is there while several files of the migrations are being written."""
    return workspace.root / ".tokmigrate" / "migrations.journal"


def refuse_unfinished(workspace: Workspace) -> None:
    """Raise RecoveryNeededError where a command was interrupted while it wrote files of the migrations."""
    if exists(journal_path(workspace)):
        raise RecoveryNeededError(
            "a command was interrupted while it wrote the migrations, and some of them are as before, some as after",
            where=str(workspace.migrations),
            hint="run `tokmigrate recover`, which finishes it",
        )


def refuse_taken(path: Path, files: Files) -> None:
    """Raise StorageError where a new file would take the place of one that is not among `files`."""
    if path not in files and exists(path):
        raise StorageError("a file with this name is there already", where=str(path), hint="rename it first")
