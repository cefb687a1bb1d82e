"""A model as it was at an earlier revision, in a directory of its own, for comparison with what it is now."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event

from tokmigrate.apply.build_downgrade import build_downgrade
from tokmigrate.apply.publish import check_room, margin_bytes
from tokmigrate.apply.stage import stage
from tokmigrate.apply.workarea import WorkArea
from tokmigrate.audit.run_status import guard_reading
from tokmigrate.commands.records import find_undo_records
from tokmigrate.commands.targets import way_down
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.objects import ObjectStore


@contextmanager
def open_earlier_model(workspace: Workspace, entry: ModelEntry, revision: str) -> Iterator[Path]:
    """Give a directory with a model as `downgrade` to a revision would leave it, without its stamp; it is gone after.

    Unchanged files are cloned, so it costs the disk space of the shards that migrations changed. If the model was
    trained since, it is its body that is in it, with the earlier tokens.

    Raises:
        UndoError: The undo data is missing here, or there is nothing to undo.
        StorageError: There is no space for it.
    """
    with guard_reading(entry):
        snapshot = take_snapshot(entry)
        _, revisions = way_down(workspace, entry, snapshot, revision)
        records = find_undo_records(workspace, entry, snapshot, revisions)
        back = build_downgrade(snapshot, records, ObjectStore(workspace.objects))
        # A clone shares its blocks only within a filesystem.
        area = WorkArea(entry.path).root
        beside = area if os.access(area, os.W_OK) else None
        with tempfile.TemporaryDirectory(prefix="earlier-", dir=beside) as folder:
            check_room(Path(folder), back.candidate.bytes + margin_bytes(back.candidate.bytes))
            target = Path(folder, entry.path.name)
            staged = stage(
                snapshot,
                target,
                back.candidate,
                {},
                lambda _: None,
                reads_all=False,
                known_tensors={},
                stopped=Event(),
            )
            staged.complete(snapshot, back.candidate, back.completion)
            staged.verify(snapshot, back.candidate, back.completion, reads_again=False)
            yield target
