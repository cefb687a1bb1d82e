"""The runs that the state has recorded, with their later undos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tokmigrate.errors import DriftError, UsageError
from tokmigrate.files import exists, has_directory, open_for_reading
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.settings import FILE_NAME, ModelEntry, Workspace, read_workspace
from tokmigrate.settings.workspace import absolute
from tokmigrate.state.database import open_state_if_present
from tokmigrate.state.queries import Readable
from tokmigrate.state.rows import ModelRow, RunRow
from tokmigrate.state.transfer import LedgerExport, export_ledger, read_export, read_imported

_SQLITE = b"SQLite format 3\0"


@dataclass(frozen=True)
class Run:
    """A run, with the revisions of it that were undone since, and the run that undid the last of them.

    `ledger` is the one that it was imported from, None for a run of this workspace.
    """

    model: ModelRow
    row: RunRow
    undone: tuple[str, ...]
    undone_by: str | None
    ledger: str | None


def runs(workspace: Workspace, entries: tuple[ModelEntry, ...], limit: int | None) -> tuple[Run, ...]:
    """Return the recorded runs of models, the newest first, all of them or `limit`."""
    state = open_state_if_present(workspace.state, workspace.root)
    if state is None:
        return ()
    models = {model.id: model for entry in entries if (model := state.model_at(entry.path, _generation(entry)))}
    found = [run for model in models.values() for run in _list_runs(state, model, limit)]
    return tuple(sorted(found, key=lambda run: run.row.number, reverse=True)[:limit])


def _generation(entry: ModelEntry) -> str | None:
    try:
        stamp = read_stamp(entry.path)
    except DriftError:
        # The runs are listed all the same.
        return None
    return stamp.generation if stamp else None


def list_imported_runs(workspace: Workspace, limit: int | None) -> tuple[Run, ...]:
    """Return the runs of the ledgers that were imported, the newest first, all of them or `limit`."""
    state = open_state_if_present(workspace.state, workspace.root)
    found: list[Run] = []
    for ledger in read_imported(state) if state else ():
        for model in ledger.list_models():
            found += _list_runs(ledger, model, limit, ledger.id)
    return tuple(sorted(found, key=lambda run: run.row.started, reverse=True)[:limit])


def _list_runs(state: Readable, model: ModelRow, limit: int | None, ledger: str | None = None) -> Iterator[Run]:
    applied = state.list_applications(model)
    for row in state.runs(model, limit):
        undone = [each for each in applied if each.run_id == row.id and each.reverted_by is not None]
        revisions = tuple(each.record.revision for each in undone)
        yield Run(model, row, revisions, undone[0].reverted_by if undone else None, ledger)


def read_ledger(source: str) -> tuple[LedgerExport, str]:
    """Return a ledger, and where it is, without a password; raises UsageError where there is none.

    The source is a workspace's directory or its tokmigrate.yaml, a SQLite database, the URL of a state, or a file that
    `log --export` wrote.
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
    with open_for_reading(path) as file:
        if file.read(len(_SQLITE)) == _SQLITE:
            return _of_database(f"sqlite:///{path}", Path())
    return read_export(path), str(path)


def _of_database(url: str, folder: Path) -> tuple[LedgerExport, str]:
    state = open_state_if_present(url, folder)
    if state is None:
        hint = "name the workspace where models are migrated, or its state.db"
        raise UsageError("there is no ledger: nothing was run there yet", where=url.rsplit("@", 1)[-1], hint=hint)
    return export_ledger(state), state.place
