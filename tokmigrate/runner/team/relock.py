"""Writing the lock: the migrations as they are, and the ids that they give on the models that are here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tokmigrate.audit.run_status import refuse_in_progress
from tokmigrate.errors import WeightsError
from tokmigrate.files import has_directory
from tokmigrate.model.snapshot import take_snapshot
from tokmigrate.plan.pinned_ids import track_after, track_before
from tokmigrate.plan.steps import steps_of
from tokmigrate.plan.upgrade import plan_upgrade
from tokmigrate.revision.history import History
from tokmigrate.revision.lock import Lock, LockTrack, lock_of
from tokmigrate.revision.lock_file import lock_files
from tokmigrate.runner.at_hand import at_hand
from tokmigrate.runner.targets import progress_to
from tokmigrate.runner.team.earlier import earlier
from tokmigrate.runner.team.file_transaction import rewrite
from tokmigrate.settings import ModelEntry, Workspace


@dataclass(frozen=True)
class Relocked:
    """What became of the lock.

    Args:
        before: What it said, None where there was none.
        after: What it says now.
        notes: The models that could add nothing to it, and why.
    """

    before: Lock | None
    after: Lock
    notes: tuple[str, ...]


def relock(workspace: Workspace, entries: Iterable[ModelEntry], known: Lock | None) -> Relocked:
    """Write the lock of a workspace.

    What is pinned stays pinned as long as the migrations up to there are the same ones.

    Args:
        workspace: The workspace.
        entries: The models whose ids are pinned, where they are here.
        known: The lock before.

    Raises:
        DriftError: A migration was edited that a model has, or gives other ids than were pinned.
        HistoryError: There are several heads.
    """
    done = relocked(workspace, History.read(workspace), entries, known)
    rewrite(workspace, lock_files(workspace, done.after))
    return done


def relocked(workspace: Workspace, history: History, entries: Iterable[ModelEntry], known: Lock | None) -> Relocked:
    """Return what `relock` makes of a history; nothing is written."""
    chain = history.chain()
    held = known.holding(chain) if known else None
    tracks: list[LockTrack] = []
    notes: list[str] = []
    for entry in entries:
        if not has_directory(entry.path):
            notes.append(f"{entry.name} is not here: no ids are pinned for it")
            continue
        refuse_in_progress(entry)
        try:
            with at_hand(entry) as here:
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
    return Relocked(known, lock_of(chain, known, tracks), tuple(notes))


def lock_head(workspace: Workspace, known: Lock | None) -> bool:
    """Write down a new migration at the head, and return whether the lock had all that are before it.

    Args:
        workspace: The workspace.
        known: Its lock; None where it has none, and then the first migration begins one.
    """
    head = History.read(workspace).chain()[-1]
    lock = (known or Lock()).followed_by(head)
    if lock is None:
        return False
    rewrite(workspace, lock_files(workspace, lock))
    return True


def _track(workspace: Workspace, history: History, entry: ModelEntry, held: Lock | None) -> LockTrack | None:
    """Return the way of a model up to the head; None where nobody knows how it began."""
    snapshot = take_snapshot(entry)
    progress = progress_to(workspace, history, entry, snapshot, "head")
    before = track_before(snapshot, progress.applied, held)
    if before is not None:
        return track_after(before, plan_upgrade(entry, snapshot, progress.pending).steps)
    # The lock came later than the migrations: where the way back is on record, it leads to the base.
    found = earlier(workspace, entry, snapshot, snapshot.revisions[0]) if snapshot.stamp else None
    if found is None:
        return None
    steps = steps_of(found.state, (*progress.applied, *progress.pending), lambda _, after: after)
    return track_after(LockTrack(found.state.tokenizer.fingerprint), steps)
