"""The models of a workspace: opened, or a dummy in their place, and which of them have a migration."""

from __future__ import annotations

import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tokmigrate.audit.run_status import refuse_in_progress
from tokmigrate.errors import HistoryError
from tokmigrate.files import has_directory
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.model.dummy_model import lacks_weights, make_dummy_without_weights
from tokmigrate.revision.migration import Migration
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present


@dataclass(frozen=True)
class OpenedModel:
    """What something was tried on.

    Args:
        model: The model's name.
        subject: The model itself, or a dummy model of it.
    """

    model: str
    subject: Literal["model", "dummy"]


def trial_of(entry: ModelEntry) -> OpenedModel:
    """Return what `open_model_or_dummy` gives for a model."""
    return OpenedModel(entry.name, "dummy" if lacks_weights(entry.path) else "model")


@contextmanager
def open_model_or_dummy(entry: ModelEntry) -> Iterator[ModelEntry]:
    """Give the model itself, or a dummy model where its weights are not here and its configuration is.

    The dummy model has the model's files, ids, number of rows and stamp, and so the same states before and after a
    migration; its rows hold nothing, and it is gone afterwards.

    Raises:
        WeightsError: The weights are not here, and what shapes they have is not known.
    """
    if not lacks_weights(entry.path):
        yield entry
        return
    with tempfile.TemporaryDirectory(prefix="tokmigrate-") as folder:
        yield make_dummy_without_weights(entry, Path(folder, "model"))


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
