"""A model as pending migrations would leave it, in a directory of its own, for comparison with what it is now."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from tokmigrate.apply.build_upgrade import UpgradeBuilder
from tokmigrate.apply.temporary_folder import open_temporary_folder
from tokmigrate.audit.run_status import guard_reading
from tokmigrate.commands.earlier_model import StagedModel, stage_into
from tokmigrate.plan.plan import Plan
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.objects import ObjectStore


@contextmanager
def open_later_model(workspace: Workspace, entry: ModelEntry, plan: Plan) -> Iterator[StagedModel]:
    """Give a directory with a model as its plan would leave it, without its stamp; it is gone after.

    Args:
        plan: A plan with steps.

    Raises:
        StorageError: There is no space for it.
    """
    with guard_reading(entry), open_temporary_folder(entry.path) as folder:
        # The undo data is of no use, since nothing is changed.
        builder = UpgradeBuilder(replace(plan, adapters=(), copies=()), workspace.seed, ObjectStore(folder / "objects"))
        (change,) = builder.changes()
        directory = folder / entry.path.name
        stage_into(
            directory,
            plan.snapshot,
            change.candidate,
            lambda contents: change.complete(contents, lambda: None),
            change.populations,
            reads_all=change.reads_all,
        )
        yield StagedModel(directory, plan.after, plan.edit.positions())
