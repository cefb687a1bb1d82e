"""Which migrations a command means for a model, and which of them its files look like having."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace

from tokmigrate.commands.models import format_model
from tokmigrate.commands.records import refuse_drift
from tokmigrate.commands.tag import list_tags
from tokmigrate.errors import (
    AlreadyThereError,
    DriftError,
    FileProblems,
    HistoryError,
    UndoError,
    UnknownNameError,
    UsageError,
)
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.plan.progress import Progress, check_progress, edited_revisions
from tokmigrate.plan.revision_detection import Detected, detect_revision
from tokmigrate.revision.history import History
from tokmigrate.revision.names import RecordedName, resolve
from tokmigrate.settings import ModelEntry, Workspace
from tokmigrate.state.database import open_state_if_present


def progress_to(workspace: Workspace, history: History, entry: ModelEntry, snapshot: Snapshot, to: str) -> Progress:
    """Return which migrations a model has, and which it lacks up to a revision.

    Raises DriftError where one was edited since it was applied, or one that it lacks precedes one that it has.
    """
    progress = check_progress(snapshot, history.chain_for(entry))
    target = history.resolve(to, snapshot.revision, list_tags(workspace))
    progress.check_order()
    wanted = {migration.revision for migration in history.lineage(target)}
    return replace(progress, chain=tuple(each for each in progress.chain if each.revision in wanted))


def way_down(
    workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, to: str
) -> tuple[str | None, tuple[str, ...]]:
    """Return the revision to go down to, and the revisions on the way, the latest first.

    Raises AlreadyThereError where there is nothing to downgrade, UndoError where the model does not have the revision.
    """
    applied = snapshot.revisions
    target = _resolve_down(workspace, snapshot, to)
    if target is not None and target not in applied:
        hint = "`tokmigrate current` shows where it is"
        raise UndoError(f"the model does not have revision {target}", where=entry.name, hint=hint)
    kept = applied.index(target) + 1 if target is not None else 0
    if kept == len(applied):
        # Without its stamp a model seems to be at base.
        refuse_drift(workspace, snapshot)
        raise AlreadyThereError(
            f"nothing to downgrade: the model is already at '{to}'",
            where=entry.name,
            hint="`tokmigrate current` shows where it is",
        )
    return target, tuple(reversed(applied[kept:]))


def _resolve_down(workspace: Workspace, snapshot: Snapshot, to: str) -> str | None:
    """Return the revision to go down to, by the record where the files do not hold together or are gone."""
    tags = list_tags(workspace)
    try:
        return History.read(workspace).resolve(to, snapshot.revision, tags)
    except (FileProblems, HistoryError, UnknownNameError):
        state = open_state_if_present(workspace.state, workspace.root)
        files = {text.revision: text.file for text in state.migration_texts()} if state else {}
        recorded = [RecordedName(revision, files.get(revision, revision)) for revision in snapshot.revisions]
        with suppress(UsageError):
            return resolve(to, recorded, lambda: recorded, snapshot.revision, tags)
        raise


def find_edited(workspace: Workspace, snapshot: Snapshot) -> frozenset[str]:
    """Return the revisions of a model whose files hold something else than was applied, as far as files tell."""
    with suppress(FileProblems):
        return edited_revisions(snapshot, History.read_files(workspace))
    return frozenset()


def describe_detected(
    workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, progress: Progress
) -> tuple[Detected, str] | None:
    """Return the revision that a model looks like, and that with what shows it and what to do, as text.

    None where nothing is there of what the model lacks by its stamp.
    """
    detected = detect_revision(snapshot.state, progress.applied, progress.pending)
    if detected is None:
        return None
    off = f"its stamp is wrong: remove {STAMP}, then " if snapshot.stamp else ""
    revision = detected.reached or f"a part of {detected.revisions[-1]}"
    return detected, f"{revision}: {detected}; {off}{format_stamp_commands(workspace, entry, detected)}"


def add_stamp_hint(
    workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, progress: Progress, hint: str | None
) -> str | None:
    """Return what to do where a migration cannot be applied: perhaps the model is at it already."""
    found = describe_detected(workspace, entry, snapshot, progress)
    if found is None:
        return hint
    detected, text = found
    seems = f"the model looks like one at {text}"
    if hint is None:
        return seems
    if detected.reached:
        return f"{seems}; else {hint}"
    # A part of a migration is there by chance more often than by a manual change.
    return f"{hint}; if a part of {detected.revisions[-1]} was done by hand, `tokmigrate check` names what is there"


def format_stamp_commands(workspace: Workspace, entry: ModelEntry, detected: Detected) -> str:
    """Return the commands that stamp a model which looks like one at a later revision."""
    name = format_model(workspace, entry.path)
    copy = f"`tokmigrate stamp --from {_find_source(workspace, entry, detected)} --model {name}`"
    stamps = f"{copy} stamps it as a copy of that model, with its undo data"
    if detected.reached is None:
        return f"complete it by hand, or take its tokenizer from a model that was upgraded; then {stamps}"
    return f"{stamps}, `tokmigrate stamp {detected.reached} --model {name}` without"


def _find_source(workspace: Workspace, entry: ModelEntry, detected: Detected) -> str:
    """Return the first model of the workspace that is where this one seems to be, a word in its place without any."""
    for other in workspace.models.values():
        with suppress(DriftError):
            stamp = read_stamp(other.path)
            if stamp is not None and stamp.revision == detected.revisions[-1] and other.path != entry.path:
                return other.name
    return "MODEL"
