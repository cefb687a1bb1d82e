"""Ledgers of other workspaces, wherever they are."""

from __future__ import annotations

from pathlib import Path

from tokmigrate.errors import UsageError
from tokmigrate.files import exists, has_directory, opened
from tokmigrate.settings import FILE_NAME, read_workspace
from tokmigrate.settings.workspace import absolute
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.transfer import LedgerExport, export_ledger, read_export

_SQLITE = b"SQLite format 3\0"


def read_ledger(source: str) -> tuple[LedgerExport, str]:
    """Return a ledger, and where it is, without a password.

    Args:
        source: A workspace's directory or its tokmigrate.yaml, a SQLite database, the URL of a state, or a file that
            `log --export jsonl` wrote.

    Raises:
        UsageError: There is no ledger.
    """
    if "://" in source:
        return _of_database(source, Path())
    path = absolute(Path.cwd(), source)
    settings = path / FILE_NAME if has_directory(path) else path
    if settings.name == FILE_NAME and exists(settings):
        workspace = read_workspace(settings, {})
        return _of_database(workspace.state, workspace.root)
    if not exists(path):
        raise UsageError(
            "there is no ledger", where=str(path), hint="name a workspace, a state.db, a URL, or an exported file"
        )
    with opened(path) as file:
        if file.read(len(_SQLITE)) == _SQLITE:
            return _of_database(f"sqlite:///{path}", Path())
    return read_export(path), str(path)


def _of_database(url: str, folder: Path) -> tuple[LedgerExport, str]:
    state = open_state_if_present(url, folder)
    if state is None:
        raise UsageError("there is no ledger: nothing was run there yet", where=url.rsplit("@", 1)[-1])
    return export_ledger(state), state.place
