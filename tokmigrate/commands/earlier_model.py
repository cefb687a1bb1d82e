"""A model as it was at an earlier revision, in a directory of its own, for comparison with what it is now."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from tokmigrate.apply.build_downgrade import build_downgrade
from tokmigrate.apply.candidate import Candidate, Completion
from tokmigrate.apply.publish import check_room, margin_bytes
from tokmigrate.apply.shard_pass import Contents
from tokmigrate.apply.stage import stage
from tokmigrate.apply.workarea import WorkArea
from tokmigrate.audit.run_status import guard_reading
from tokmigrate.commands.records import find_undo_records
from tokmigrate.commands.targets import way_down
from tokmigrate.errors import StorageError
from tokmigrate.files import exists, has_directory
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.objects import ObjectStore
from tokmigrate.vocabulary.ids import Run

_PREFIX = "staged-"


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
        with open_folder(entry) as folder:
            directory = folder / entry.path.name
            stage_into(directory, snapshot, back.candidate, lambda _: back.completion)
            yield StagedModel(directory, target, back.candidate.edit.positions(), back.semantic_undo)


@contextmanager
def open_folder(entry: ModelEntry) -> Iterator[Path]:
    """Give a folder in the work area of a model, or where temporary files go if there can be none; it is gone after.

    Those of killed processes are removed: a folder that is in use is locked.
    """
    # A clone shares its blocks only within a filesystem, and temporary files often lie in memory.
    area = WorkArea(entry.path)
    is_new = not exists(area.root)
    with suppress(StorageError):
        area.create()
    beside = area.root if has_directory(area.root) and os.access(area.root, os.W_OK) else None
    for path in beside.glob(f"{_PREFIX}*") if beside else ():
        with _lock_folder(path) as is_mine:
            if is_mine:
                shutil.rmtree(path, ignore_errors=True)
    try:
        with (
            tempfile.TemporaryDirectory(prefix=_PREFIX, dir=beside, ignore_cleanup_errors=True) as folder,
            _lock_folder(Path(folder)),
        ):
            yield Path(folder)
    finally:
        if is_new:
            # It stays if another process uses it by now.
            with suppress(OSError):
                area.root.rmdir()


@contextmanager
def _lock_folder(path: Path) -> Iterator[bool]:
    """Hold the lock of a folder while it is not held by another process, and say whether that is so."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(opened)


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
