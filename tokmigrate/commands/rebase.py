"""Make two branches of a history linear: the migrations that no model has follow the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tokmigrate.commands.file_transaction import write_files
from tokmigrate.commands.lock import LockUpdate, compute_lock_update
from tokmigrate.commands.models import AppliedModels, applied_models_by_revision, refuse_applied
from tokmigrate.commands.tag import list_tags
from tokmigrate.errors import FileProblems, HistoryError, TokmigrateError
from tokmigrate.git import list_published_files, read_merge_sides
from tokmigrate.revision.history import History
from tokmigrate.revision.lock import Lock, lock_of
from tokmigrate.revision.lock_file import conflict_sides, lock_files, lock_path, lock_shown, parse_lock, read_lock_text
from tokmigrate.revision.reparent import (
    Branch,
    Reparented,
    branches,
    find_conflicts,
    list_reparented_files,
    renumber_files,
    reparent_branch,
)
from tokmigrate.settings import ModelEntry, Workspace


@dataclass(frozen=True)
class Rebased:
    """One line out of two branches.

    Args:
        onto: The new down revision; None where nothing had to be moved.
        moved: The migrations that follow it, with their files.
        shared: What one branch changes and the other changes or reads, or why that is not known.
        conflict: Whether Git had left a conflict in the lock.
        restored: Whether the lock could not be read, so that what Git has was taken.
        relocked: The changes of the lock; None where it has to wait, because there are still several heads.
    """

    onto: str | None
    moved: tuple[Reparented, ...]
    shared: tuple[str, ...]
    conflict: bool
    restored: bool
    relocked: LockUpdate | None


def rebase(
    workspace: Workspace, entries: Sequence[ModelEntry], revision: str | None = None, onto: str | None = None
) -> Rebased:
    """Put a branch after another head, and write the lock.

    Args:
        workspace: The workspace; its lock may hold a conflict.
        entries: The models whose ids are pinned.
        revision: A migration of the branch that is moved. By default the branch that no model has, and that the
            upstream branch of Git has not.
        onto: The head that it goes behind; by default the other one.

    Raises:
        HistoryError: A model has a migration of that branch, or the branch is ambiguous.
    """
    history = History.read_forked(workspace)
    tags = list_tags(workspace)
    for name in filter(None, (revision, onto)):
        history.resolve(name, None, tags)
    locks = _read_locks(workspace)
    behind: str | None = None
    shared: tuple[str, ...] = ()
    if len(history.heads) > 1:
        branch, other = _choose_branches(workspace, history, revision, onto)
        behind, moved, shared = other.head.revision, reparent_branch(branch, other.head), _find_shared(branch, other)
    else:
        moved = renumber_files(history.chain())
    files = list_reparented_files(moved)
    line = History.read_with(workspace, files)
    done = _update_lock(workspace, line, entries, locks.held, behind) if len(line.heads) < 2 else None
    write_files(workspace, {**files, **(lock_files(workspace, done.after) if done else {})})
    return Rebased(behind, moved, shared, locks.conflict, locks.restored, done)


def _choose_branches(
    workspace: Workspace, history: History, revision: str | None, onto: str | None
) -> tuple[Branch, Branch]:
    """Return the branch that is moved, and the one that it goes behind."""
    found = branches(history)
    where = applied_models_by_revision(workspace)
    if revision is not None:
        named = history.resolve(revision, None, list_tags(workspace))
        branch = next((each for each in found if named in each.revisions), None)
        if branch is None:
            raise HistoryError(f"'{revision}' is not a migration of a single branch", hint=_format_branches(found))
    else:
        branch = _find_movable(workspace, found, where)
    refuse_applied(branch.migrations, where, "moved")
    others = [each for each in found if each is not branch]
    if onto is not None:
        wanted = history.resolve(onto, None, list_tags(workspace))
        others = [each for each in others if each.head.revision == wanted]
        if not others:
            raise HistoryError(f"'{onto}' is not another head", hint="`tokmigrate heads` shows them")
    if len(others) > 1:
        raise HistoryError(
            "there are several heads that it could go behind", hint=f"name one with --onto: {_format_branches(others)}"
        )
    return branch, others[0]


def _find_movable(workspace: Workspace, found: Sequence[Branch], where: AppliedModels) -> Branch:
    """Return the branch that is not published; raises HistoryError where that is not exactly one."""
    free = [branch for branch in found if where.keys().isdisjoint(branch.revisions)]
    if not free:
        refuse_applied(found[-1].migrations, where, "moved")
    published = list_published_files(workspace.migrations)
    if len(free) > 1 and published is not None:
        own = [branch for branch in free if published.isdisjoint(each.path.name for each in branch.migrations)]
        free = own or free
    if published is not None and len(free) == 1 < len(found):
        _refuse_published(free[0], found, published)
    if len(free) == 1:
        return free[0]
    raise HistoryError(
        "either branch could go after the other, and nothing says which one is yours",
        hint=f"name the one to move, `tokmigrate rebase REVISION`: {_format_branches(free)}",
    )


def _refuse_published(branch: Branch, found: Sequence[Branch], published: frozenset[str]) -> None:
    """Raise HistoryError where the branch that no model has is the one that others have, and the other one is not."""
    if published.isdisjoint(each.path.name for each in branch.migrations):
        return
    for other in found:
        if other is not branch and published.isdisjoint(each.path.name for each in other.migrations):
            first = other.migrations[0]
            raise HistoryError(
                f"{branch.head.revision} is published, and a model has {other.head.revision}: neither is yours to move",
                where=other.head.shown,
                hint=f"`tokmigrate downgrade {first.down_revision or 'base'}` first, then `tokmigrate rebase`; or name "
                "the one that moves",
            )


def _format_branches(found: Sequence[Branch]) -> str:
    return " or ".join(f"{branch.head.revision} ({branch.head.shown})" for branch in found)


def _find_shared(branch: Branch, other: Branch) -> tuple[str, ...]:
    try:
        return find_conflicts(branch.migrations, other.migrations)
    except TokmigrateError as error:
        return (str(error),)


@dataclass(frozen=True)
class _KnownLocks:
    """What the lock says: on either side of a conflict as far as it can be read, or as Git has it."""

    held: tuple[Lock, ...] = ()
    conflict: bool = False
    restored: bool = False


def _read_locks(workspace: Workspace) -> _KnownLocks:
    text = read_lock_text(workspace)
    if text is None:
        return _KnownLocks()
    sides = conflict_sides(text)
    if sides[0] != sides[1]:
        return _KnownLocks(tuple(lock for side in sides if (lock := _parse_if_readable(side))), conflict=True)
    try:
        return _KnownLocks((parse_lock(text, lock_shown(workspace)),))
    except FileProblems as error:
        held = tuple(lock for side in read_merge_sides(lock_path(workspace)) if (lock := _parse_if_readable(side)))
        if not held:
            hint = "Git has no complete one either: delete it, then `tokmigrate rebase` recreates it"
            raise FileProblems([replace(problem, hint=hint) for problem in error.problems]) from error
        return _KnownLocks(held, conflict=len(held) > 1, restored=True)


def _parse_if_readable(text: str) -> Lock | None:
    # Where lines of one side did not touch those of the other, Git gave them to both: that is not a lock any more.
    try:
        return parse_lock(text, "")
    except FileProblems:
        return None


def _update_lock(
    workspace: Workspace, history: History, entries: Sequence[ModelEntry], locks: Sequence[Lock], onto: str | None
) -> LockUpdate:
    """Return the lock with what its sides pin for the migrations that stayed, and what the moved ones give now."""
    chain = history.chain()
    known: Lock | None = None
    for lock in locks:
        known = lock_of(chain, known, lock.holding(chain).tracks)
    before = next((lock for lock in locks if lock.head == onto), locks[0] if locks else None)
    try:
        done = compute_lock_update(workspace, history, entries, known)
    except TokmigrateError as error:
        # The order is settled all the same; what is wrong with a migration or a model shows again in a plan.
        done = compute_lock_update(workspace, history, (), known)
        done = replace(done, notes=(*done.notes, f"no new ids are pinned: {error}"))
    return replace(done, before=before)
