"""What is to be done with a model that has what migrations do, though nothing says that it was there."""

from __future__ import annotations

from contextlib import suppress

from tokmigrate.errors import DriftError
from tokmigrate.model.documents.stamp import FILE as STAMP
from tokmigrate.model.documents.stamp import read_stamp
from tokmigrate.model.snapshot import Snapshot
from tokmigrate.plan.progress import Progress
from tokmigrate.plan.revision_detection import Detected, detect_revision
from tokmigrate.settings import ModelEntry, Workspace


def hint_with_signs(
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
    signs = detect_revision(snapshot.state, progress.applied, progress.pending)
    if signs is None:
        return hint
    seems = f"the model looks like one at {_described(workspace, entry, snapshot, signs)}"
    if hint is None:
        return seems
    if signs.reached:
        return f"{seems}; else {hint}"
    # A part of a migration is there by chance more often than because somebody did it by hand.
    return f"{hint}; if a part of {signs.revisions[-1]} was done by hand, `tokmigrate check` names what is there"


def looks_like(
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
    signs = detect_revision(snapshot.state, progress.applied, progress.pending)
    return None if signs is None else _described(workspace, entry, snapshot, signs)


def _described(workspace: Workspace, entry: ModelEntry, snapshot: Snapshot, signs: Detected) -> str:
    off = f"its stamp is wrong: remove {STAMP}, then " if snapshot.stamp else ""
    revision = signs.reached or f"a part of {signs.revisions[-1]}"
    return f"{revision}: {signs}; {off}{way_to_take_on(workspace, entry, signs)}"


def way_to_take_on(workspace: Workspace, entry: ModelEntry, signs: Detected) -> str:
    """Return how a model with these signs is taken on, as commands."""
    name = _named(workspace, entry)
    copy = f"`tokmigrate stamp --from {_source(workspace, entry, signs)} --model {name}`"
    takes_on = f"{copy} takes it on as a copy of the model that it was made of, with its way back"
    if signs.reached is None:
        return f"complete it by hand, or take its tokenizer from a model that was upgraded; then {takes_on}"
    return f"{takes_on}, `tokmigrate stamp {signs.reached} --model {name}` without one"


def _named(workspace: Workspace, entry: ModelEntry) -> str:
    own = workspace.models.get(entry.name)
    if own is not None and own.path == entry.path:
        return entry.name
    within = entry.path.is_relative_to(workspace.root)
    return str(entry.path.relative_to(workspace.root) if within else entry.path)


def _source(workspace: Workspace, entry: ModelEntry, signs: Detected) -> str:
    """Return the first model of the workspace that is where this one seems to be, a word in its place without any."""
    for other in workspace.models.values():
        with suppress(DriftError):
            stamp = read_stamp(other.path)
            if stamp is not None and stamp.revision == signs.revisions[-1] and other.path != entry.path:
                return other.name
    return "MODEL"
