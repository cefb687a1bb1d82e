"""A model as it was, or as pending migrations would leave it, in a directory of its own, to compare with what it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event

from tokmigrate.apply.build_downgrade import build_downgrade
from tokmigrate.apply.build_upgrade import UpgradeBuilder
from tokmigrate.apply.candidate import Change
from tokmigrate.apply.publish import check_room, margin_bytes
from tokmigrate.apply.stage import stage
from tokmigrate.apply.temporary_folder import open_temporary_folder
from tokmigrate.audit.run_status import guard_reading
from tokmigrate.commands.models import change_down
from tokmigrate.commands.records import find_undo_records
from tokmigrate.commands.targets import way_down
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.plan.plan import Plan
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.objects import ObjectStore


@dataclass(frozen=True)
class StagedModel:
    """A model at another revision than it is at, in a directory that is gone after.

    Args:
        revision: The revision, None for base.
        rows: Its row of each row of the model that it has too.
        changed: The files of the model that were trained or rewritten since it was migrated; what is in them is not
            that of the revision, but for the tokens.
    """

    directory: Path
    revision: str | None
    rows: Mapping[int, int]
    changed: tuple[str, ...] = ()


@contextmanager
def open_earlier_model(workspace: Workspace, entry: ModelEntry, revision: str) -> Iterator[StagedModel]:
    """Give a directory with a model as `downgrade` to a revision would leave it, without its stamp; it is gone after.

    Unchanged files are cloned, so it costs the disk space of the shards that migrations changed. If the model was
    trained since, it is its body that is in it, with the earlier tokens.

    Raises:
        UndoError: The undo data is missing here, or there is nothing to undo.
        StorageError: There is no space for it.
    """
    with guard_reading(entry):
        snapshot = take_snapshot(entry)
        target, revisions = way_down(workspace, entry, snapshot, revision)
        records = find_undo_records(workspace, entry, snapshot, revisions)
        back = build_downgrade(snapshot, records, ObjectStore(workspace.objects))
        with open_temporary_folder(entry.path) as folder:
            directory = _stage(folder, change_down(snapshot, back))
            yield StagedModel(directory, target, back.candidate.documents.edit.positions(), back.semantic_undo)


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
        yield StagedModel(_stage(folder, change), plan.after, plan.edit.positions())


def _stage(folder: Path, change: Change) -> Path:
    """Write what a change makes of a directory into a folder, without its stamp, and verify it."""
    size = change.candidate.bytes
    check_room(folder, size + margin_bytes(size))
    staged = stage(change, folder / change.snapshot.directory.name, lambda _: None, Event())
    completion = change.complete(staged.contents, lambda: None)
    staged.complete(completion)
    staged.verify(completion, reads_again=False)
    return staged.path
