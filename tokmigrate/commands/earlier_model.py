"""A model as it was at an earlier revision, in a directory of its own, for comparison with what it is now."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from tokmigrate.apply.build_downgrade import build_downgrade
from tokmigrate.apply.candidate import Candidate, Completion
from tokmigrate.apply.publish import check_room, margin_bytes
from tokmigrate.apply.shard_pass import Contents
from tokmigrate.apply.stage import stage
from tokmigrate.apply.temporary_folder import open_temporary_folder
from tokmigrate.audit.run_status import guard_reading
from tokmigrate.commands.records import find_undo_records
from tokmigrate.commands.targets import way_down
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.objects import ObjectStore
from tokmigrate.vocabulary.ids import Run


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
            directory = folder / entry.path.name
            stage_into(directory, snapshot, back.candidate, lambda _: back.completion)
            yield StagedModel(directory, target, back.candidate.edit.positions(), back.semantic_undo)


def stage_into(
    directory: Path,
    snapshot: Snapshot,
    candidate: Candidate,
    complete: Callable[[Contents], Completion],
    populations: Mapping[str, Sequence[Run]] | None = None,
    *,
    reads_all: bool = False,
) -> None:
    """Write a candidate without its stamp, and verify it; `complete` completes it by what was found in the shards."""
    check_room(directory.parent, candidate.bytes + margin_bytes(candidate.bytes))
    staged = stage(
        snapshot,
        directory,
        candidate,
        populations or {},
        lambda _: None,
        reads_all=reads_all,
        known_tensors={},
        stopped=Event(),
    )
    completion = complete(staged.contents)
    staged.complete(snapshot, candidate, completion)
    staged.verify(snapshot, candidate, completion, reads_again=False)
