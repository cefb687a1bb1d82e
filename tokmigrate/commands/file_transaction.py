"""File transactions: several files of the migrations are written together or not at all.

The journal in `.tokmigrate/` first gets the whole text of each file. From then on the files can be written again from
it whenever the process dies.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blake3 import blake3
from pydantic import BaseModel, ConfigDict

from tokmigrate.apply.durable import NotDurableError, remove_durably, temporary_path, write_durably
from tokmigrate.apply.file_metadata import read_metadata
from tokmigrate.apply.lock import hold_lock
from tokmigrate.apply.publish import RecoveryOutcome
from tokmigrate.errors import BusyError, RecoveryNeededError, StorageError, TokmigrateError
from tokmigrate.files import entries, exists, has_directory, read_if_present, storage_errors
from tokmigrate.formats import MIGRATIONS_JOURNAL, check_version
from tokmigrate.revision.history import Files, is_migration, journal_path, refuse_unfinished
from tokmigrate.revision.lock_file import lock_path
from tokmigrate.settings import Workspace
from tokmigrate.signals import defer_signals


class FileTransaction(BaseModel):
    """By name the digest of each file as it was, and its new text, as the journal holds them; None for no file."""

    model_config = ConfigDict(strict=True)

    format: int
    before: dict[str, str | None]
    after: dict[str, str | None]


def write_files(workspace: Workspace, files: Files) -> None:
    """Write files of the migrations together; BusyError where another process writes them.

    Raises StorageError where nothing was written, RecoveryNeededError where `finish_writing` has to write the rest.
    """
    changed = {path: data for path, data in files.items() if read_if_present(path) != data}
    if len(changed) < 2:
        # One file alone is replaced by a rename, and needs no journal.
        with suppress(NotDurableError), defer_signals():
            for path, data in changed.items():
                _write(workspace, path, data)
        return
    journal = journal_path(workspace)
    with defer_signals(), _alone(workspace):
        refuse_unfinished(workspace)
        transaction = FileTransaction(
            format=MIGRATIONS_JOURNAL.version,
            before={path.name: _digest(read_if_present(path)) for path in changed},
            after={path.name: None if data is None else data.decode("utf-8") for path, data in changed.items()},
        )
        try:
            write_durably(journal, (transaction.model_dump_json(indent=2) + "\n").encode("utf-8"))
            _write_all(workspace, transaction)
            _forget(journal)
        except TokmigrateError as error:
            if not exists(journal):
                raise
            message = f"the migrations could not be written to the end: {error.message}"
            hint = "run `tokmigrate recover`, which finishes it"
            raise RecoveryNeededError(message, where=error.where, hint=hint) from error


def finish_writing(workspace: Workspace) -> RecoveryOutcome:
    """Finish an interrupted transaction: write the rest if something was written, else drop it.

    Raises RecoveryNeededError where a file has neither its old nor its new contents, StorageError where a file cannot
    be written or the journal is damaged.
    """
    journal = journal_path(workspace)
    if not exists(journal) and not any(_find_unfinished(workspace)):
        return RecoveryOutcome.NOTHING
    with defer_signals(), _alone(workspace):
        for path in _find_unfinished(workspace):
            _remove(path)
        transaction = _read_journal(journal)
        if transaction is None:
            return RecoveryOutcome.NOTHING
        standing = {name: _digest(read_if_present(workspace.migrations / name)) for name in transaction.after}
        for name, text in transaction.after.items():
            if standing[name] not in (transaction.before[name], _digest(_encode(text))):
                message = "it was changed after a command that was to write it was interrupted"
                hint = f"put it back as it was; or remove {journal} to keep all files as they are now"
                raise RecoveryNeededError(message, where=str(workspace.migrations / name), hint=hint)
        found = RecoveryOutcome.BEFORE if standing == transaction.before else RecoveryOutcome.AFTER
        if found is RecoveryOutcome.AFTER:
            _write_all(workspace, transaction)
        _forget(journal)
        return found


def _find_unfinished(workspace: Workspace) -> list[Path]:
    """Return the files that a process was writing when it was killed."""
    folder = workspace.migrations
    there = entries(folder) if has_directory(folder) else []
    named = (path.with_name(path.name.removeprefix(".").removesuffix(".new") or path.name) for path in there)
    written = (journal_path(workspace), lock_path(workspace), *filter(is_migration, named))
    return [path for path in map(temporary_path, written) if os.path.lexists(path)]


def _write_all(workspace: Workspace, transaction: FileTransaction) -> None:
    # Files are removed last: until then nothing is lost.
    for name, text in sorted(transaction.after.items(), key=lambda each: each[1] is None):
        _write(workspace, workspace.migrations / name, _encode(text))


def _write(workspace: Workspace, path: Path, data: bytes | None) -> None:
    if data is None:
        _remove(path)
    elif read_if_present(path) != data:
        # A link in the workspace is followed; any other link is replaced.
        real = Path(os.path.realpath(path))
        real = real if real.is_relative_to(os.path.realpath(workspace.root)) else path
        mode = read_metadata(real).mode if exists(real) and not real.is_symlink() else 0o644
        write_durably(real, data, mode)


def _remove(path: Path) -> None:
    if os.path.lexists(path):
        remove_durably(path)


def _forget(journal: Path) -> None:
    """Remove the journal; if a power failure brings it back, it describes a finished transaction."""
    with suppress(NotDurableError):
        _remove(journal)


def _digest(data: bytes | None) -> str | None:
    return None if data is None else blake3(data).hexdigest()


def _encode(text: str | None) -> bytes | None:
    return None if text is None else text.encode("utf-8")


def _read_journal(journal: Path) -> FileTransaction | None:
    data = read_if_present(journal)
    if data is None:
        return None
    with suppress(ValueError, TypeError, KeyError):
        check_version(MIGRATIONS_JOURNAL, json.loads(data)["format"], str(journal), RecoveryNeededError)
        transaction = FileTransaction.model_validate_json(data)
        plain = all(Path(name).name == name for name in transaction.after)
        if plain and transaction.before.keys() == transaction.after.keys():
            return transaction
    hint = "compare the migrations with what Git has, then remove it"
    raise StorageError("the journal of an interrupted command is damaged", where=str(journal), hint=hint)


@contextmanager
def _alone(workspace: Workspace) -> Iterator[None]:
    journal = journal_path(workspace)
    with storage_errors("make the directory", journal.parent):
        journal.parent.mkdir(exist_ok=True)
    try:
        with hold_lock(journal.with_suffix(".lock")):
            yield
    except BusyError as error:
        if isinstance(error, RecoveryNeededError):
            raise
        raise BusyError(
            "another process writes the migrations", where=error.where, hint="run it again when that one has finished"
        ) from error
