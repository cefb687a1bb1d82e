"""Writing the lock: the migrations as they are, and the ids that they give on the models that are here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from tokmigrate.apply.build_downgrade import build_downgrade
from tokmigrate.audit.drift import list_changed_documents
from tokmigrate.audit.run_status import refuse_in_progress
from tokmigrate.commands.file_transaction import write_files
from tokmigrate.commands.models import open_model_or_dummy
from tokmigrate.commands.records import find_undo_records
from tokmigrate.commands.targets import add_stamp_hint, progress_to
from tokmigrate.errors import DriftError, OperationError, UndoError, WeightsError
from tokmigrate.files import has_directory
from tokmigrate.model.documents.reading import with_files
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import parse_stamp
from tokmigrate.model.documents.state import ModelState
from tokmigrate.model.snapshot import Snapshot, take_snapshot
from tokmigrate.plan.plan import plan_upgrade
from tokmigrate.plan.steps import steps_of, track_after, track_before
from tokmigrate.revision.history import History
from tokmigrate.revision.lock_file import Lock, LockTrack, lock_files, lock_of
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.objects import ObjectStore
from tokmigrate.vocabulary.row_edit import RowEdit


def compute_state_before(
    workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, first: str
) -> tuple[ModelState, str | None] | None:
    """Return a model as its migration `first` found it, and the fingerprint of its base tokenizer, where it is known.

    None if the undo data is missing here, or does not match the files.
    """
    if list_changed_documents(snapshot):
        return None
    applied = snapshot.revisions
    revisions = tuple(reversed(applied[applied.index(first) :]))
    try:
        records = find_undo_records(workspace, entry, snapshot, revisions)
        back = build_downgrade(snapshot, records, ObjectStore(workspace.objects))
    except (UndoError, DriftError):
        return None
    stamp = parse_stamp(back.completion.stamp, STAMP) if back.completion.stamp else None
    rows = back.candidate.documents.rows
    found = replace(
        snapshot.state,
        documents=with_files(snapshot.state.documents, back.candidate.documents.files),
        edit=RowEdit.identity(rows),
        lineage=stamp.rows if stamp else RowEdit.identity(rows),
        reshaped=bool(stamp and stamp.reshaped),
        init=stamp.init if stamp else None,
    )
    return found, stamp.tokenizer if stamp else found.tokenizer.fingerprint


@dataclass(frozen=True)
class LockUpdate:
    """What the lock said, None where there was none, and says now; notes tell which models add nothing, and why."""

    before: Lock | None
    after: Lock
    notes: tuple[str, ...]


def update_lock(workspace: Workspace, entries: Iterable[ModelEntry], known: Lock | None) -> LockUpdate:
    """Write the lock of a workspace, with the ids that the migrations give on the models that are here.

    What the lock before, `known`, pins stays pinned as long as the migrations up to there are the same ones. Raises
    DriftError where one that a model has was edited, or gives other ids than were pinned.
    """
    done = compute_lock_update(workspace, History.read(workspace), entries, known)
    write_files(workspace, lock_files(workspace, done.after))
    return done


def compute_lock_update(
    workspace: Workspace, history: History, entries: Iterable[ModelEntry], known: Lock | None
) -> LockUpdate:
    """Return what `update_lock` makes of a history; nothing is written."""
    chain = history.chain()
    held = known.keep_valid(chain) if known else None
    tracks: list[LockTrack] = []
    notes: list[str] = []
    for entry in entries:
        if not has_directory(entry.path):
            notes.append(f"{entry.name} is not here: no ids are pinned for it")
            continue
        refuse_in_progress(entry)
        try:
            with open_model_or_dummy(entry) as here:
                track = _track(workspace, history, here, held)
        except WeightsError as error:
            notes.append(f"{entry.name} adds no ids: {error}")
            continue
        if track is None:
            notes.append(
                f"{entry.name} has migrations, and neither the lock nor this workspace knows how its tokenizer began: "
                "only a copy of it at base can pin its ids (`--model PATH`)"
            )
        else:
            tracks.append(track)
    return LockUpdate(known, lock_of(chain, known, tracks), tuple(notes))


def lock_head(workspace: Workspace, known: Lock | None) -> bool:
    """Lock a new migration at the head, and return whether the lock before, `known`, had all that are before it."""
    chain = History.read(workspace).chain()
    lock = (known or Lock()).append_migration(chain[-1]) if chain else None
    if lock is None:
        return False
    write_files(workspace, lock_files(workspace, lock))
    return True


def _track(workspace: Workspace, history: History, entry: ModelEntry, held: Lock | None) -> LockTrack | None:
    """Return the states of a model up to the head; None if its first state is unknown."""
    snapshot = take_snapshot(entry)
    progress = progress_to(workspace, history, entry, snapshot, "head")
    before = track_before(snapshot, progress.applied, held)
    if before is not None:
        try:
            steps = plan_upgrade(entry, snapshot, progress.pending).steps
        except OperationError as error:
            error.hint = add_stamp_hint(workspace, entry, snapshot, progress, error.hint)
            raise
        return track_after(before, steps)
    # The lock came later than the migrations: where undo data exists, it leads to the base.
    found = compute_state_before(workspace, entry, snapshot, snapshot.revisions[0]) if snapshot.stamp else None
    if found is None:
        return None
    base, _ = found
    steps = steps_of(base, (*progress.applied, *progress.pending))
    return track_after(LockTrack(base.tokenizer.fingerprint), steps)
