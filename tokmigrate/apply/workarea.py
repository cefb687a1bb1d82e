"""The directory beside a model in which a change of it is prepared.

PARENT/NAME                         the model
PARENT/.NAME.tokmigrate/lock        is never removed
PARENT/.NAME.tokmigrate/journal     a change is in progress; removed last
PARENT/.NAME.tokmigrate/stage       the candidate; after the swap, the model before
PARENT/.NAME.tokmigrate/aside       the model before, in the middle of a two-step swap
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokmigrate.apply.durable import temporary_path, write_durably
from tokmigrate.errors import RecoveryNeededError, StorageError
from tokmigrate.files import (
    WAYS_ROUND,
    exists,
    fsync_directory,
    has_directory,
    has_file,
    read_if_present,
    refuse_fixed,
    storage_errors,
)


@dataclass(frozen=True)
class WorkArea:
    """The paths beside a model directory, or a GGUF that changes with it; making this value touches nothing.

    `model` is its resolved path. Raises StorageError where that is a whole filesystem.
    """

    model: Path

    def __post_init__(self) -> None:
        resolved = Path(os.path.realpath(self.model))
        if not resolved.name:
            message = "is the root of a filesystem, so there is no place for the work area beside it"
            hint = "name the model directory"
            raise StorageError(message, where=str(resolved), hint=hint)
        object.__setattr__(self, "model", resolved)

    @property
    def root(self) -> Path:
        """The work area itself."""
        return self.model.parent / f".{self.model.name}.tokmigrate"

    @property
    def lock(self) -> Path:
        """The lock file, which is never removed."""
        return self.root / "lock"

    @property
    def stage(self) -> Path:
        """Where the candidate is built, and where the model before lies after the swap."""
        return self.root / "stage"

    @property
    def aside(self) -> Path:
        """Where a two-step swap keeps the model before."""
        return self.root / "aside"

    @property
    def journal(self) -> Path:
        """The file that records the change in progress."""
        return self.root / "journal"

    def create(self, *, of_file: bool = False) -> None:
        """Make the work area, if there is none; StorageError where the model or its parent may not be written.

        With `of_file` it may be that of a file, which is replaced and never written.
        """
        # A missing model is in the middle of a two-step swap; recovery finishes it.
        if os.path.lexists(self.model) and not (of_file and has_file(self.model)):
            if not has_directory(self.model):
                raise StorageError("is not a directory", where=str(self.model), hint="name the model directory")
            if not os.access(self.model, os.R_OK | os.W_OK | os.X_OK):
                message = "the model directory may not be written"
                raise StorageError(message, where=str(self.model), hint=WAYS_ROUND)
        refuse_fixed(self.model)
        if has_directory(self.root) and not self.root.is_symlink():
            return
        if os.path.lexists(self.root):
            raise StorageError("is in the way of the work area", where=str(self.root), hint="move it to another place")
        if exists(self.model.parent) and not os.access(self.model.parent, os.W_OK | os.X_OK):
            message = "may not be written, and a change is prepared there, beside the model"
            raise StorageError(message, where=str(self.model.parent), hint=WAYS_ROUND)
        with storage_errors("make the work area beside the model", self.root):
            self.root.mkdir(exist_ok=True)
        fsync_directory(self.root.parent)

    def write_journal(self, content: dict[str, Any]) -> None:
        """Write the journal durably, replacing the previous one."""
        text = json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True, allow_nan=False)
        write_durably(self.journal, f"{text}\n".encode())

    def read_journal(self) -> dict[str, Any] | None:
        """Return the journal; None if no change is in progress. Raises StorageError where it is damaged."""
        text = read_if_present(self.journal)
        if text is None:
            return None
        try:
            content = json.loads(text)
        except (ValueError, RecursionError):
            content = None
        if not isinstance(content, dict):
            raise self.damaged_journal_error()
        return content

    def damaged_journal_error(self) -> StorageError:
        """Return the error for a journal that nothing can be read off."""
        return StorageError(
            "the journal of an interrupted change is damaged",
            where=str(self.journal),
            hint=f"compare {self.stage} with the model, move both the stage and the journal away, "
            "then run `tokmigrate recover`",
        )

    def remove_journal(self) -> None:
        """Remove the journal durably; the stage must have been removed."""
        with storage_errors("remove the journal", self.journal):
            temporary_path(self.journal).unlink(missing_ok=True)
            self.journal.unlink(missing_ok=True)
        fsync_directory(self.root)

    def remove_stage(self) -> None:
        """Remove the stage, read-only directories included.

        Raises RecoveryNeededError where the model is not in its place, so that the stage may hold the only copy.
        """
        if not os.path.lexists(self.stage):
            return
        if os.path.lexists(self.aside) or not exists(self.model):
            message = "an interrupted swap may have left the only copy of the model here"
            hint = "run `tokmigrate recover`"
            raise RecoveryNeededError(message, where=str(self.root), hint=hint)
        remove_tree(self.stage)
        fsync_directory(self.root)


def remove_tree(path: Path) -> None:
    """Remove a file, or a directory with all that it holds, whatever the modes.

    Only directories are made writable for it: a file may be a hard link, whose mode other names share.
    """
    with storage_errors("remove it", path):
        if not stat.S_ISDIR(path.lstat().st_mode):
            path.unlink()
            return
        if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
            path.chmod(0o700)
        inner = sorted(path.iterdir())
    for entry in inner:
        remove_tree(entry)
    with storage_errors("remove it", path):
        path.rmdir()
