"""Which models have a migration applied, as far as this workspace knows."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from tokmigrate.audit.run_status import refuse_in_progress
from tokmigrate.errors import HistoryError
from tokmigrate.files import has_directory
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.revision.migration import Migration
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present

AppliedModels = dict[str, tuple[str, ...]]


def applied_models_by_revision(workspace: Workspace) -> AppliedModels:
    """Return for each revision the models that have it.

    A model that is here is asked for its stamp; of one that is not, the state tells.

    Raises:
        BusyError: A process is changing one of them, or that was interrupted.
    """
    found: defaultdict[str, list[str]] = defaultdict(list)
    directories = {os.path.realpath(entry.path): name for name, entry in workspace.models.items()}
    state = open_state_if_present(workspace.state, workspace.root)
    gone: dict[str, tuple[str, ...]] = {}
    for model in state.list_models() if state else ():
        if has_directory(Path(model.path)):
            directories.setdefault(model.path, model.name)
        elif state:
            gone[model.name] = tuple(row.record.revision for row in state.list_applied(model))
    for path, name in directories.items():
        # In the middle of a change the stamp may be missing, and what a model is about to have is not in it.
        refuse_in_progress(ModelEntry(name, Path(path)))
        stamp = read_stamp(Path(path))
        for revision in stamp.revisions if stamp else ():
            found[revision].append(name)
    for name, revisions in gone.items():
        for revision in revisions:
            found[revision].append(f"{name} (not here now)")
    return {revision: tuple(names) for revision, names in found.items()}


def refuse_applied(migrations: Iterable[Migration], where: AppliedModels, what: str) -> None:
    """Raise HistoryError where a model has one of the migrations.

    Args:
        migrations: Those that are to be changed.
        where: Which models have what.
        what: What is to be done, such as `edited`.
    """
    for migration in migrations:
        names = where.get(migration.revision)
        if names:
            before = migration.down_revision or "base"
            raise HistoryError(
                f"{migration.revision} cannot be {what}: {', '.join(names)} has it",
                where=migration.shown,
                hint=f"`tokmigrate downgrade {before}` undoes it first; or write a new migration",
            )
