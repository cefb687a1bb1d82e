"""Hints for a model that looks as if later migrations had been applied, though its stamp does not say so."""

from __future__ import annotations

from contextlib import suppress

from tokmigrate.errors import DriftError
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.plan.progress import Progress
from tokmigrate.plan.revision_detection import Detected, detect_revision
from tokmigrate.settings import ModelEntry, Workspace


def add_stamp_hint(
    workspace: Workspace,
    entry: ModelEntry,
    snapshot: Snapshot,
    progress: Progress,
    hint: str | None,
) -> str | None:
    """Return what to do where a migration cannot be applied: what its error says, and what a model at it already needs.

    Args:
        workspace: The workspace.
        entry: The model.
        snapshot: The model as it is.
        progress: The migrations that it has by its stamp, and those that it lacks.
        hint: What the error says.
    """
    detected = detect_revision(snapshot.state, progress.applied, progress.pending)
    if detected is None:
        return hint
    seems = f"the model looks like one at {_describe(workspace, entry, snapshot, detected)}"
    if hint is None:
        return seems
    if detected.reached:
        return f"{seems}; else {hint}"
    # A part of a migration is there by chance more often than by a manual change.
    return f"{hint}; if a part of {detected.revisions[-1]} was done by hand, `tokmigrate check` names what is there"


def describe_detected(
    workspace: Workspace,
    entry: ModelEntry,
    snapshot: Snapshot,
    progress: Progress,
) -> str | None:
    """Return which revision a model looks like, by what and what to do; None where nothing of what it lacks is there.

    Args:
        workspace: The workspace.
        entry: The model.
        snapshot: The model as it is.
        progress: The migrations that it has by its stamp, and those that it lacks.
    """
    detected = detect_revision(snapshot.state, progress.applied, progress.pending)
    return None if detected is None else _describe(workspace, entry, snapshot, detected)


def _describe(workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, detected: Detected) -> str:
    off = f"its stamp is wrong: remove {STAMP}, then " if snapshot.stamp else ""
    revision = detected.reached or f"a part of {detected.revisions[-1]}"
    return f"{revision}: {detected}; {off}{format_stamp_commands(workspace, entry, detected)}"


def format_stamp_commands(workspace: Workspace, entry: ModelEntry, detected: Detected) -> str:
    """Return the commands that stamp such a model."""
    name = _format_name(workspace, entry)
    copy = f"`tokmigrate stamp --from {_source(workspace, entry, detected)} --model {name}`"
    stamps = f"{copy} stamps it as a copy of that model, with its undo data"
    if detected.reached is None:
        return f"complete it by hand, or take its tokenizer from a model that was upgraded; then {stamps}"
    return f"{stamps}, `tokmigrate stamp {detected.reached} --model {name}` without"


def _format_name(workspace: Workspace, entry: ModelEntry) -> str:
    own = workspace.models.get(entry.name)
    if own is not None and own.path == entry.path:
        return entry.name
    within = entry.path.is_relative_to(workspace.root)
    return str(entry.path.relative_to(workspace.root) if within else entry.path)


def _source(workspace: Workspace, entry: ModelEntry, detected: Detected) -> str:
    """Return the first model of the workspace that is where this one seems to be, a word in its place without any."""
    for other in workspace.models.values():
        with suppress(DriftError):
            stamp = read_stamp(other.path)
            if stamp is not None and stamp.revision == detected.revisions[-1] and other.path != entry.path:
                return other.name
    return "MODEL"
