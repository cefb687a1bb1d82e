"""A model as pending migrations would leave it, in a directory of its own, for comparison with what it is now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tokmigrate.apply.build_upgrade import UpgradeBuilder
from tokmigrate.audit.run_status import guard_reading
from tokmigrate.commands.earlier_model import StagedModel, open_folder, stage_into
from tokmigrate.commands.plan import plan_or_reuse
from tokmigrate.errors import AlreadyThereError
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.objects import ObjectStore


@contextmanager
def open_later_model(workspace: Workspace, entry: ModelEntry, revision: str) -> Iterator[StagedModel]:
    """Give a directory with a model as `upgrade` to a revision would leave it, without its stamp; it is gone after.

    Raises:
        AlreadyThereError: No migration is pending.
        OperationError: A migration cannot be applied.
        StorageError: There is no space for it.
    """
    with guard_reading(entry):
        snapshot = take_snapshot(entry)
        planned = replace(plan_or_reuse(workspace, entry, snapshot, revision), adapters=())
        if not planned.steps:
            raise AlreadyThereError(
                f"nothing to upgrade: the model is already at '{revision}'", where=entry.name, hint="leave out --to"
            )
        with open_folder(entry) as folder:
            # The undo data is of no use, since nothing is changed.
            (change,) = UpgradeBuilder(planned, workspace.seed, ObjectStore(folder / "objects")).changes()
            directory = folder / entry.path.name
            stage_into(
                directory,
                snapshot,
                change.candidate,
                lambda contents: change.complete(contents, lambda: None),
                change.populations,
                reads_all=change.reads_all,
            )
            yield StagedModel(directory, planned.edit.positions())
